"""The TLS files of a program: read at the start, then looked at, and taken over when they changed."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from deltadatabase import limits
from deltadatabase.clock import Clock, rfc3339
from deltadatabase.crypto.certificates import Pem, examine
from deltadatabase.errors import StartupError
from deltadatabase.rpc.channels import Tls
from deltadatabase.settings import TlsFlags
from deltadatabase.telemetry.logging import get_logger

TryOut = Callable[[Pem], Awaitable[bool]]
"""Whether a server can really use it; for what cannot be told from the bytes."""
OnChange = Callable[[Pem], Awaitable[None]]

TRY_AGAIN_S: Final = 60.0
_FILE_BYTES_MAX: Final = 4 * limits.MIB
_NOT_USABLE: Final = "-tls-cert: the HTTP server cannot use this certificate with its key"
_OPEN_TO_OTHERS: Final = stat.S_IRWXO | stat.S_IWGRP

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Files:
    """The bytes of the files at one look; ``ca`` is None without the flag."""

    cert: bytes
    key: bytes
    ca: bytes | None


class Certificates:
    """The certificates of one program, always a set that fits together.

    Args:
        flags: name the files; ``-tls-cert`` and ``-tls-key`` are given.
        clock: the present, for dates of expiry.
        try_out: asked last before a set is taken; None takes it.
    """

    def __init__(self, flags: TlsFlags, *, clock: Clock, try_out: TryOut | None = None) -> None:
        self._flags = flags
        self._clock = clock
        self._try_out = try_out
        self._current: Pem | None = None
        self._used: _Files | None = None
        self._seen: _Files | None = None
        self._unusable: _Files | None = None
        self._try_again_s = 0.0
        self._on_change: list[OnChange] = []
        self._untold: list[OnChange] = []
        self._said = ""
        self._said_expired = False

    @property
    def tls(self) -> Tls:
        """What gRPC servers and clients of this program use."""
        return Tls(
            current=self.current, client_auth=self._flags.client_auth, server_name=self._flags.server_name
        )

    def current(self) -> Pem:
        """Return the set in use; after ``load`` only."""
        assert self._current is not None
        return self._current

    def on_change(self, call: OnChange) -> None:
        """Have ``call`` told each later set."""
        self._on_change.append(call)

    async def load(self) -> None:
        """Read the files for the first time.

        Raises:
            StartupError: ``bad_flag``, a file is missing or of no use; names the flag, not the path.
        """
        files = await asyncio.to_thread(self._read)
        pem = self._examine(files)
        if self._try_out is not None and not await self._try_out(pem):
            raise StartupError(_NOT_USABLE, code="bad_flag")
        self._used, self._current = files, pem
        self._warn_of_openness()

    async def look(self) -> None:
        """Look at the files once; what changed is taken when it fits and two looks in a row saw the same.

        A file that is being written is thus never taken half, and of a certificate and a key that
        are written one after the other only both together. What does not fit is logged once.
        """
        await self._tell()
        self._warn_of_expiry()
        seen, self._seen = self._seen, None
        try:
            files = await asyncio.to_thread(self._read)
            settled, self._seen = files == seen, files
            if files == self._used:
                self._said = ""
                return
            if not settled or (files == self._unusable and self._clock.monotonic_s() < self._try_again_s):
                return
            # Again at each look while it does not fit: time alone can make it good.
            pem = self._examine(files)
        except StartupError as exc:
            self._say(exc.detail)
            return
        if self._try_out is not None and not await self._try_out(pem):
            # A trial may also have failed for want of a process or of time, so it is not the last.
            self._unusable, self._try_again_s = files, self._clock.monotonic_s() + TRY_AGAIN_S
            self._say(_NOT_USABLE)
            return
        self._used, self._current, self._untold = files, pem, list(self._on_change)
        self._said, self._said_expired = "", False
        log.info(
            "a changed tls certificate is in use", serial=pem.serial, not_after=rfc3339(pem.not_after_ms)
        )
        self._warn_of_openness()
        await self._tell()

    async def watch(self, poll_s: float) -> NoReturn:
        """Look at the files every ``poll_s`` seconds."""
        while True:
            await asyncio.sleep(poll_s)
            try:
                await self.look()
            except Exception as exc:  # noqa: BLE001 - ended in silence, it would let certificates expire
                log.error("the tls files could not be looked at; it is tried again", error=exc)

    async def _tell(self) -> None:
        """Tell the new set to whom it has not been told; who cannot take it now is asked again."""
        while self._untold:
            try:
                await self._untold[0](self.current())
            except OSError:
                log.error("a listener could not take the changed tls certificate yet; it is tried again")
                return
            del self._untold[0]

    def _examine(self, files: _Files) -> Pem:
        return examine(files.cert, files.key, files.ca, now_ms=self._clock.wall_ms())

    def _read(self) -> _Files:
        flags = self._flags
        return _Files(
            _read("-tls-cert", flags.cert),
            _read("-tls-key", flags.key),
            _read("-tls-ca", flags.ca) if flags.ca is not None else None,
        )

    def _say(self, detail: str) -> None:
        if self._said != detail:
            log.error("changed tls files are kept out; the certificate before stays in use", detail=detail)
            self._said = detail

    def _warn_of_openness(self) -> None:
        if _open_to_others(self._flags.key):
            log.warning("-tls-key: others on this machine may read the private key: give it mode 0600")

    def _warn_of_expiry(self) -> None:
        if not self._said_expired and self.current().not_after_ms <= self._clock.wall_ms():
            log.error("the tls certificate in use has expired, and its files hold no newer one")
            self._said_expired = True


@asynccontextmanager
async def watched(
    flags: TlsFlags, *, clock: Clock, try_out: TryOut | None = None, poll_s: float = limits.TLS_POLL_S
) -> AsyncIterator[Certificates | None]:
    """Load the certificates and follow their changes as long as this is entered; None without any.

    Raises:
        StartupError: as ``Certificates.load``.
    """
    if flags.cert is None:
        yield None
        return
    certificates = Certificates(flags, clock=clock, try_out=try_out)
    await certificates.load()
    watching = asyncio.create_task(certificates.watch(poll_s))
    try:
        yield certificates
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


def _read(flag: str, path: Path | None) -> bytes:
    assert path is not None
    try:
        with path.open("rb") as file:
            data = file.read(_FILE_BYTES_MAX + 1)
    except OSError as exc:
        reason = os.strerror(exc.errno).lower() if exc.errno else "error"
        raise StartupError(f"{flag}: the file cannot be read: {reason}", code="bad_flag") from None
    if len(data) > _FILE_BYTES_MAX:
        raise StartupError(f"{flag}: the file is too large to hold PEM", code="bad_flag")
    return data


def _open_to_others(path: Path | None) -> bool:
    """Whether others than owner and group may read it. Kubernetes gives secrets to a group."""
    assert path is not None
    try:
        return bool(path.stat().st_mode & _OPEN_TO_OTHERS)
    except OSError:
        return False
