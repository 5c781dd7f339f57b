"""The tables of docs/monitoring.md, written from what the programs export."""

from __future__ import annotations

from pathlib import Path

from deltadatabase.gateway import metrics as gateway
from deltadatabase.telemetry.metrics import PROCESS_FAMILIES, Family
from deltadatabase.worker import metrics as worker

TARGET = Path(__file__).parent / "monitoring.md"
BEGIN = "<!-- metrics: written by `just docs` -->\n"
END = "<!-- end of metrics -->\n"
GROUPS = (
    ("Every program", PROCESS_FAMILIES),
    ("`main-worker` and `deltadb serve`", gateway.FAMILIES),
    ("`proc-worker`, and `deltadb serve` without `-workers`", worker.FAMILIES),
)


def row(family: Family) -> str:
    """One line of a table."""
    labels = ", ".join(f"`{name}`" for name in family.labels)
    return f"| `{family.name}` | {family.kind} | {labels} | {family.help} |"


def tables() -> str:
    """All of them."""
    head = ["| metric | type | labels | |", "|---|---|---|---|"]
    return "\n".join(
        f"### {title}\n\n" + "\n".join([*head, *map(row, families)]) + "\n" for title, families in GROUPS
    )


def page() -> str:
    """The whole page, with the tables as they should be."""
    text = TARGET.read_text()
    before, rest = text.split(BEGIN)
    return before + BEGIN + "\n" + tables() + "\n" + END + rest.split(END)[1]
