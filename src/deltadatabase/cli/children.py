"""The proc workers that ``deltadb serve -workers N`` starts beside its router."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

from deltadatabase.settings import ServeSettings
from deltadatabase.telemetry.logging import get_logger

RESTART_DELAY_S: Final = 1.0
RESTART_DELAY_MAX_S: Final = 30.0
REFUSED: Final = 2
"""Exit code of a program that cannot start as configured."""
NOT_FOR_CHILDREN: Final = ("MASTER_KEY", "MASTER_KEY_PREVIOUS", "ADMIN_KEY", "DELTADB_METRICS_ADDR")
"""Keys that they must not have, and an address that only one process can listen on."""

log = get_logger(__name__)


class LocalWorkers:
    """Starts proc workers as processes, restarts those that die, and ends them.

    Args:
        settings: of the whole; the workers inherit store, cache, TLS and log settings.
        grpc_port: where they join.
        environ: this process's environment; see ``NOT_FOR_CHILDREN``.
    """

    def __init__(self, settings: ServeSettings, grpc_port: int, environ: Mapping[str, str]) -> None:
        #: Set when a worker refused to start: it would refuse again.
        self.refused = asyncio.Event()
        self._settings = settings
        self._grpc_port = grpc_port
        self._environ = inherited(environ) | secret_environment(settings)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep the workers running; on the way out end them and wait for it."""
        tasks = [
            asyncio.create_task(self._keep(f"proc-{number}"))
            for number in range(1, self._settings.workers + 1)
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep(self, worker_id: str) -> None:
        delay_s = RESTART_DELAY_S
        while True:
            started_s = asyncio.get_running_loop().time()
            code = await self._run_once(worker_id)
            if code == REFUSED:
                self.refused.set()
                return
            if asyncio.get_running_loop().time() - started_s > RESTART_DELAY_MAX_S:
                delay_s = RESTART_DELAY_S
            log.warning("a proc worker ended; it is started again", worker_id=worker_id, exit_code=code)
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, RESTART_DELAY_MAX_S)

    async def _run_once(self, worker_id: str) -> int:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "deltadatabase.cli",
            "local-worker",
            str(os.getpid()),
            *worker_arguments(self._settings, worker_id, self._grpc_port),
            env=self._environ,
        )
        try:
            return await process.wait()
        except asyncio.CancelledError:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                async with asyncio.timeout(self._settings.drain_timeout):
                    await process.wait()
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
            raise


def inherited(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the part of this process's environment that its workers get."""
    return {
        name: value for name, value in environ.items() if name.removesuffix("_FILE") not in NOT_FOR_CHILDREN
    }


def worker_arguments(settings: ServeSettings, worker_id: str, grpc_port: int) -> list[str]:
    """Return the command line of one proc worker; secrets are not on it."""
    arguments = [
        f"-main-addr=127.0.0.1:{grpc_port}",
        f"-worker-id={worker_id}",
        f"-shared-fs={settings.shared_fs}",
        f"-cache-bytes={settings.cache_bytes // settings.workers}",
        f"-cache-size={settings.cache_size}",
        f"-cache-ttl={settings.cache_ttl}s",
        f"-meta-sidecar={str(settings.meta_sidecar).lower()}",
        f"-store-wait={settings.store_wait}s",
        f"-drain-timeout={settings.drain_timeout}s",
        f"-grpc-max-recv-msg-size={settings.grpc_max_recv_msg_size}",
        f"-log-level={settings.log_level}",
        f"-log-format={settings.log_format}",
        f"-otlp-endpoint={settings.otlp_endpoint}",
    ]
    if settings.s3.enabled:
        arguments += [
            f"-s3-endpoint={settings.s3.endpoint}",
            f"-s3-bucket={settings.s3.bucket if settings.s3.endpoint else 's3://' + settings.s3.bucket}",
            f"-s3-region={settings.s3.region}",
            f"-s3-path-style={str(settings.s3.path_style).lower()}",
        ]
    if settings.audit_log is not None:
        # One file for all: each line is appended whole.
        arguments.append(f"-audit-log={settings.audit_log}")
    tls = settings.tls
    arguments += [
        f"-tls-{name}={path}"
        for name, path in (("cert", tls.cert), ("key", tls.key), ("ca", tls.ca))
        if path is not None
    ]
    if tls.cert is not None:
        arguments += [
            f"-tls-client-auth={str(tls.client_auth).lower()}",
            f"-tls-server-name={tls.server_name}",
        ]
    return arguments


def secret_environment(settings: ServeSettings) -> dict[str, str]:
    """Return the secrets that a worker shares with the main worker, as environment variables."""
    secrets = {
        "JOIN_TOKEN": settings.join_token,
        "S3_ACCESS_KEY": settings.s3.access_key,
        "S3_SECRET_KEY": settings.s3.secret_key,
    }
    return {name: secret.reveal() for name, secret in secrets.items() if secret is not None}
