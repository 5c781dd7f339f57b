"""Sessions and API keys."""

from __future__ import annotations

from typing import Final

from deltadatabase.auth.contract import CreatedKey, KeyInfo, Session
from deltadatabase.gateway.openapi.operation import OK, Operation
from deltadatabase.gateway.routes.access import Status
from deltadatabase.gateway.routes.keys import NewKey
from deltadatabase.gateway.routes.session import Login, Me

ACCESS: Final = (
    Operation(
        "POST", "/api/login", "Access", "Open a session", None, Session, (400, 401, 408, 413, 429),
        body=Login, body_example={"key": "dk_your_key"},
        answer_example={
            "token": "ds_…", "client_id": "admin", "expires_at": "2026-02-26T09:00:00.000Z",
            "permissions": ["read", "write", "admin"],
        },
        note="The token is used like a key, and expires. In dev mode a client_id alone is enough.",
    ),
    Operation(
        "GET", "/api/me", "Access", "Who am I?", "any", Me,
        answer_example={"client_id": "admin", "permissions": ["read", "write", "admin"], "is_admin": True},
    ),
    Operation(
        "GET", "/api/keys", "Access", "List API keys", "admin", list[KeyInfo],
        answer_example=[{
            "id": "a1b2c3d4e5f6a7b8", "name": "ci-deploy", "key_hash": "…", "permissions": ["read", "write"],
            "created_at": "2026-02-25T09:00:00.000Z", "expires_at": None,
            "last_used_at": "2026-02-26T08:30:00.000Z", "enabled": True,
        }],
    ),
    Operation(
        "POST", "/api/keys", "Access", "Create an API key", "admin", CreatedKey, (400, 408, 413), status=201,
        body=NewKey,
        body_example={"name": "ci-deploy", "permissions": ["read", "write"], "expires_in": "7d"},
        answer_example={
            "id": "a1b2c3d4e5f6a7b8", "name": "ci-deploy", "secret": "dk_…",
            "permissions": ["read", "write"], "created_at": "2026-02-25T09:00:00.000Z",
            "expires_at": "2026-03-04T09:00:00.000Z",
        },
        note=(
            "The secret is shown this once. 'schemas' limits the key, such as [\"chat.*\"]; 'rate_per_s' "
            "(1 to 100000) limits its requests and those of its sessions, with as many at once after a "
            "second without any. Beyond it: 429."
        ),
    ),
    Operation(
        "DELETE", "/api/keys/{key_id}", "Access", "Delete an API key and its sessions", "admin", Status,
        (404,), answer_example=OK,
    ),
)  # fmt: skip
