"""Write what docs show of the code: ``just docs``; with ``--check`` only compare.

That is docs/configuration.md, from the settings, and the tables of docs/monitoring.md.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import metrics_table

from deltadatabase.cli.commands import COMMANDS
from deltadatabase.settings import (
    AdminKeySettings,
    CommandFlags,
    DoctorSettings,
    Flag,
    HealthSettings,
    MainSettings,
    RotateSettings,
    ScrubSettings,
    ServeSettings,
    WorkerSettings,
    flags_of,
)

TARGET = Path(__file__).parent / "configuration.md"
PROGRAMS = (
    ("main-worker", MainSettings),
    ("proc-worker", WorkerSettings),
    ("deltadb serve", ServeSettings),
    ("deltadb admin-key", AdminKeySettings),
    ("deltadb scrub", ScrubSettings),
    ("deltadb doctor", DoctorSettings),
    ("deltadb rotate", RotateSettings),
    ("deltadb health", HealthSettings),
)
HEAD = """# Configuration

Written from the settings by `just docs`; do not edit. Flags are spelled `-name=value`,
`-name value` or `--name`; the command line outranks the environment. Durations: `500ms`,
`1h30m`, `7d`. Sizes: `256MiB`. `:8080` is all IPv4 interfaces. Each secret may also come from
a file: `-NAME-file`, or the variable with `_FILE` behind it.
"""


SHARED = "commands on a running server"
"""Section of the flags that all of them have; those of one command alone follow."""


def sections() -> Iterator[tuple[str, list[Flag]]]:
    """Title and flags of each section."""
    for program, settings in PROGRAMS:
        yield program, [flag for _, flag in flags_of(settings)]
    shared = [flag for _, flag in flags_of(CommandFlags)]
    yield SHARED, shared
    for command in COMMANDS:
        own = [flag for _, flag in flags_of(command.settings) if flag not in shared]
        if own:
            yield f"deltadb {command.name}", own


def row(flag: Flag) -> str:
    """One line of a table."""
    names = ", ".join(f"`-{name}`" for name in (flag.name, *flag.aliases))
    default = flag.default_note or (f"`{flag.default}`" if flag.default else "")
    text = f"{flag.help} (no effect: {flag.hidden})" if flag.hidden else flag.help
    return f"| {names} | `{flag.env}` | {default} | {text.strip()} |"


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for program, flags in sections():
        rows = map(row, sorted(flags, key=lambda flag: flag.name))
        table = ["| flag | environment | default | |", "|---|---|---|---|", *rows]
        parts.append(f"\n## {program}\n\n" + "\n".join(table) + "\n")
    return "".join(parts)


def main() -> int:
    """Write or check; 1 where a page is out of date."""
    code = 0
    for target, text in ((TARGET, page()), (metrics_table.TARGET, metrics_table.page())):
        if "--check" not in sys.argv[1:]:
            target.write_text(text)
        elif not target.exists() or target.read_text() != text:
            print(f"docs/{target.name} is out of date: run `just docs`", file=sys.stderr)
            code = 1
    return code


if __name__ == "__main__":
    sys.exit(main())
