"""The settings of each program: every flag, its environment variable, default and meaning.

A field is declared once; parsing, the help text, the start-up log line and the tables of
the documentation come from it. Durations are seconds, sizes are bytes.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from deltadatabase import limits
from deltadatabase.settings.flags import (
    ADDRESS,
    BOOL,
    DURATION,
    INT,
    NETWORKS,
    PATH,
    SECRET,
    SIZE,
    TEXT,
    choice,
    flag,
)
from deltadatabase.settings.values import Address, Network, Secret, format_duration, format_size

STATE_FOLDER = "_state"
SHARED_FS = "./shared/db"


class _StatePlace:
    """Where the state directory is, of settings that have both flags."""

    shared_fs: Path
    state_dir: Path | None

    @property
    def state_path(self) -> Path:
        """The state directory in force."""
        return self.state_dir or self.shared_fs / STATE_FOLDER


@dataclass(frozen=True, kw_only=True)
class LogFlags:
    """How a program logs."""

    log_level: str = flag(
        "log-level", choice("debug", "info", "warning", "error"), "info", "least grave messages to log"
    )
    log_format: str = flag("log-format", choice("text", "json"), "text", "form of the log lines on stderr")


@dataclass(frozen=True, kw_only=True)
class S3Flags:
    """The S3-compatible store; without an endpoint and a bucket it is not used.

    After loading, ``endpoint`` is a URL or "" (AWS itself), and ``bucket`` a plain name or "".
    """

    endpoint: str = flag(
        "s3-endpoint", TEXT, "", "URL of the S3 server; empty = directory backend", env="S3_ENDPOINT"
    )
    bucket: str = flag(
        "s3-bucket",
        TEXT,
        "",
        "bucket name, required with an endpoint; s3://NAME without one is AWS itself",
        env="S3_BUCKET",
    )
    region: str = flag("s3-region", TEXT, "us-east-1", "region; self-hosted stores take any")
    access_key: Secret | None = flag(
        "s3-access-key", SECRET, "", "access key; empty = AWS credential chain", env="S3_ACCESS_KEY"
    )
    secret_key: Secret | None = flag(
        "s3-secret-key", SECRET, "", "secret access key; empty = AWS credential chain", env="S3_SECRET_KEY"
    )
    path_style: bool = flag("s3-path-style", BOOL, "true", "bucket in the path; self-hosted stores need it")
    use_ssl: bool = flag("s3-use-ssl", BOOL, "false", "TLS for an endpoint given as bare host:port")

    @property
    def enabled(self) -> bool:
        """Whether entities are kept in S3."""
        return bool(self.bucket)


@dataclass(frozen=True, kw_only=True)
class TlsFlags:
    """Certificates of the program's listeners, and the authority that its peers are checked with."""

    cert: Path | None = flag("tls-cert", PATH, "", "certificate chain of the listeners, PEM; empty = no TLS")
    key: Path | None = flag("tls-key", PATH, "", "private key of -tls-cert, PEM")
    ca: Path | None = flag(
        "tls-ca",
        PATH,
        "",
        "authorities that peers' gRPC certificates are checked with, PEM; empty = the system's",
    )
    client_auth: bool = flag(
        "tls-client-auth",
        BOOL,
        "false",
        "gRPC listeners demand a client certificate of an authority in -tls-ca; REST never does",
    )
    server_name: str = flag(
        "tls-server-name",
        TEXT,
        "",
        "name that peers' gRPC certificates must carry; empty = the address dialled",
    )


