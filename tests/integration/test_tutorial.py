"""What docs/tutorial.md shows is what happens."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.pages import fits, steps_of, wrong
from support.programs import free_port, installed

pytestmark = pytest.mark.integration

PAGE = (Path(__file__).parents[2] / "docs" / "tutorial.md").read_text()


def run(page: str, folder: Path) -> list[str]:
    port = free_port()
    environ = {
        "PATH": f"{installed('deltadb').parent}:{os.environ['PATH']}",
        "HOME": str(folder),
        "DELTADB_REST_ADDR": f"127.0.0.1:{port}",
    }
    return wrong(page, environ, folder, {"127.0.0.1:8080": f"127.0.0.1:{port}"})


def test_the_tutorial(tmp_path: Path) -> None:
    assert len(steps_of(PAGE)) > 35
    assert "\n\n".join(run(PAGE, tmp_path)) == ""


def test_a_wrong_line_of_the_tutorial_is_found(tmp_path: Path) -> None:
    begin = PAGE[: PAGE.index("## Say what a room is")]
    planted = begin.replace('{"status":"ok","version":"…"}', '{"status":"fine","version":"…"}')
    assert planted != begin
    (found,) = run(planted, tmp_path)
    assert found.startswith("$ curl -sS $URL/health")


def test_what_fits() -> None:
    assert fits('{"etag":"…"}\n', '{"etag":"1-a"}\n')
    assert not fits('{"etag":"…"}\n', '{"etag":"1-a"}\n\n')
    assert not fits("", "trouble\n")
    assert steps_of("```console\n$ a <<'END'\nx\nEND\n$ c; d\ne\n```\n") == [
        ("a <<'END'\nx\nEND", ""),
        ("c; d", "e\n"),
    ]
