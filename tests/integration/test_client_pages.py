"""What docs/python-client.md and docs/command-line.md show is what happens."""

from __future__ import annotations

import doctest
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.pages import wrong
from support.programs import installed

from integration.serving import Served, served

pytestmark = pytest.mark.integration

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def server(tmp_path) -> Iterator[Served]:
    with served(tmp_path / "server") as running:
        yield running


def differences(page: str, name: str) -> list[str]:
    """Run the examples of a page of Python; what differs."""
    test = doctest.DocTestParser().get_doctest(page.replace("…", "..."), {}, name, name, 0)
    assert test.examples
    found: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.REPORT_NDIFF).run(test, out=found.append)
    return found


def test_the_page_of_the_python_client(server, tmp_path, monkeypatch):
    monkeypatch.setenv("DELTADB_URL", server.url)
    monkeypatch.chdir(tmp_path)
    page = (DOCS / "python-client.md").read_text()
    assert "".join(differences(page, "python-client.md")) == ""


def test_a_wrong_example_is_found():
    assert differences(">>> 1 + 1\n3\n", "planted")


def test_the_page_of_the_command_line(server, tmp_path):
    path = f"{installed('deltadb').parent}:{os.environ['PATH']}"
    environ = {"PATH": path, "HOME": str(tmp_path), "DELTADB_URL": server.url}
    page = (DOCS / "command-line.md").read_text()
    assert page.count("\n$ ") > 20
    assert wrong(page, environ, tmp_path, {}) == []
