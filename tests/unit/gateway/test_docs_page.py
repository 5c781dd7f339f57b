import re
import shlex
from html import unescape

from deltadatabase.gateway import docs_page, openapi


def test_every_operation_has_a_command() -> None:
    page = docs_page.render(openapi.document("1"))
    assert page.count("curl -sS") == len(openapi.OPERATIONS)
    command = unescape(page).partition('PUT "$DELTADB_URL/entity/')[2].partition("</pre>")[0]
    assert shlex.split('"' + command.replace("\\\n", "")) == [
        "chat.v1",
        "-H",
        "Authorization: Bearer $DELTADB_KEY",
        "-H",
        "Content-Type: application/json",
        "--data-binary",
        '{"session_001": {"messages": [{"role": "user", "content": "Hello!"}]}}',
    ]


def test_quotes_in_an_example_stay_one_word_of_the_shell() -> None:
    api = openapi.document("1")
    api["paths"]["/entity/{schema_id}"]["put"]["requestBody"]["content"]["application/json"]["example"] = (
        "it's"
    )
    assert shlex.quote("it's") in unescape(docs_page.render(api))


def test_every_status_of_a_failure_is_in_the_table_with_its_codes() -> None:
    table = docs_page.render(openapi.document("1")).partition('id="Errors"')[2]
    assert {int(status) for status in re.findall(r"<tr><td><code>(\d+)", table)} >= {400, 412, 415, 428, 504}
    assert "<code>patch_test_failed</code>" in table


def test_text_is_escaped() -> None:
    api = openapi.document("1")
    api["info"]["description"] = "<script>alert(1)</script>"
    api["paths"]["/health"]["get"]["summary"] = "<b>&"
    page = docs_page.render(api)
    assert "<script" not in page
    assert "&lt;b&gt;&amp;" in page
