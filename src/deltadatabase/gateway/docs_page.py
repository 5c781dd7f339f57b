"""``/docs``: the OpenAPI document as one HTML page, without scripts and without foreign servers."""

from __future__ import annotations

import json
import shlex
from html import escape
from typing import Any, Final

from deltadatabase.gateway.openapi.codes import CODES
from deltadatabase.gateway.openapi.operation import EVENT_STREAM, JSON, NDJSON, PROBLEM

STREAMS: Final = frozenset({NDJSON, EVENT_STREAM})

CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)

_STYLE: Final = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --accent: #2563eb; }
@media (prefers-color-scheme: dark) { :root { --accent: #7aa7ff; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 60rem; padding: 1.5rem; font: 16px/1.5 system-ui, sans-serif; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.5rem; }
a { color: var(--accent); }
code, pre { font: 14px/1.45 ui-monospace, monospace; }
pre { background: var(--soft); border-radius: 6px; padding: .75rem; overflow-x: auto; margin: .5rem 0; }
details { border: 1px solid var(--line); border-radius: 8px; margin: .5rem 0; padding: 0 1rem; }
details[open] { padding-bottom: 1rem; }
summary { cursor: pointer; padding: .6rem 0; display: flex; flex-wrap: wrap; gap: .75rem; }
summary span { opacity: .75; }
.method { display: inline-block; min-width: 4.5rem; text-align: center; font-weight: 700; color: #fff;
  border-radius: 4px; }
.get { background: #2563eb; } .put { background: #a15c07; }
.post { background: #15803d; } .delete { background: #b91c1c; } .patch { background: #7e22ce; }
nav { display: flex; flex-wrap: wrap; gap: .25rem 1rem; margin: 1rem 0; }
table { border-collapse: collapse; width: 100%; } td, th { text-align: left; padding: .25rem .75rem .25rem 0;
  border-bottom: 1px solid var(--line); vertical-align: top; }
h3 { font-size: 1rem; margin: 1rem 0 .25rem; }
"""


_WITH_SCHEMAS: Final = (
    "<code>/openapi.json?schemas=true</code> describes the stored schemas too, as types for a client's code."
)


def render(api: dict[str, Any]) -> str:
    """Render an OpenAPI document of ``openapi.document``."""
    groups: dict[str, list[str]] = {}
    for path, operations in api["paths"].items():
        for method, operation in operations.items():
            groups.setdefault(operation["tags"][0], []).append(_operation(method, path, operation))
    info = api["info"]
    sections = "".join(
        f'<h2 id="{escape(tag)}">{escape(tag)}</h2>{"".join(blocks)}' for tag, blocks in groups.items()
    )
    names = [*groups, "Errors", "Shapes"]
    links = "".join(f'<a href="#{escape(name)}">{escape(name)}</a>' for name in names)
    schemas = "".join(
        _block(name, json.dumps(schema, indent=2, ensure_ascii=False))
        for name, schema in api["components"]["schemas"].items()
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(info['title'])} REST API</title><style>{_STYLE}</style></head><body>"
        f"<h1>{escape(info['title'])} REST API</h1><p>{escape(info['version'])} · "
        f'<a href="/openapi.json">openapi.json</a></p><nav>{links}</nav>'
        f"<p>{escape(info['description'])}</p>"
        "<p>Set these first; <code>deltadb admin-key</code> prints the admin key, dev mode needs none:</p>"
        "<pre>export DELTADB_URL=http://127.0.0.1:8080 DELTADB_KEY=…</pre>"
        f"<p>{_WITH_SCHEMAS}</p>{sections}{_errors(api)}"
        f'<h2 id="Shapes">Shapes</h2>{schemas}</body></html>'
    )


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    parts = [f"<p>{escape(operation['description'])}</p>"]
    if rows := [_parameter(parameter) for parameter in operation.get("parameters", [])]:
        parts.append(f"<h3>Parameters</h3><table>{''.join(rows)}</table>")
    parts.append(f"<h3>Example</h3><pre>{escape(_curl(method, path, operation))}</pre>")
    rows = []
    for status, answer in operation["responses"].items():
        rows.append(f"<tr><td><code>{status}</code></td><td>{escape(answer['description'])}</td></tr>")
        for media_type, content in answer.get("content", {}).items():
            if "example" in content and media_type != PROBLEM:
                kind = "" if media_type == JSON else f"<code>{media_type}</code>"
                shown = escape(_shown(content["example"]))
                rows.append(f"<tr><td></td><td>{kind}<pre>{shown}</pre></td></tr>")
    parts.append(f"<h3>Answers</h3><table>{''.join(rows)}</table>")
    return (
        f'<details><summary><b class="method {method}">{method.upper()}</b><code>{escape(path)}</code>'
        f"<span>{escape(operation['summary'])}</span></summary>{''.join(parts)}</details>"
    )


def _parameter(parameter: dict[str, Any]) -> str:
    need = "required" if parameter.get("required") else "optional"
    about = parameter.get("description") or parameter["schema"].get("pattern", "")
    return (
        f"<tr><td><code>{escape(parameter['name'])}</code></td><td>{parameter['in']}, {need}</td>"
        f"<td>{escape(about)}</td></tr>"
    )


def _curl(method: str, path: str, operation: dict[str, Any]) -> str:
    """A command that works once the two variables are set."""
    query = []
    for parameter in operation.get("parameters", []):
        example = parameter.get("example")
        if parameter["in"] == "path":
            path = path.replace(f"{{{parameter['name']}}}", example)
        elif parameter["in"] == "query" and parameter.get("required"):
            query.append(f"{parameter['name']}={example}")
    url = path + ("?" + "&".join(query) if query else "")
    words = ["curl -sS"]
    if operation["responses"].get("200", {}).get("content", {}).keys() & STREAMS:
        words.append("-N")
    if method == "head":
        words.append("--head")
    elif method != "get":
        words.append(f"-X {method.upper()}")
    words.append(f'"$DELTADB_URL{url}"')
    if operation.get("security") != []:
        words.append('\\\n  -H "Authorization: Bearer $DELTADB_KEY"')
    if body := operation.get("requestBody"):
        media_type, content = next(iter(body["content"].items()))
        example = content["example"]
        sent = example if isinstance(example, str) else json.dumps(example, ensure_ascii=False)
        words.append(f'\\\n  -H "Content-Type: {media_type}"')
        words.append(f"\\\n  --data-binary {shlex.quote(sent)}")
    return " ".join(words)


def _shown(example: Any) -> str:
    return example if isinstance(example, str) else json.dumps(example, indent=2, ensure_ascii=False)


def _errors(api: dict[str, Any]) -> str:
    """What each status of a failure means, and which of our codes come with it."""
    meanings: dict[str, str] = {}
    for operations in api["paths"].values():
        for operation in operations.values():
            for status, answer in operation["responses"].items():
                if PROBLEM in answer.get("content", {}):
                    meanings[status] = answer["description"]
    rows = "".join(
        f"<tr><td><code>{status}</code></td><td>{escape(meanings[status])}</td>"
        f"<td>{' '.join(f'<code>{escape(code)}</code>' for code in CODES.get(int(status), ()))}</td></tr>"
        for status in sorted(meanings)
    )
    return (
        '<h2 id="Errors">Errors</h2><p>Every failure is a problem document (RFC 9457); its member '
        "<code>error</code> is one of these codes.</p>"
        f"<table><tr><th>Status</th><th>Meaning</th><th>Codes</th></tr>{rows}</table>"
    )


def _block(name: str, text: str) -> str:
    return f"<details><summary><code>{escape(name)}</code></summary><pre>{escape(text)}</pre></details>"