@dataclass(frozen=True, kw_only=True)
class ProcessFlags(LogFlags):
    """What every server process has."""

    shared_fs: Path = flag("shared-fs", PATH, SHARED_FS, "directory of the database", aliases=("data",))
    join_token: Secret | None = flag(
        "join-token", SECRET, "", "shared secret that admits proc workers", env="JOIN_TOKEN"
    )
    grpc_max_recv_msg_size: int = flag(
        "grpc-max-recv-msg-size",
        SIZE,
        format_size(limits.GRPC_MESSAGE_BYTES_MAX_DEFAULT),
        "largest gRPC message accepted",
        at_least=limits.KIB,
        at_most=limits.GRPC_MESSAGE_BYTES_MAX,
    )
    metrics_addr: Address | None = flag(
        "metrics-addr",
        ADDRESS,
        "",
        "listener of GET /metrics for Prometheus, without credentials; empty = none",
    )
    otlp_endpoint: str = flag(
        "otlp-endpoint",
        TEXT,
        "",
        "URL of an OpenTelemetry collector for traces (OTLP over HTTP); empty = none",
        env="OTEL_EXPORTER_OTLP_ENDPOINT",
    )
    drain_timeout: float = flag(
        "drain-timeout",
        DURATION,
        format_duration(limits.DRAIN_TIMEOUT_S),
        "longest time from SIGTERM to the end",
        at_least=0.1,
    )
    audit_log: Path | None = flag(
        "audit-log",
        PATH,
        "",
        "file that audit events are appended to as JSON lines; they are in the log in any case",
    )
    tls: TlsFlags = TlsFlags()
    s3: S3Flags = S3Flags()
    #: Remarks on the given flags, to be logged as warnings.
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class StoreFlags:
    """What a process with a worker engine in it has."""

    cache_bytes: int = flag(
        "cache-bytes", SIZE, format_size(limits.CACHE_BYTES_DEFAULT), "memory for cached entities"
    )
    cache_size: int = flag("cache-size", INT, "0", "most entities in the cache; 0 = by bytes only")
    cache_ttl: float = flag("cache-ttl", DURATION, "0", "longest stay in the cache; 0 = no limit")
    meta_sidecar: bool = flag(
        "meta-sidecar", BOOL, "true", "write the readable .meta.json file beside each entity"
    )
    store_wait: float = flag(
        "store-wait",
        DURATION,
        format_duration(limits.STORE_WAIT_S),
        "how long an unreachable store is retried at start",
    )


@dataclass(frozen=True, kw_only=True)
class RouterFlags(ProcessFlags, _StatePlace):
    """What a process with the REST server and the router in it has."""

    rest_addr: Address = flag("rest-addr", ADDRESS, "127.0.0.1:8080", "listener of the REST API")
    state_dir: Path | None = flag(
        "state-dir",
        PATH,
        "",
        "directory of keys, sessions and epochs",
        default_note=f"{STATE_FOLDER} below the database's directory",
    )
    master_key: Secret | None = flag(
        "master-key",
        SECRET,
        "",
        "64 hex digits that entities are encrypted with",
        env="MASTER_KEY",
        default_note="made once and kept in the state directory",
    )
    master_key_previous: Secret | None = flag(
        "master-key-previous",
        SECRET,
        "",
        "the master key before it, during a rotation",
        env="MASTER_KEY_PREVIOUS",
    )
    key_id: str = flag("key-id", TEXT, "", "label of the master key in logs")
    admin_key: Secret | None = flag(
        "admin-key",
        SECRET,
        "",
        "bearer token with every right",
        env="ADMIN_KEY",
        default_note="made once and kept in the state directory",
    )
    client_ttl: float = flag(
        "client-ttl", DURATION, "24h", "life of a session token from POST /api/login", at_least=1
    )
    worker_ttl: float = flag(
        "worker-ttl",
        DURATION,
        format_duration(limits.WORKER_TTL_S),
        "how long a proc worker is admitted; it proves the join token again in half of that",
        at_least=limits.HANDSHAKE_TIMEOUT_S,
    )
    rest_max_body_size: int = flag(
        "rest-max-body-size",
        SIZE,
        format_size(limits.DOCUMENT_BYTES_MAX_DEFAULT),
        "largest document, and body of /entity and /schema",
        at_least=limits.KIB,
    )
    public_schemas: bool = flag(
        "public-schemas", BOOL, "false", "serve GET /schema/{id} and GET /admin/schemas without a token"
    )
    trusted_proxies: tuple[Network, ...] = flag(
        "trusted-proxies",
        NETWORKS,
        "",
        "proxies whose X-Forwarded-For tells clients' addresses, for the audit log and the login throttle",
        default_note="none: the header is ignored",
    )
    dev: bool = flag("dev", BOOL, "false", "no authentication; on a loopback address without admin key only")
    go_entity_cache_size: str = flag(
        "entity-cache-size", TEXT, "", "", hidden="entities are cached by the proc workers: see -cache-bytes"
    )
    go_key_store: str = flag(
        "key-store", TEXT, "", "", hidden="API keys are kept in the state directory: see -state-dir"
    )


