"""What docs/python-client.md, docs/command-line.md and the start of the README show is what happens."""

from __future__ import annotations

import doctest
import os
import re
import subprocess
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


def test_the_start_of_the_readme(server, tmp_path):
    start = (DOCS.parent / "README.md").read_text().partition("\n## Start\n")[2].partition("\n## ")[0]
    install, walk, commands = re.findall(r"```sh\n(.*?)```", start, re.DOTALL)
    (program,) = re.findall(r"```python\n(.*?)```", start, re.DOTALL)
    assert "deltadb serve" in install
    script = f"set -e\n{walk}{commands}cat > note.py <<'END'\n{program}END\n.venv/bin/python note.py\n"
    (tmp_path / ".venv").symlink_to(installed("deltadb").parent.parent)
    done = subprocess.run(
        ["bash", "-c", script.replace("http://127.0.0.1:8080", server.url)],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "DELTADB_URL": server.url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = (
        '{"text": "hello"}',
        "a required member is missing",
        '"created":true',
        "{'text': 'hello', 'stars': 3}",
    )
    places = [done.stdout.find(text) for text in told]
    assert -1 not in places and places == sorted(places), done.stdout


def test_the_page_of_the_command_line(server, tmp_path):
    path = f"{installed('deltadb').parent}:{os.environ['PATH']}"
    environ = {"PATH": path, "HOME": str(tmp_path), "DELTADB_URL": server.url}
    page = (DOCS / "command-line.md").read_text()
    assert page.count("\n$ ") > 20
    assert wrong(page, environ, tmp_path, {}) == []
