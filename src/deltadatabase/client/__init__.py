"""The Python client of DeltaDatabase: ``Client`` blocks, ``AsyncClient`` awaits; both do the same."""

from deltadatabase.client.answers import (
    ApiKey,
    Change,
    Entity,
    ImportReport,
    Item,
    LineError,
    NewApiKey,
    Page,
    Progress,
    Refused,
    ScanReport,
    SchemaCount,
    SchemaStored,
    Worker,
    Written,
)
from deltadatabase.client.async_client import AsyncClient
from deltadatabase.client.calls import Call
from deltadatabase.client.sync_client import Client

__all__ = [
    "ApiKey",
    "AsyncClient",
    "Call",
    "Change",
    "Client",
    "Entity",
    "ImportReport",
    "Item",
    "LineError",
    "NewApiKey",
    "Page",
    "Progress",
    "Refused",
    "ScanReport",
    "SchemaCount",
    "SchemaStored",
    "Worker",
    "Written",
]
