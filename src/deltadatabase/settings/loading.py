"""Settings from arguments and environment: read, completed, checked against each other."""

from __future__ import annotations

import dataclasses
import re
import socket
from collections.abc import Mapping, Sequence
from typing import Final, TypeVar
from urllib.parse import urlsplit

from deltadatabase import limits
from deltadatabase.errors import StartupError
from deltadatabase.settings.commands import CommandFlags
from deltadatabase.settings.flags import Given
from deltadatabase.settings.programs import (
    AdminKeySettings,
    ClientFlags,
    DoctorSettings,
    HealthSettings,
    MainSettings,
    OperatorFlags,
    ProcessFlags,
    RotateSettings,
    RouterFlags,
    S3Flags,
    ScrubSettings,
    ServeSettings,
    TlsFlags,
    WorkerSettings,
    with_notes,
)
from deltadatabase.settings.values import Secret, format_size, parse_address

_Process = TypeVar("_Process", bound=ProcessFlags)
_Command = TypeVar("_Command", bound=CommandFlags)

_MASTER_KEY: Final = re.compile(r"[0-9A-Fa-f]{64}")
_BEARER: Final = re.compile(r"[\x21-\x7e]{16,512}")
_VISIBLE: Final = re.compile(r"[\x21-\x7e]{1,512}")
_BUCKET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_HOST_NAME: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?")
_WORKER_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,252}")


def load_main(arguments: Sequence[str], environ: Mapping[str, str]) -> MainSettings:
    """Read the settings of ``main-worker``.

    Args:
        arguments: the command line without the program's name.
        environ: the environment; the command line outranks it.

    Raises:
        StartupError: ``bad_flag``, one line for the user.
        Asked: the arguments ask for the help text or the version.
    """
    settings, _ = Given(MainSettings, arguments, environ).build(MainSettings)
    settings = dataclasses.replace(settings, notes=with_notes(settings))
    check_main(settings)
    return settings


def load_serve(arguments: Sequence[str], environ: Mapping[str, str]) -> ServeSettings:
    """Read the settings of ``deltadb serve``; see ``load_main``."""
    settings, given = Given(ServeSettings, arguments, environ).build(ServeSettings)
    settings = _with_s3(dataclasses.replace(settings, notes=with_notes(settings)))
    if "dev" not in given:
        listeners = [settings.rest_addr, *([settings.grpc_addr] if settings.grpc_addr else [])]
        open_to_all = settings.admin_key is None and all(address.is_loopback for address in listeners)
        settings = dataclasses.replace(settings, dev=open_to_all)
    check_serve(settings)
    return settings


def load_worker(
    arguments: Sequence[str], environ: Mapping[str, str], *, host_name: str | None = None
) -> WorkerSettings:
    """Read the settings of ``proc-worker``; see ``load_main``. ``host_name`` stands in for the host's."""
    settings, _ = Given(WorkerSettings, arguments, environ).build(WorkerSettings)
    settings = _with_s3(dataclasses.replace(settings, notes=with_notes(settings)))
    if not settings.worker_id:
        settings = dataclasses.replace(settings, worker_id=host_name or socket.gethostname())
    check_worker(settings)
    return settings


def load_admin_key(arguments: Sequence[str], environ: Mapping[str, str]) -> AdminKeySettings:
    """Read the settings of ``deltadb admin-key``; see ``load_main``."""
    return Given(AdminKeySettings, arguments, environ).build(AdminKeySettings)[0]


def load_scrub(arguments: Sequence[str], environ: Mapping[str, str]) -> ScrubSettings:
    """Read the settings of ``deltadb scrub``; see ``load_main``."""
    settings, _ = Given(ScrubSettings, arguments, environ).build(ScrubSettings)
    settings = dataclasses.replace(settings, s3=resolve_s3(settings.s3))
    _check_operator(settings)
    tasks = {
        "-dry-run": settings.dry_run,
        "-resume": settings.resume,
        "-quarantine": settings.quarantine,
        "-remove-orphans": settings.remove_orphans,
        "-remove-tombstones": settings.remove_tombstones,
    }
    given = [name for name, value in tasks.items() if value]
    if settings.end_maintenance and given:
        raise _bad(f"-end-maintenance does nothing else: leave {given[0]} out")
    if settings.dry_run and settings.remove_tombstones:
        raise _bad("-dry-run changes nothing and -remove-tombstones needs a flag in the store: choose one")
    return settings


def load_doctor(arguments: Sequence[str], environ: Mapping[str, str]) -> DoctorSettings:
    """Read the settings of ``deltadb doctor``; see ``load_main``."""
    settings, _ = Given(DoctorSettings, arguments, environ).build(DoctorSettings)
    settings = dataclasses.replace(settings, s3=resolve_s3(settings.s3))
    _check_operator(settings)
    _check_join_token(settings.join_token)
    return settings


