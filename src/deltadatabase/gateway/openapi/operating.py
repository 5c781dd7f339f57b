"""What operators call, and what says how the process is."""

from __future__ import annotations

from typing import Final

from deltadatabase.gateway.openapi.operation import ANY_JSON, DATA, OK, Operation, Query
from deltadatabase.gateway.rotation import RotationStatus
from deltadatabase.gateway.routes.access import Status
from deltadatabase.gateway.routes.admin import Store, Worker
from deltadatabase.gateway.routes.health import Health, Ready
from deltadatabase.gateway.routes.logs import LogLevel
from deltadatabase.gateway.routes.rotation import Order

OPERATING: Final = (
    Operation(
        "GET", "/admin/workers", "Operation", "List proc workers", "admin", list[Worker],
        answer_example=[{
            "worker_id": "proc-1", "status": "Available", "key_id": "9f8e7d6c5b4a3928",
            "last_seen": "2026-02-24T12:01:30.000Z", "tags": {"grpc_addr": "127.0.0.1:50052"},
        }],
    ),
    Operation(
        "GET", "/admin/store", "Operation", "What the store guarantees, as probed at start", "admin", Store,
    ),
    Operation(
        "GET", "/admin/rotation", "Operation", "How a rotation of the master key stands", "admin",
        RotationStatus,
    ),
    Operation(
        "POST", "/admin/rotation", "Operation", "Begin a rotation of the master key, or go on with one",
        "admin", RotationStatus, (400, 408, 409, 413, 503), status=202, body=Order, body_required=False,
        body_example={"dry_run": True},
        note=(
            "Works on in the main worker; GET tells how far it is, `deltadb rotate` shows it. With dry_run "
            "it only counts how many objects each key seals. No body means {}."
        ),
    ),
    Operation(
        "DELETE", "/admin/rotation", "Operation", "Pause a rotation of the master key", "admin",
        RotationStatus, (503,), note="POST goes on with it.",
    ),
    Operation(
        "GET", "/admin/log-level", "Operation", "How much this process logs", "admin", LogLevel,
        answer_example={"level": "info"},
    ),
    Operation(
        "PUT", "/admin/log-level", "Operation", "Log more or less, until the process ends", "admin",
        LogLevel, (400, 408, 413), body=LogLevel, body_example={"level": "info"},
        note="Of the process that answers; a proc worker switches to debug and back on the signal SIGUSR1.",
    ),
    Operation(
        "GET", "/health", "Operation", "The process answers", None, Health,
        answer_example={"status": "ok", "version": "0.1.0"},
    ),
    Operation("GET", "/livez", "Operation", "Liveness", None, Status, answer_example=OK),
    Operation(
        "GET", "/readyz", "Operation", "Readiness: workers joined, store probed", None, Ready, (503,),
        note="A 503 names the first failed check in 'error' and shows all of them in 'checks'.",
    ),
    Operation(
        "GET", "/openapi.json", "Operation", "This description", None, ANY_JSON, (400, 401, 403, 429, *DATA),
        query=(
            Query(
                "schemas", "With true: the stored schemas that you may read, too.",
                schema={"enum": ["true", "false"]},
            ),
        ),
        note=(
            "With schemas=true each stored schema is a component, in the words of JSON Schema 2020-12, and "
            "the paths of its entities refer to it. That needs the permission read, unless schemas are "
            "public. At most 200 schemas of 1 MiB together are described; 'x-schemas-left-out' among the "
            "info counts the others."
        ),
    ),
)  # fmt: skip
