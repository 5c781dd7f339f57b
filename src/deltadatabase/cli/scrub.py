"""``deltadb scrub``: open the store, scrub it, show what was found."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import Final, Protocol

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from deltadatabase.cli import secrets
from deltadatabase.cli.running import clock, run
from deltadatabase.cli.stores import open_existing_store
from deltadatabase.clock import system_random
from deltadatabase.crypto.envelope import Sealer
from deltadatabase.crypto.keyring import Keyring, check_database, standing_of
from deltadatabase.errors import DeltaError, NotFound, StartupError, Unavailable
from deltadatabase.maintenance import leftovers
from deltadatabase.maintenance.checking import Tasks
from deltadatabase.maintenance.findings import Action, Finding, Kind, Report, report_of, told_one_by_one
from deltadatabase.maintenance.position import Position, Positions
from deltadatabase.maintenance.scrub import Outside, Scrub, count
from deltadatabase.model import DatabaseInfo
from deltadatabase.settings import ScrubSettings
from deltadatabase.storage.base import Store
from deltadatabase.storage.database import end_maintenance, read_database
from deltadatabase.storage.paths import DATABASE_PATH

EXIT_CLEAN: Final = 0
EXIT_REMAINS: Final = 1
EXIT_REFUSED: Final = 2
ROWS_SHOWN: Final = 200
WIDTH_PIPED: Final = 160


class _Bar(Protocol):
    def __call__(self, done: int, /) -> None: ...


def run_scrub(settings: ScrubSettings) -> int:
    """Run ``deltadb scrub``; return its exit code. Raises StartupError."""
    code = EXIT_REFUSED

    async def body(stop: asyncio.Event) -> None:
        nonlocal code
        if not settings.s3.enabled and not (settings.shared_fs / DATABASE_PATH).is_file():
            # Opening the directory would make folders in it, whatever it is.
            raise StartupError(
                "there is no database in this directory: name the database's with -data",
                code="store_refused",
            )
        # Before the store is opened: opening a directory removes them.
        old = [] if settings.s3.enabled else leftovers.find(settings.shared_fs, now_ms=clock.wall_ms())
        store = await open_existing_store(settings, wait_s=settings.store_wait)
        try:
            if settings.end_maintenance:
                code = await _end_maintenance(settings, store)
            else:
                code = await _scrub(settings, store, old, stop)
        finally:
            await store.close()

    run(body)
    return code


async def _end_maintenance(settings: ScrubSettings, store: Store) -> int:
    await _opened(settings, store)
    positions = Positions(settings.state_path)
    try:
        cleared = await end_maintenance(store)
    finally:
        positions.close()
    print(
        "The maintenance flag is cleared: workers can start again."
        if cleared
        else "There was no maintenance flag; nothing was changed."
    )
    return EXIT_CLEAN


async def _scrub(settings: ScrubSettings, store: Store, old: list[str], stop: asyncio.Event) -> int:
    keyring, info = await _opened(settings, store)
    tasks = Tasks(
        dry_run=settings.dry_run,
        quarantine=settings.quarantine,
        remove_orphans=settings.remove_orphans,
        remove_tombstones=settings.remove_tombstones,
    )
    positions = Positions(settings.state_path)
    try:
        resumed = _resumed(positions.load(), tasks, info) if settings.resume else None

        async def save(position: Position) -> None:
            await asyncio.to_thread(positions.save, position)

        with _progress(await _total(store)) as progress:
            scrub = Scrub(
                store,
                Sealer(keyring, system_random),
                info,
                tasks,
                Outside(
                    clock=clock, random=system_random, progress=progress, save=save, stopping=stop.is_set
                ),
                resumed=resumed,
            )
            for name in old if resumed is None else ():
                scrub.ledger.note(Finding(kind=Kind.LEFTOVER, object=name, action=Action.REMOVED))
            try:
                complete = await scrub.run()
            except StartupError:
                if resumed is None and not scrub.ledger.counts.objects:
                    # Refused before it began: there is nothing to go on with.
                    positions.clear()
                raise
            except DeltaError as exc:
                raise StartupError(
                    f"the scrub was broken off: {exc.detail}; {_go_on(settings)}", code="store_unreachable"
                ) from exc
        if complete:
            positions.clear()
    finally:
        positions.close()
    report = report_of(
        scrub.ledger,
        complete=complete,
        dry_run=settings.dry_run,
        backend=store.backend,
        database_id=info.database_id,
    )
    if settings.json:
        print(msgspec.json.format(msgspec.json.encode(report), indent=2).decode())
    else:
        show(report, console())
    if not complete:
        done = report.counts.objects
        print(f"deltadb scrub: interrupted after {done} objects; {_go_on(settings)}", file=sys.stderr)
        return EXIT_REFUSED
    return EXIT_CLEAN if report.clean else EXIT_REMAINS


async def _opened(settings: ScrubSettings, store: Store) -> tuple[Keyring, DatabaseInfo]:
    """Find the keys, and check that they are the database's. Nothing was written before this."""
    keys = secrets.known_keys(settings)
    if not keys:
        raise StartupError(
            "no master key: give -master-key (MASTER_KEY), or the main worker's directory with -state-dir",
            code="wrong_master_key",
        )
    try:
        info = await read_database(store)
    except NotFound:
        raise StartupError("there is no database in this store", code="store_refused") from None
    except Unavailable as exc:
        raise StartupError(exc.detail, code="store_unreachable") from exc
    check_database(Keyring(keys[0], keys[1:]), info)
    # What a scrub seals, it seals with a key that the database knows already.
    keys.sort(key=lambda key: standing_of(key, info) != "fits")
    return Keyring(keys[0], keys[1:]), info