@dataclass(frozen=True, kw_only=True)
class MainSettings(RouterFlags):
    """Settings of ``main-worker``."""

    grpc_addr: Address = flag(
        "grpc-addr", ADDRESS, "127.0.0.1:50051", "listener that proc workers and gRPC clients connect to"
    )


@dataclass(frozen=True, kw_only=True)
class ServeSettings(StoreFlags, RouterFlags):
    """Settings of ``deltadb serve``: router and worker engine in one process."""

    shared_fs: Path = flag("data", PATH, SHARED_FS, "directory of the database", aliases=("shared-fs",))
    memory: bool = flag("memory", BOOL, "false", "keep the database in memory: gone when the program ends")
    journal: bool = flag(
        "journal",
        BOOL,
        "true",
        "commit to a journal before the files of the directory, while no other program works on it; not "
        "with -workers",
    )
    workers: int = flag(
        "workers",
        INT,
        "0",
        "proc workers to start beside the router; 0 = work in this process",
        at_most=limits.LOCAL_WORKERS_MAX,
    )
    grpc_addr: Address | None = flag(
        "grpc-addr",
        ADDRESS,
        "",
        "listener that proc workers connect to, with -workers only",
        default_note="a free loopback port",
    )
    dev: bool = flag(
        "dev",
        BOOL,
        "",
        "no authentication; on a loopback address without admin key only",
        default_note="true on a loopback address without admin key",
    )


@dataclass(frozen=True, kw_only=True)
class WorkerSettings(StoreFlags, ProcessFlags):
    """Settings of ``proc-worker``."""

    main_addr: Address = flag("main-addr", ADDRESS, "127.0.0.1:50051", "the main worker's -grpc-addr")
    worker_id: str = flag("worker-id", TEXT, "", "name of this worker", default_note="the host's name")
    grpc_addr: Address = flag(
        "grpc-addr", ADDRESS, "127.0.0.1:0", "listener that the main worker connects to; port 0 = a free one"
    )
    advertise_addr: Address | None = flag(
        "advertise-addr",
        ADDRESS,
        "",
        "address under which the main worker reaches this worker",
        default_note="taken from -grpc-addr",
    )


@dataclass(frozen=True, kw_only=True)
class AdminKeySettings(_StatePlace):
    """Settings of ``deltadb admin-key``."""

    shared_fs: Path = flag("data", PATH, SHARED_FS, "directory of the database", aliases=("shared-fs",))
    state_dir: Path | None = flag(
        "state-dir",
        PATH,
        "",
        "directory that keeps the key",
        default_note=f"{STATE_FOLDER} below the database's directory",
    )


@dataclass(frozen=True, kw_only=True)
class OperatorFlags(LogFlags, _StatePlace):
    """What the commands have that work on a store directly: where it is, and its keys."""

    log_level: str = flag(
        "log-level", choice("debug", "info", "warning", "error"), "warning", "least grave messages to log"
    )
    shared_fs: Path = flag("data", PATH, SHARED_FS, "directory of the database", aliases=("shared-fs",))
    state_dir: Path | None = flag(
        "state-dir",
        PATH,
        "",
        "the main worker's state directory: keys, and how far a scrub came",
        default_note=f"{STATE_FOLDER} below the database's directory",
    )
    master_key: Secret | None = flag(
        "master-key",
        SECRET,
        "",
        "64 hex digits that entities are encrypted with",
        env="MASTER_KEY",
        default_note="the one that is kept in the state directory",
    )
    master_key_previous: Secret | None = flag(
        "master-key-previous",
        SECRET,
        "",
        "the master key before it, during a rotation",
        env="MASTER_KEY_PREVIOUS",
    )
    store_wait: float = flag(
        "store-wait", DURATION, "10s", "how long an unreachable store is retried at start"
    )
    json: bool = flag("json", BOOL, "false", "print the result as JSON on stdout")
    s3: S3Flags = S3Flags()


