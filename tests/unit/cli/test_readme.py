from __future__ import annotations

import re
from pathlib import Path

import pytest

from deltadatabase.settings import AdminKeySettings, MainSettings, ServeSettings, WorkerSettings, flags_of

README = Path(__file__).parents[3] / "README.md"
PROGRAMS = {
    "deltadb serve": ServeSettings,
    "deltadb admin-key": AdminKeySettings,
    "main-worker": MainSettings,
    "proc-worker": WorkerSettings,
}


def commands():
    blocks = re.findall(r"```sh\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    return "".join(blocks).replace("\\\n", " ").splitlines()


@pytest.mark.parametrize("program", PROGRAMS)
def test_flags_in_the_readme_exist(program):
    used = [line.partition(program)[2].partition(")")[0] for line in commands() if program in line]
    assert used
    names = {flag.name for _, flag in flags_of(PROGRAMS[program])}
    for arguments in used:
        assert set(re.findall(r" --?([a-z][a-z0-9-]*)", arguments)) <= names


def test_ci_runs_the_marked_command():
    text = README.read_text(encoding="utf-8")
    marked = re.findall(r"<!-- ci: the next command -->\n```sh\n(.*)\n```", text)
    assert len(marked) == 1
    assert marked[0].endswith("just check")
    runner = (README.parent / ".ci" / "run").read_text(encoding="utf-8")
    assert "<!-- ci: the next command -->" in runner