def load_health(arguments: Sequence[str], environ: Mapping[str, str]) -> HealthSettings:
    """Read the settings of ``deltadb health``; see ``load_main``."""
    settings, _ = Given(HealthSettings, arguments, environ).build(HealthSettings)
    if not _is_plain_url(settings.url.rstrip("/")):
        raise _bad("-url: not a URL such as http://127.0.0.1:8080")
    if settings.grpc_addr is not None and settings.grpc_addr.port == 0:
        raise _bad("-grpc-addr: the port is missing")
    if settings.tls.server_name and not _HOST_NAME.fullmatch(settings.tls.server_name):
        raise _bad("-tls-server-name: not a host name")
    return settings


def load_rotate(arguments: Sequence[str], environ: Mapping[str, str]) -> RotateSettings:
    """Read the settings of ``deltadb rotate``; see ``load_main``."""
    settings, _ = Given(RotateSettings, arguments, environ).build(RotateSettings)
    _check_client(settings)
    if settings.dry_run and settings.pause:
        raise _bad("-dry-run and -pause are both given: choose one")
    return settings


def load_command(program: type[_Command], arguments: Sequence[str], environ: Mapping[str, str]) -> _Command:
    """Read the settings of a command that works on a running server; see ``load_main``."""
    given = Given(program, arguments, environ)
    settings, _ = given.build(program)
    _check_client(settings)
    return dataclasses.replace(settings, arguments=given.plain)


def check_main(settings: MainSettings) -> None:
    """Check settings against each other. Raises StartupError ``bad_flag``."""
    _check_router(settings)


def check_serve(settings: ServeSettings) -> None:
    """Check settings against each other. Raises StartupError ``bad_flag``."""
    _check_router(settings)
    if settings.memory and settings.workers:
        raise _bad("-memory works in one process: it cannot be combined with -workers")
    if settings.memory and settings.s3.enabled:
        raise _bad("-memory and -s3-bucket are both given: choose one")
    if settings.memory and not (settings.dev or settings.admin_key or settings.state_dir):
        raise _bad("-memory outside dev mode needs -admin-key, or -state-dir to keep one in")
    if settings.grpc_addr is not None and not settings.workers:
        raise _bad("-grpc-addr needs -workers: without them all work is done in this process")
    if settings.tls.client_auth and not settings.workers:
        raise _bad("-tls-client-auth needs -workers: it is for gRPC; REST takes no client certificates")


def check_worker(settings: WorkerSettings) -> None:
    """Check settings against each other. Raises StartupError ``bad_flag``."""
    _check_process(settings)
    if not _WORKER_ID.fullmatch(settings.worker_id):
        raise _bad("-worker-id: letters, digits, dots, dashes and underscores only, at most 253")
    if settings.main_addr.port == 0:
        raise _bad("-main-addr: the port is missing")
    if settings.advertise_addr is not None and settings.advertise_addr.port == 0:
        raise _bad("-advertise-addr: the port is missing")


def _check_process(settings: ProcessFlags) -> None:
    _check_tls(settings.tls)
    if settings.otlp_endpoint and not _is_collector(settings.otlp_endpoint):
        raise _bad("-otlp-endpoint: not a URL such as http://collector:4318")
    _check_join_token(settings.join_token)
    _check_s3_keys(settings.s3)


def _check_tls(tls: TlsFlags) -> None:
    if (tls.cert is None) != (tls.key is None):
        raise _bad("-tls-cert and -tls-key belong together: one is missing")
    # Main worker and proc workers dial each other: TLS that only one of them has joins nobody.
    if tls.cert is None and (tls.ca is not None or tls.client_auth or tls.server_name):
        raise _bad("-tls-ca, -tls-client-auth and -tls-server-name need -tls-cert and -tls-key")
    if tls.client_auth and tls.ca is None:
        raise _bad("-tls-client-auth needs -tls-ca: the authority that clients' certificates are of")
    if tls.server_name and not _HOST_NAME.fullmatch(tls.server_name):
        raise _bad("-tls-server-name: not a host name")


def _check_router(settings: RouterFlags) -> None:
    _check_process(settings)
    _check_master_keys(settings.master_key, settings.master_key_previous)
    if settings.admin_key is not None and not _BEARER.fullmatch(settings.admin_key.reveal()):
        raise _bad("-admin-key: printable ASCII characters without spaces only, 16 to 512 of them")
    if settings.dev and not settings.rest_addr.is_loopback:
        raise _bad("-dev switches authentication off: it needs a loopback -rest-addr such as 127.0.0.1:8080")
    grpc_addr = getattr(settings, "grpc_addr", None)
    if settings.dev and grpc_addr is not None and not grpc_addr.is_loopback:
        raise _bad("-dev switches authentication off: it needs a loopback -grpc-addr such as 127.0.0.1:50051")
    if settings.dev and settings.admin_key is not None:
        raise _bad("-dev and -admin-key contradict each other: leave one out")
    largest = settings.grpc_max_recv_msg_size - limits.STREAM_BATCH_BYTES_MAX
    if settings.rest_max_body_size > largest:
        needed = format_size(settings.rest_max_body_size + limits.STREAM_BATCH_BYTES_MAX)
        raise _bad(
            f"-rest-max-body-size: documents of this size need -grpc-max-recv-msg-size {needed} or more, "
            "here and at each proc worker"
        )


