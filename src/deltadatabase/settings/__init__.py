"""Typed settings of every program; the only place that reads the environment."""

from deltadatabase.settings.flags import Asked, Flag, describe, flags_of
from deltadatabase.settings.loading import (
    load_admin_key,
    load_main,
    load_serve,
    load_worker,
)
from deltadatabase.settings.programs import (
    AdminKeySettings,
    LogFlags,
    MainSettings,
    ProcessFlags,
    RouterFlags,
    S3Flags,
    ServeSettings,
    StoreFlags,
    TlsFlags,
    WorkerSettings,
)
from deltadatabase.settings.values import (
    Address,
    Secret,
    format_duration,
    format_size,
    parse_address,
    parse_duration,
    parse_size,
)

__all__ = [
    "Address",
    "AdminKeySettings",
    "Asked",
    "Flag",
    "LogFlags",
    "MainSettings",
    "ProcessFlags",
    "RouterFlags",
    "S3Flags",
    "Secret",
    "ServeSettings",
    "StoreFlags",
    "TlsFlags",
    "WorkerSettings",
    "describe",
    "flags_of",
    "format_duration",
    "format_size",
    "load_admin_key",
    "load_main",
    "load_serve",
    "load_worker",
    "parse_address",
    "parse_duration",
    "parse_size",
]
