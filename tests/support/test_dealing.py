"""The tests are dealt out by whole files, but for those that are named; and what is named exists."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from support.dealing import SINGLY, Dealing

ROOT = Path(__file__).parents[2]


class Node:
    """Stands in for a process: notes the tests that it is sent."""

    def __init__(self, name: str) -> None:
        self.gateway = SimpleNamespace(id=name)
        self.shutting_down = False
        self.sent: list[int] = []

    def send_runtest_some(self, indices: list[int]) -> None:
        self.sent += indices

    def shutdown(self) -> None:
        self.shutting_down = True


def dealt(pytestconfig: pytest.Config, tests: list[str]) -> list[list[str]]:
    """What each of two processes is sent, each of which ends a test in turn."""
    config: Any = SimpleNamespace(
        option=SimpleNamespace(loadscopereorder=False),
        getvalue=lambda name: ["2*popen"] if name == "tx" else pytestconfig.getvalue(name),
    )
    nodes = [Node("a"), Node("b")]
    dealing = Dealing(config)
    for node in nodes:
        dealing.add_node(node)
        dealing.add_node_collection(node, tests)
    dealing.schedule()
    for done in range(len(tests)):
        for node in nodes:
            if done < len(node.sent):
                dealing.mark_test_complete(node, node.sent[done])
    return [[tests[index] for index in node.sent] for node in nodes]


def test_the_tests_of_a_file_stay_together(pytestconfig: pytest.Config) -> None:
    tests = [f"tests/unit/test_{file}.py::test_{number}" for file in "abcd" for number in range(5)]
    first, second = dealt(pytestconfig, tests)
    assert sorted(first + second) == tests
    assert len(first) == len(second) == 10
    files = [{test.partition("::")[0] for test in each} for each in (first, second)]
    assert not files[0] & files[1]


def test_long_tests_are_dealt_out_one_by_one(pytestconfig: pytest.Config) -> None:
    tests = [f"tests/sim/test_simulation.py::test_seeds[{number}]" for number in range(10)]
    first, second = dealt(pytestconfig, tests)
    assert sorted(first + second) == tests
    assert abs(len(first) - len(second)) <= 2


@pytest.mark.parametrize("path", SINGLY)
def test_what_is_named_exists(path: str) -> None:
    assert (ROOT / path).exists()


@pytest.mark.parametrize("path", SINGLY)
def test_what_is_dealt_out_singly_shares_no_fixture(path: str) -> None:
    """Each process would make it anew, which costs more than it saves."""
    place = ROOT / path
    for file in place.rglob("*.py") if place.is_dir() else [place]:
        assert 'scope="module"' not in file.read_text(encoding="utf-8"), file