def _resumed(position: Position | None, tasks: Tasks, info: DatabaseInfo) -> Position:
    if position is None:
        raise StartupError(
            "there is no interrupted scrub to go on with in this state directory: leave -resume out",
            code="state_unusable",
        )
    if position.database_id != info.database_id:
        raise StartupError(
            "the interrupted scrub was of another database: leave -resume out", code="state_unusable"
        )
    if position.tasks != asdict(tasks):
        given = [f"-{name.replace('_', '-')}" for name, value in position.tasks.items() if value]
        raise StartupError(
            f"the interrupted scrub had other flags ({' '.join(given) or 'none'}): give the same, or leave "
            "-resume out",
            code="state_unusable",
        )
    return position


def _go_on(settings: ScrubSettings) -> str:
    given = [
        f" -{name.replace('_', '-')}"
        for name in ("dry_run", "quarantine", "remove_orphans", "remove_tombstones")
        if getattr(settings, name)
    ]
    return f"go on with: deltadb scrub -resume{''.join(given)}, and the same flags for the store"


async def _total(store: Store) -> int | None:
    """The number of objects, where somebody watches the progress bar; counting costs a listing."""
    if not sys.stderr.isatty():
        return None
    with contextlib.suppress(DeltaError):
        return await count(store)
    return None


@contextlib.contextmanager
def _progress(total: int | None) -> Iterator[_Bar]:
    """Show a bar on a terminal; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    columns = (BarColumn(), TaskProgressColumn(), MofNCompleteColumn(), "objects", TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("scrub", total=total)
        yield lambda done: progress.update(task, completed=done)


def console() -> Console:
    """Where results are shown; wide enough for a name in a line where nobody's terminal says how wide."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH_PIPED)


def show(report: Report, target: Console) -> None:
    """Print the report as a table and the summary below it."""
    listed = told_one_by_one(report.findings)
    shown = listed[:ROWS_SHOWN]
    if shown:
        table = Table(box=None, pad_edge=False)
        for title in ("found", "done", "schema id", "key", "more"):
            table.add_column(title, overflow="fold")
        for finding in shown:
            # Text, not markup: names may hold anything.
            cells = (
                finding.kind,
                finding.action,
                finding.schema_id,
                finding.key,
                finding.object or finding.detail,
            )
            table.add_row(*map(Text, cells))
        target.print(table)
        if hidden := len(listed) - len(shown):
            target.print(f"… and {hidden} more; -json lists up to 10,000")
        target.print()
    for line in report.summary:
        target.print(Text(line))
