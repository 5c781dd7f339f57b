"""``python -m bench.compare A B``: what changed from one run to another."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]
USAGE = "usage: just bench-compare A B (two JSON files of the benchmark, the older one first)"


def main(arguments: list[str]) -> int:
    """Print a table; exit code 2: a file can't be read."""
    if len(arguments) != 2:
        print(USAGE, file=sys.stderr)
        return 2
    try:
        before, after = (json.loads(Path(name).read_bytes()) for name in arguments)
        print("\n".join(table(before, after)))
    except (OSError, ValueError, KeyError, TypeError) as exc:
        print(f"this is no result of the benchmark: {exc}\n{USAGE}", file=sys.stderr)
        return 2
    return 0


def table(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    """Rates and ratios of what both runs measured. Only ratios survive another hour or machine."""
    yield f"A: commit {before['commit']}, {before['time']}, {before['machine']['cpu']}"
    yield f"B: commit {after['commit']}, {after['time']}, {after['machine']['cpu']}"
    yield ""
    yield "| what | who | A: answers/s | B: answers/s | change | A: of its baseline | B: of its baseline | |"
    yield "|---|---|--:|--:|--:|--:|--:|---|"
    for old, new in _pairs(before, after):
        change = new["rate"]["median"] / old["rate"]["median"] - 1 if old["rate"]["median"] else 0.0
        yield (
            f"| {new['what']} | {new['who']} | {_spread(old['rate'], '{:,.0f}')} "
            f"| {_spread(new['rate'], '{:,.0f}')} | {change:+.0%} | {_spread(old['ratio'], '{:.2f}')} "
            f"| {_spread(new['ratio'], '{:.2f}')} | {verdict(old, new)} |"
        )


def verdict(old: Row, new: Row) -> str:
    """``better`` or ``worse`` where the two ranges have nothing in common: ratios where there are some."""
    measure = "ratio" if old["ratio"] and new["ratio"] else "rate"
    was, now = old[measure], new[measure]
    if now["low"] > was["high"]:
        return "better"
    return "worse" if now["high"] < was["low"] else ""


def _pairs(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[tuple[Row, Row]]:
    for name, part in after["parts"].items():
        known = {(row["what"], row["who"]): row for row in before["parts"].get(name, {}).get("rows", ())}
        for row in part.get("rows", ()):
            old = known.get((row["what"], row["who"]))
            if old is not None:
                yield old, row


def _spread(values: Mapping[str, float] | None, form: str) -> str:
    if values is None:
        return ""
    return f"{form.format(values['median'])} ({form.format(values['low'])}-{form.format(values['high'])})"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
