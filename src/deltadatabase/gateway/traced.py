"""REST requests as spans, in the trace that the client began if it did."""

from __future__ import annotations

from collections.abc import Awaitable

from deltadatabase.gateway.asgi import ASGIApp, Message, Receive, Scope, Send
from deltadatabase.gateway.metrics import METHODS, route_of
from deltadatabase.telemetry.tracing import Tracing


def traced(app: ASGIApp, traces: Tracing) -> ASGIApp:
    """Wrap the application: one span a request, named by method and route template."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        # Read now: the layers below change both for the framework.
        method, path = scope["method"], scope["path"]
        method = method if method in METHODS else "other"
        parents = [value for name, value in scope["headers"] if name == b"traceparent"]
        traceparent = parents[0].decode("latin-1") if len(parents) == 1 else ""
        with traces.serving(method, traceparent, {"http.request.method": method}) as span:

            def noting(message: Message) -> Awaitable[None]:
                if message["type"] == "http.response.start":
                    span.set_attribute("http.response.status_code", message["status"])
                    for name, value in message["headers"]:
                        if name == b"x-request-id":
                            span.set_attribute("deltadatabase.request_id", value.decode("latin-1"))
                return send(message)

            await app(scope, receive, noting)
            fits = route_of(scope, path)
            span.update_name(f"{method} {fits}")
            span.set_attribute("http.route", fits)

    return serve
