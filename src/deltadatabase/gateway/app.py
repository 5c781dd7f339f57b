"""Puts the REST side together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, cast

import msgspec
from litestar import Litestar, Request
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler

from deltadatabase import errors, limits
from deltadatabase.auth.accounts import Accounts
from deltadatabase.clock import Clock, Random
from deltadatabase.errors import DeltaError
from deltadatabase.gateway import entity, exporting, feed, importing, resources
from deltadatabase.gateway.addresses import ClientAddresses
from deltadatabase.gateway.asgi import ASGIApp
from deltadatabase.gateway.auditing import RequestAudit
from deltadatabase.gateway.batching import Batches
from deltadatabase.gateway.edge import Edge, Handler
from deltadatabase.gateway.following import Following
from deltadatabase.gateway.idempotency import IdempotentWrites
from deltadatabase.gateway.listing import ListingHandler
from deltadatabase.gateway.ports import Cluster, Entities, Listing, Rotations, Schemas
from deltadatabase.gateway.routes import admin, batch, documentation, health, keys, logs, schemas, session
from deltadatabase.gateway.routes import rotation as rotation_routes
from deltadatabase.gateway.routes.access import NO_STORE
from deltadatabase.gateway.scan import Scans
from deltadatabase.gateway.used_keys import UsedKeys
from deltadatabase.settings import Network
from deltadatabase.telemetry.audit import Audit


class GatewayOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How the REST side behaves.

    Attributes:
        version: of the program, shown by ``/health`` and the documentation.
        body_bytes_max: limit of an ``/entity`` or schema body.
        body_timeout_s: time for a body of one MiB to arrive.
        public_schemas: anybody may read and list schemas.
        dev_mode: answer only to loopback host names and origins; ``Accounts`` gives the rights.
        trusted_proxies: networks of the proxies whose ``X-Forwarded-For`` is believed.
    """

    version: str
    body_bytes_max: int = limits.DOCUMENT_BYTES_MAX_DEFAULT
    body_timeout_s: float = limits.BODY_RECEIVE_TIMEOUT_S
    public_schemas: bool = False
    dev_mode: bool = False
    trusted_proxies: tuple[Network, ...] = ()


def create_app(
    entity_port: Entities,
    schema_port: Schemas,
    listing: Listing,
    cluster: Cluster,
    rotation: Rotations,
    accounts: Accounts,
    options: GatewayOptions,
    *,
    clock: Clock,
    random: Random,
    audit: Audit | None = None,
    used_keys: UsedKeys | None = None,
    following: Following | None = None,
    around: Callable[[ASGIApp], ASGIApp] = lambda app: app,
) -> ASGIApp:
    """Build the ASGI application that serves every REST route.

    Args:
        entity_port: documents.
        schema_port: their schemas.
        listing: which entities there are.
        cluster: state of workers and store.
        rotation: exchange of the master key.
        accounts: who may do what.
        options: how it behaves.
        clock: of deadlines and times.
        random: of names for requests and writes.
        audit: where events go; None: they are logged only.
        used_keys: idempotency keys that were used; None: they are known until the process ends.
        following: where change feeds come from; None: there are none.
        around: what every request passes on its way in, those of a batch one by one, too.
    """
    idempotent = IdempotentWrites(entity_port, used_keys or UsedKeys(), clock=clock)
    body_bytes_max = options.body_bytes_max
    batches = Batches()
    handlers: dict[str, Handler] = {
        "entity": entity.EntityHandler(entity_port, accounts, idempotent, body_bytes_max),
        "entities": resources.ResourceHandler(
            entity_port,
            accounts,
            idempotent,
            body_bytes_max,
            ListingHandler(listing, entity_port, accounts),
        ),
        "export": exporting.ExportHandler(entity_port, listing, accounts, clock=clock),
        "import": importing.ImportHandler(
            entity_port, accounts, document_bytes_max=body_bytes_max, clock=clock, random=random
        ),
    }
    if following is not None:
        handlers["changes"] = feed.FeedHandler(following, accounts, clock=clock)
    events = RequestAudit(audit or Audit(clock), accounts, ClientAddresses(options.trusted_proxies))
    edge = Edge(
        _framework(
            [
                *health.handlers(cluster, options.version),
                *session.handlers(accounts, events),
                *keys.handlers(accounts, events),
                *schemas.handlers(
                    schema_port,
                    listing,
                    accounts,
                    events,
                    scans=Scans(listing, entity_port),
                    body_bytes_max=body_bytes_max,
                    public=options.public_schemas,
                ),
                *admin.handlers(cluster, accounts),
                *rotation_routes.handlers(rotation, accounts, events),
                *logs.handlers(accounts, events),
                *batch.handlers(batches, accounts),
                *documentation.handlers(
                    options.version, schema_port, accounts, public_schemas=options.public_schemas
                ),
            ]
        ),
        handlers,
        clock=clock,
        random=random,
        local_only=options.dev_mode,
        body_timeout_s=options.body_timeout_s,
        witness=events.failed,
    )
    app = around(edge)
    batches.serve_through(app)
    return app


def _framework(handlers: list[HTTPRouteHandler]) -> ASGIApp:
    app = Litestar(
        handlers,
        exception_handlers={HTTPException: _refuse, Exception: _refuse},
        openapi_config=None,
        logging_config=None,
        # The edge bounds bodies, per route.
        request_max_body_size=None,
        response_headers=NO_STORE,
    )
    # Its own ASGI types are closed dictionaries; ours are the open ones that it accepts.
    return cast(ASGIApp, app)


def _refuse(_: Request[Any, Any, Any], exc: Exception) -> NoReturn:
    """Let the edge answer: it has the one mapping of errors to HTTP."""
    raise _translated(exc) from None


def _translated(exc: Exception) -> Exception:
    """A ``DeltaError`` for what the framework itself refuses."""
    if isinstance(exc, DeltaError) or not isinstance(exc, HTTPException):
        return exc
    if exc.status_code == 404:
        return errors.NotFound("there is nothing at this path", code="no_route")
    if exc.status_code == 405:
        served = {method.strip() for method in (exc.headers or {}).get("allow", "").split(",")}
        # The framework lists an OPTIONS of its own; HEAD is served by the edge wherever GET is.
        served = served - {"OPTIONS"} | ({"HEAD"} if "GET" in served else set())
        return errors.MethodNotAllowed("this path knows no such method", allow=tuple(sorted(served)))
    if exc.status_code < 500:
        return errors.Invalid("the request is malformed")
    return exc