def _check_operator(settings: OperatorFlags) -> None:
    _check_s3_keys(settings.s3)
    # The key that is kept in the state directory may be the present one here.
    _check_master_keys(settings.master_key, settings.master_key_previous, alone=True)


def _check_client(settings: ClientFlags) -> None:
    if not _is_plain_url(settings.url.rstrip("/")):
        raise _bad("-url: not a URL such as http://127.0.0.1:8080")
    if settings.key is not None and not _VISIBLE.fullmatch(settings.key.reveal()):
        raise _bad("-key: printable ASCII characters without spaces only")


def _check_join_token(token: Secret | None) -> None:
    if token is not None and not _BEARER.fullmatch(token.reveal()):
        raise _bad("-join-token: printable ASCII characters without spaces only, 16 to 512 of them")


def _check_s3_keys(s3: S3Flags) -> None:
    if (s3.access_key is None) != (s3.secret_key is None) and s3.enabled:
        raise _bad("-s3-access-key and -s3-secret-key belong together: one is missing")


def _check_master_keys(primary: Secret | None, previous: Secret | None, *, alone: bool = False) -> None:
    for name, key in (("master-key", primary), ("master-key-previous", previous)):
        if key is not None and not _MASTER_KEY.fullmatch(key.reveal()):
            raise _bad(f"-{name}: must be 64 hex digits, as printed by: openssl rand -hex 32")
    if previous is not None and primary is None and not alone:
        raise _bad("-master-key-previous needs -master-key: the key that replaces it")
    if _same_key(primary, previous):
        raise _bad("-master-key and -master-key-previous are the same key")


def _same_key(one: Secret | None, other: Secret | None) -> bool:
    return one is not None and other is not None and one.reveal().lower() == other.reveal().lower()


def _with_s3(settings: _Process) -> _Process:
    return dataclasses.replace(settings, s3=resolve_s3(settings.s3))


def resolve_s3(flags: S3Flags) -> S3Flags:
    """Return the flags with a complete endpoint URL and a plain bucket name, or both empty.

    Raises:
        StartupError: ``bad_flag``: they contradict each other or name no store.
    """
    bucket = flags.bucket.removeprefix("s3://").rstrip("/")
    if not flags.endpoint:
        if flags.bucket and not flags.bucket.startswith("s3://"):
            raise _bad(
                "-s3-bucket without -s3-endpoint: write s3://NAME for AWS itself, or give the endpoint"
            )
    elif not bucket:
        raise _bad("-s3-endpoint needs -s3-bucket")
    if flags.bucket and not _BUCKET.fullmatch(bucket):
        raise _bad("-s3-bucket: not a bucket name")
    if bucket and not flags.region:
        raise _bad("-s3-region: must not be empty")
    return dataclasses.replace(flags, endpoint=_endpoint_url(flags), bucket=bucket)


def _endpoint_url(flags: S3Flags) -> str:
    """Complete the endpoint. Its text is never repeated: a URL may hold credentials."""
    if not flags.endpoint:
        return ""
    endpoint = flags.endpoint.rstrip("/")
    if "://" not in endpoint:
        endpoint = f"{'https' if flags.use_ssl else 'http'}://{endpoint}"
    elif flags.use_ssl and endpoint.startswith("http://"):
        raise _bad("-s3-use-ssl contradicts the http:// of -s3-endpoint")
    if not _is_plain_url(endpoint):
        raise _bad("-s3-endpoint: not a URL such as http://rustfs:9000, or host:port")
    return endpoint


def _is_collector(text: str) -> bool:
    """Whether it is an HTTP URL without credentials; collectors may be below a path."""
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.hostname) and "@" not in parts.netloc


def _is_plain_url(text: str) -> bool:
    """Whether it is scheme, host and perhaps a port, and nothing else."""
    try:
        parts = urlsplit(text)
        address = parts.netloc if parts.port else f"{parts.netloc}:443"
        parse_address(address)
    except ValueError:
        return False
    rest = (parts.path, parts.query, parts.fragment)
    return parts.scheme in {"http", "https"} and bool(parts.hostname) and not any(rest)


def _bad(detail: str) -> StartupError:
    return StartupError(detail, code="bad_flag")
