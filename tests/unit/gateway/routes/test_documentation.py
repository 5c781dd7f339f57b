import re
from html.parser import HTMLParser

from unit.gateway.rest_fakes import Client


async def test_the_root_leads_to_the_documentation(client: Client) -> None:
    reply = await client("GET", "/", key=None)
    assert (reply.status, reply.headers["location"]) == (302, "/docs")


async def test_the_description_is_served(client: Client) -> None:
    reply = await client("GET", "/openapi.json", key=None)
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    assert reply.json()["info"]["version"] == "1.2.3"


async def test_the_page_runs_nothing_and_loads_nothing(client: Client) -> None:
    reply = await client("GET", "/docs", key=None)
    assert (reply.status, reply.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "default-src 'none'" in reply.headers["content-security-policy"]
    links: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            assert tag not in ("script", "link", "img", "iframe")
            links.extend(value or "" for name, value in attrs if name in ("href", "src"))

    Reader().feed(reply.body.decode())
    assert links == ["/openapi.json"]
    assert not re.search(r"url\(|@import", reply.body.decode())
