"""``docs/security.md`` names a test for each attack; a test that is gone must not be promised."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "security.md"
ROW = re.compile(r"^\|(?P<attack>[^|]+)\|(?P<outcome>[^|]+)\|(?P<tests>[^|]+)\|$", re.MULTILINE)
TEST = re.compile(r"`(test_\w+)`")
DEFINITION = re.compile(r"^(?:async )?def (test_\w+)\(", re.MULTILINE)


def rows() -> list[re.Match[str]]:
    attacks = PAGE.read_text().partition("\n## Attacks\n")[2].partition("\n## ")[0]
    return [row for row in ROW.finditer(attacks) if row["attack"].strip(" -") not in ("", "attack")]


def defined() -> set[str]:
    return {name for path in ROOT.glob("tests/**/*.py") for name in DEFINITION.findall(path.read_text())}


def test_each_attack_names_a_test_that_exists() -> None:
    known = defined()
    found = rows()
    assert len(found) > 30
    for row in found:
        names = TEST.findall(row["tests"])
        assert names, row["attack"]
        assert [name for name in names if name not in known] == [], row["attack"]


def test_each_attack_that_is_tested_on_a_running_system_is_on_the_page() -> None:
    # These show that another test could fail.
    controls = {
        "test_a_pipelined_request_is_a_request_of_its_own",
        "test_the_limit_is_what_prevents_the_core",
        "test_the_rogue_would_succeed_with_the_join_token",
    }
    attacks = {
        name
        for path in ROOT.glob("tests/security/test_*.py")
        for name in DEFINITION.findall(path.read_text())
    }
    named = {name for row in rows() for name in TEST.findall(row["tests"])}
    assert attacks - named == controls
