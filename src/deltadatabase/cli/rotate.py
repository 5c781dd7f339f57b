"""``deltadb rotate``: begin a rotation of the master key in a running main worker, and show it."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Final

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TimeRemainingColumn
from rich.table import Table

from deltadatabase.cli.rest import RestClient
from deltadatabase.cli.scrub import console
from deltadatabase.errors import StartupError
from deltadatabase.gateway.rotation import ENDED, Phase, RotationStatus
from deltadatabase.settings import RotateSettings

EXIT_DONE: Final = 0
EXIT_REMAINS: Final = 1
EXIT_REFUSED: Final = 2
PATH: Final = "/admin/rotation"
LOOK_S: Final = 0.3
MEANS: Final = {
    Phase.OFFERING: "every worker learns to read the new key",
    Phase.PROMOTING: "every worker seals with the new key from now on",
    Phase.SETTLING: "waiting until no earlier write can land any more",
    Phase.RESEALING: "sealing every object anew",
}
"""What is done in each phase, for people."""

Show = Callable[[RotationStatus], None]


def run_rotate(settings: RotateSettings) -> int:
    """Run ``deltadb rotate``; return its exit code. Raises StartupError."""
    client = RestClient(settings)
    try:
        if settings.pause:
            status = client.call("DELETE", PATH, RotationStatus)
            return _told(settings, status, _paused(status), EXIT_DONE)
        if settings.dry_run:
            return _count(settings, client)
        return _rotate(settings, client)
    except KeyboardInterrupt:
        print(
            "deltadb rotate: interrupted; the main worker goes on. Look at it again with: deltadb rotate; "
            "stop it with: deltadb rotate -pause",
            file=sys.stderr,
        )
        return EXIT_REFUSED
    finally:
        client.close()


def _rotate(settings: RotateSettings, client: RestClient) -> int:
    status = client.call("POST", PATH, RotationStatus, {})
    with _shown() as show:
        while status.running and status.progress.phase not in ENDED:
            show(status)
            time.sleep(LOOK_S)
            status = _look(client, status)
        show(status)
    phase = status.progress.phase
    if phase is Phase.FINISHED:
        return _told(settings, status, _finished(status), EXIT_DONE)
    if phase is Phase.BLOCKED:
        return _told(settings, status, _blocked(status), EXIT_REMAINS)
    reason = f"it stopped: {status.trouble}" if status.trouble else "somebody paused it"
    raise StartupError(f"{reason}; go on with: deltadb rotate", code="interrupted")


def _count(settings: RotateSettings, client: RestClient) -> int:
    status = client.call("POST", PATH, RotationStatus, {"dry_run": True})
    with _shown() as show:
        while status.count is not None and not status.count.complete:
            show(status)
            time.sleep(LOOK_S)
            status = _look(client, status)
        show(status)
    count = status.count
    if count is None:
        raise StartupError("the count was broken off", code="interrupted")
    clean = not (count.damaged or count.unreadable)
    if settings.json:
        return _told(settings, status, [], EXIT_DONE if clean else EXIT_REMAINS)
    table = Table(box=None, pad_edge=False)
    for title in ("master key", "objects", ""):
        table.add_column(title)
    for key_id in sorted({*status.readable, *count.keys}):
        use = "seals new writes" if key_id == status.primary else ""
        table.add_row(key_id, f"{count.keys.get(key_id, 0):,}", use)
    console().print(table)
    return _told(
        settings, status, _left_over(count.damaged, count.unreadable), EXIT_DONE if clean else EXIT_REMAINS
    )


def _look(client: RestClient, before: RotationStatus) -> RotationStatus:
    """Ask how it stands; a main worker that is being restarted is waited for."""
    try:
        return client.call("GET", PATH, RotationStatus)
    except StartupError as exc:
        if exc.code not in {"unreachable", "unavailable"}:
            raise
        return before


def _finished(status: RotationStatus) -> list[str]:
    progress = status.progress
    sealed = f"{progress.resealed:,} were sealed anew"
    lines = [f"Every object is sealed with the master key {status.primary}; {sealed}."]
    if not progress.retired:
        return lines
    retired = ", ".join(progress.retired)
    lines.append(f"This key can be retired now: {retired}.")
    if status.kept:
        lines.append(
            "The state directory has it as master-key-retired-<key id>: keep that file as long as you keep "
            "backups of the store from before. Back up the new master-key now."
        )
    else:
        lines.append(
            "Do not give it as -master-key-previous (MASTER_KEY_PREVIOUS) any more; keep it as long as you "
            "keep backups of the store from before."
        )
    return lines


def _blocked(status: RotationStatus) -> list[str]:
    progress = status.progress
    return [
        *_left_over(progress.damaged, progress.unreadable),
        "The former keys must stay. List these objects with deltadb scrub, restore them, or set damaged ones",
        "aside with deltadb scrub -quarantine; then run deltadb rotate again.",
    ]


def _left_over(damaged: int, unreadable: int) -> list[str]:
    lines = []
    if damaged:
        lines.append(f"{damaged:,} objects fail their integrity check.")
    if unreadable:
        lines.append(f"{unreadable:,} objects are sealed with a key that is not there.")
    return lines


def _paused(status: RotationStatus) -> list[str]:
    if status.progress.phase in ENDED:
        return ["No rotation is under way."]
    return [f"The rotation is paused ({MEANS[status.progress.phase]}). Go on with: deltadb rotate"]


def _told(settings: RotateSettings, status: RotationStatus, lines: list[str], code: int) -> int:
    if settings.json:
        print(msgspec.json.format(msgspec.json.encode(status), indent=2).decode())
    else:
        for line in lines:
            print(line)
    return code


@contextlib.contextmanager
def _shown() -> Iterator[Show]:
    """Show a bar on a terminal; elsewhere a line on stderr for each phase."""
    if not sys.stderr.isatty():
        said: set[str] = set()

        def say(status: RotationStatus) -> None:
            text = _doing(status)
            if text not in said:
                said.add(text)
                print(f"deltadb rotate: {text}", file=sys.stderr)

        yield say
        return
    columns = (
        "{task.description}",
        BarColumn(),
        TaskProgressColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=None)

        def show(status: RotationStatus) -> None:
            counted = status.count if status.count is not None and not status.running else status.progress
            bar.update(
                task, description=_doing(status), total=counted.total or None, completed=counted.checked
            )

        yield show


def _doing(status: RotationStatus) -> str:
    phase = status.progress.phase
    if phase in ENDED or not status.running:
        if status.count is not None and not status.count.complete:
            return "counting"
        return "done" if phase in ENDED else "stopped"
    text = MEANS[phase]
    if status.waiting_for:
        text += f" (waiting for {', '.join(status.waiting_for[:3])})"
    return f"{text} (trouble: {status.trouble})" if status.trouble else text
