"""Pages of documentation as tests: the commands of their ``console`` blocks, and what they shall print."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

MARK = "\x1e"
"""Ends the output of each command."""
TIMEOUT_S = 120.0


def steps_of(page: str) -> list[tuple[str, str]]:
    """Each command of a page, with its lines up to the end of a here-document, and what is shown below it."""
    steps = []
    for block in re.findall(r"```console\n(.*?)```", page, re.DOTALL):
        for step in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = step.partition("\n")
            if here := re.search(r"<<'(\w+)'", command):
                body, _, output = output.partition(f"\n{here[1]}\n")
                command = f"{command}\n{body}\n{here[1]}"
            steps.append((command, output))
    return steps


def printed(commands: list[str], environ: Mapping[str, str], folder: Path) -> list[str]:
    """What one shell prints for each command, on stdout and stderr together; its jobs end with it."""
    start = "exec 2>&1\nshopt -s expand_aliases\ntrap 'kill $(jobs -p) 2> /dev/null; wait' EXIT"
    script = "\n".join([start, *(f"{command}\nprintf '{MARK}'" for command in commands)])
    shell = subprocess.Popen(
        ["bash", "-c", script], cwd=folder, env=dict(environ), stdout=subprocess.PIPE, text=True
    )
    try:
        output, _ = shell.communicate(timeout=TIMEOUT_S)
    finally:
        shell.terminate()
        shell.wait()
    return output.split(MARK)


def fits(shown: str, output: str) -> bool:
    """Whether an output is as shown, where ``…`` stands for anything on its line.

    A page cannot show that the last line has no end.
    """
    if output and not output.endswith("\n"):
        output += "\n"
    pattern = ".*?".join(map(re.escape, shown.split("…")))
    return re.fullmatch(pattern, output) is not None


def wrong(page: str, environ: Mapping[str, str], folder: Path, names: Mapping[str, str]) -> list[str]:
    """Run a page in an empty folder; say of each command what differs.

    Args:
        page: its text.
        environ: of the shell.
        folder: where it runs.
        names: what stands for what on the page, such as the port that it shows.
    """
    steps = steps_of(page)
    commands = [command for command, _ in steps]
    for shown, real in names.items():
        commands = [command.replace(shown, real) for command in commands]
    outputs = printed(commands, environ, folder)
    outputs += ["(the shell ended before)"] * (len(steps) - len(outputs))
    return [
        f"$ {command}\n{output}\ninstead of\n{shown}"
        for (command, shown), output in zip(steps, outputs, strict=False)
        if not fits(shown, output)
    ]
