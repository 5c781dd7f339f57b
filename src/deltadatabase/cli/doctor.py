"""``deltadb doctor``: look at a store and what belongs to it, and say in words how it stands."""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from deltadatabase.cli import keyfiles, secrets
from deltadatabase.cli.running import clock, run
from deltadatabase.cli.scrub import console
from deltadatabase.cli.stores import open_existing_store
from deltadatabase.clock import system_random
from deltadatabase.crypto.keyring import MasterKey
from deltadatabase.errors import DeltaError, StartupError
from deltadatabase.maintenance import places
from deltadatabase.maintenance.diagnosis import Check, Diagnosis, Status, database_of
from deltadatabase.maintenance.doctor import store_checks
from deltadatabase.settings import DoctorSettings

EXIT_HEALTHY: Final = 0
EXIT_ATTENTION: Final = 1
STYLES: Final = {Status.OK: "green", Status.INFO: "", Status.WARNING: "yellow", Status.FAILED: "bold red"}


def run_doctor(settings: DoctorSettings) -> int:
    """Run ``deltadb doctor``; return its exit code. Raises StartupError."""
    found: list[Diagnosis] = []

    async def body(stop: asyncio.Event) -> None:
        examining = asyncio.create_task(_examine(settings))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({examining, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not examining.done():
            # Cancelled, not dropped: it removes what it has put into the store.
            examining.cancel()
            await asyncio.gather(examining, return_exceptions=True)
            raise StartupError("interrupted", code="interrupted")
        found.append(examining.result())

    run(body)
    (diagnosis,) = found
    if settings.json:
        print(msgspec.json.format(msgspec.json.encode(diagnosis), indent=2).decode())
    else:
        show(diagnosis, console())
    return EXIT_HEALTHY if diagnosis.healthy else EXIT_ATTENTION


async def _examine(settings: DoctorSettings) -> Diagnosis:
    checks: list[Check] = []
    on_directory = not settings.s3.enabled
    root = settings.shared_fs
    if on_directory:
        if (refusal := places.absent(root)) is not None:
            raise refusal
        checks += await asyncio.to_thread(places.directory_checks, root)
    keys, key_trouble = _keys(settings)
    checks += key_trouble
    checks += await asyncio.to_thread(places.state_checks, settings.state_path)
    checks.append(_join_token(settings))
    untouched = on_directory and not (root / "cluster").exists()
    store = await open_existing_store(settings, wait_s=settings.store_wait)
    try:
        of_store, info = await store_checks(store, keys, clock=clock, random=system_random)
    except StartupError:
        raise
    except DeltaError as exc:
        raise StartupError(f"the store went away: {exc.detail}", code="store_unreachable") from exc
    finally:
        await store.close()
        if untouched:
            await asyncio.to_thread(places.tidy_new_folders, root)
    checks = [*of_store, *checks]
    return Diagnosis(
        healthy=all(check.status in {Status.OK, Status.INFO} for check in checks),
        backend=store.backend,
        database=database_of(info) if info is not None else None,
        checks=tuple(checks),
    )


def _keys(settings: DoctorSettings) -> tuple[list[MasterKey], list[Check]]:
    try:
        return secrets.known_keys(settings), []
    except StartupError as exc:
        return [], [Check("keys", "master key", Status.FAILED, exc.detail)]


def _join_token(settings: DoctorSettings) -> Check:
    """Which join token a proc worker with these settings would use."""
    area, name = "joining", "join token"
    if settings.join_token is not None:
        return Check(area, name, Status.OK, "it is given; main worker and workers need the same")
    if settings.s3.enabled:
        if settings.s3.secret_key is not None:
            text = "it is derived from the S3 secret key; a main worker that has the same admits workers"
            return Check(area, name, Status.OK, text)
        text = "none: only workers on the main worker's own machine are admitted; give both a JOIN_TOKEN"
        return Check(area, name, Status.INFO, text)
    path = settings.shared_fs / secrets.CLUSTER_FOLDER / keyfiles.JOIN_TOKEN
    try:
        kept = keyfiles.load(path)
        mode = path.stat().st_mode if kept is not None else 0
    except StartupError as exc:
        return Check(area, name, Status.FAILED, exc.detail)
    if kept is None:
        return Check(area, name, Status.INFO, "none yet: a main worker on this directory makes one")
    check = places.secret_file_check(area, name, mode)
    return Check(area, name, check.status, f"it is kept in the directory; {check.text}")


def show(diagnosis: Diagnosis, target: Console) -> None:
    """Print the diagnosis as a table, and in a sentence what it comes to."""
    table = Table(box=None, pad_edge=False)
    for title in ("area", "what", "", "means"):
        table.add_column(title, overflow="fold")
    for check in diagnosis.checks:
        table.add_row(
            Text(check.area), Text(check.name), Text(check.status, STYLES[check.status]), Text(check.text)
        )
    target.print(table)
    target.print()
    failed = [check.name for check in diagnosis.checks if check.status is Status.FAILED]
    warned = [check.name for check in diagnosis.checks if check.status is Status.WARNING]
    if failed:
        target.print(Text(f"Do not rely on this store as it is: {', '.join(failed)} failed."))
    if warned:
        target.print(Text(f"Somebody should look at: {', '.join(warned)}."))
    if diagnosis.healthy:
        target.print("Nothing needs attention.")
