import shlex
from html import unescape

from deltadatabase.gateway import docs_page, openapi


def test_every_operation_has_a_command() -> None:
    page = docs_page.render(openapi.document("1"))
    assert page.count("curl -sS") == len(openapi.OPERATIONS)
    command = unescape(page).partition("<pre>curl -sS -X PUT")[2].partition("</pre>")[0]
    assert shlex.split(command.replace("\\\n", "")) == [
        "$DELTADB_URL/entity/chat.v1",
        "-H",
        "Authorization: Bearer $DELTADB_KEY",
        "-d",
        '{"session_001": {"messages": [{"role": "user", "content": "Hello!"}]}}',
    ]


def test_text_is_escaped() -> None:
    api = openapi.document("1")
    api["info"]["description"] = "<script>alert(1)</script>"
    api["paths"]["/health"]["get"]["summary"] = "<b>&"
    page = docs_page.render(api)
    assert "<script" not in page
    assert "&lt;b&gt;&amp;" in page
