"""DeltaDatabase: a JSON document database, encrypted at rest, that runs on nothing but an object store.

Programs that use a database need two names of it, ``Client`` and ``AsyncClient``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deltadatabase.client import AsyncClient as AsyncClient
    from deltadatabase.client import Client as Client

__version__ = "0.1.0"
__all__ = ["AsyncClient", "Client", "__version__"]


def __getattr__(name: str) -> Any:
    # Only when asked for: the servers import this package, too, and need no HTTP client.
    if name in {"AsyncClient", "Client"}:
        from deltadatabase import client

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