@dataclass(frozen=True, kw_only=True)
class ScrubSettings(OperatorFlags):
    """Settings of ``deltadb scrub``."""

    dry_run: bool = flag("dry-run", BOOL, "false", "change nothing in the store; only tell")
    resume: bool = flag(
        "resume", BOOL, "false", "go on where an interrupted scrub ended, with the same flags"
    )
    quarantine: bool = flag(
        "quarantine",
        BOOL,
        "false",
        "copy damaged entities below quarantine/ and free their names, to answer 404 and be written again",
    )
    remove_orphans: bool = flag(
        "remove-orphans", BOOL, "false", "remove meta files whose entity does not exist"
    )
    remove_tombstones: bool = flag(
        "remove-tombstones",
        BOOL,
        "false",
        "remove what deletes left behind over an hour ago; needs every worker stopped for 80 minutes",
    )
    end_maintenance: bool = flag(
        "end-maintenance",
        BOOL,
        "false",
        "only clear the flag that a killed -remove-tombstones left, so that workers start again",
    )


@dataclass(frozen=True, kw_only=True)
class DoctorSettings(OperatorFlags):
    """Settings of ``deltadb doctor``."""

    join_token: Secret | None = flag(
        "join-token", SECRET, "", "shared secret that admits proc workers", env="JOIN_TOKEN"
    )


@dataclass(frozen=True, kw_only=True)
class ClientFlags(LogFlags, _StatePlace):
    """What the commands have that talk to a running server: where it is, and who asks."""

    log_level: str = flag(
        "log-level", choice("debug", "info", "warning", "error"), "warning", "least grave messages to log"
    )
    url: str = flag("url", TEXT, "http://127.0.0.1:8080", "URL of the REST API", env="DELTADB_URL")
    key: Secret | None = flag(
        "key",
        SECRET,
        "",
        "admin key, API key or session token",
        env="DELTADB_KEY",
        default_note="the admin key that is kept in the state directory, if there is one",
    )
    shared_fs: Path = flag("data", PATH, SHARED_FS, "directory of the database", aliases=("shared-fs",))
    state_dir: Path | None = flag(
        "state-dir",
        PATH,
        "",
        "the main worker's state directory, for its admin key",
        default_note=f"{STATE_FOLDER} below the database's directory",
    )
    tls_ca: Path | None = flag(
        "tls-ca", PATH, "", "authorities that the server's certificate is checked with, PEM"
    )
    json: bool = flag("json", BOOL, "false", "print the result as JSON on stdout")


@dataclass(frozen=True, kw_only=True)
class RotateSettings(ClientFlags):
    """Settings of ``deltadb rotate``."""

    dry_run: bool = flag(
        "dry-run", BOOL, "false", "change nothing; only count how many objects each key seals"
    )
    pause: bool = flag("pause", BOOL, "false", "stop a rotation where it is; without it, go on")


@dataclass(frozen=True, kw_only=True)
class HealthSettings(LogFlags):
    """Settings of ``deltadb health``: which running program is asked, and for how much."""

    log_level: str = flag(
        "log-level", choice("debug", "info", "warning", "error"), "warning", "least grave messages to log"
    )
    url: str = flag("url", TEXT, "http://127.0.0.1:8080", "URL of the REST API", env="DELTADB_URL")
    # A variable of its own: DELTADB_GRPC_ADDR in a main worker's container is a listener of the main worker.
    grpc_addr: Address | None = flag(
        "grpc-addr",
        ADDRESS,
        "",
        "gRPC listener that is asked instead, such as a proc worker's",
        env="DELTADB_HEALTH_GRPC_ADDR",
    )
    ready: bool = flag(
        "ready", BOOL, "false", "ask whether data is served (a proc worker: whether it has joined)"
    )
    timeout: float = flag("timeout", DURATION, "3s", "how long an answer is waited for", at_least=0.1)
    tls: TlsFlags = TlsFlags()


def with_notes(settings: ProcessFlags) -> tuple[str, ...]:
    """Return a remark for each given flag that is accepted and has no effect."""
    notes = []
    for field in dataclasses.fields(settings):
        declared = field.metadata.get("flag")
        if declared is not None and declared.hidden and getattr(settings, field.name):
            notes.append(f"-{declared.name} has no effect: {declared.hidden}")
    return tuple(notes)
