"""``GET /entities/{schema_id}``: the entities of a schema, page by page."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Sequence
from hashlib import blake2b
from typing import Final
from urllib.parse import quote, urlencode

import msgspec

from deltadatabase import limits
from deltadatabase.auth.accounts import Accounts
from deltadatabase.auth.policy import Permission, require
from deltadatabase.clock import rfc3339
from deltadatabase.errors import Invalid, MethodNotAllowed, NotFound
from deltadatabase.gateway.asgi import Answer, Headers
from deltadatabase.gateway.edge import Exchange
from deltadatabase.gateway.ports import Entities, Listing, Page
from deltadatabase.gateway.request import choice, number, parameters
from deltadatabase.model import ListedEntity
from deltadatabase.storage.paths import check_schema_id, escape_key, is_stored_name, unescape_key

PREFIX: Final = "/entities/"
METHODS: Final = ("GET", "HEAD")
INCLUDES: Final = ("document", "meta")
LIMIT_DEFAULT: Final = limits.LIST_PAGE_MAX

_TOKEN_VERSION: Final = b"\x01"
_DIGEST_BYTES: Final = 8
_TOKEN_LETTERS_MAX: Final = 4 * (1 + _DIGEST_BYTES + limits.KEY_ESCAPED_BYTES_MAX) // 3 + 4
_ANY_ETAG: Final = ("*",)
_HEADERS: Final[Headers] = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]


class Item(msgspec.Struct, frozen=True, omit_defaults=True):
    """One entity of a page.

    Attributes:
        key: of the entity.
        size: of the stored, sealed object in bytes: some more than the document's.
        updated_at: RFC 3339; when the store says that the object was written, or, with ``version``,
            when this version was committed.
        version, etag: with ``include=meta`` and ``include=document``.
        document: with ``include=document``.
    """

    key: str
    size: int
    updated_at: str
    version: int | msgspec.UnsetType = msgspec.UNSET
    etag: str | msgspec.UnsetType = msgspec.UNSET
    document: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class ItemPage(msgspec.Struct, frozen=True):
    """A page: ``next`` goes on after it as ``after``; null at the end. It may be short before that."""

    items: list[Item]
    next: str | None


class Wanted(msgspec.Struct, frozen=True):
    """What a request asks for: ``prefix`` and ``after`` as stored names."""

    schema_id: str
    prefix: str
    key_prefix: str
    after: str
    limit: int
    include: str


class ListingHandler:
    """Answers requests for pages.

    Args:
        listing: where the names are.
        entities: where the documents are.
        accounts: who may do what.
    """

    def __init__(self, listing: Listing, entities: Entities, accounts: Accounts) -> None:
        self._listing = listing
        self._entities = entities
        self._accounts = accounts

    async def __call__(self, exchange: Exchange) -> Answer:
        """Answer one request. Raises ``DeltaError``."""
        head = exchange.head
        schema_id = head.path[len(PREFIX) :]
        if not schema_id:
            raise NotFound("there is nothing at this path", code="no_route")
        if head.method not in METHODS:
            raise MethodNotAllowed("a list of entities knows no such method", allow=METHODS)
        principal = self._accounts.authenticate(head.authorization)
        check_schema_id(schema_id)
        require(principal, Permission.READ, schema_id)
        wanted = wanted_of(schema_id, head.query)
        page = await self._page(wanted)
        if wanted.include:
            if wanted.include == "document":
                page = _cut(page, limits.LISTED_DOCUMENTS_BYTES_MAX)
            items = await self._read(wanted, page.entities, exchange.request_id)
        else:
            items = [_item(entity) for entity in page.entities]
        token = token_of(schema_id, wanted.prefix, page.next) if page.next else None
        headers = list(_HEADERS)
        if token is not None:
            headers.append((b"link", f'<{_url(wanted, token)}>; rel="next"'.encode()))
        return Answer(200, headers, msgspec.json.encode(ItemPage(items, token)))

    async def _page(self, wanted: Wanted) -> Page:
        """A full page, unless that would take many requests: many deleted entities lie between."""
        entities: list[ListedEntity] = []
        after = wanted.after
        began_s = asyncio.get_running_loop().time()
        for _ in range(limits.LISTING_ROUNDS_MAX):
            page = await self._listing.list(
                wanted.schema_id, prefix=wanted.prefix, after=after, limit=wanted.limit - len(entities)
            )
            entities += page.entities
            after = page.next
            # One that took long is given as it is: the next would keep the client waiting.
            slow = asyncio.get_running_loop().time() - began_s > limits.LISTING_FILL_S
            if not after or len(entities) >= wanted.limit or slow:
                break
        return Page(tuple(entities), after)

    async def _read(self, wanted: Wanted, entities: Sequence[ListedEntity], request_id: str) -> list[Item]:
        """Look each entity up at its owner; what was deleted meanwhile is left out."""
        places = asyncio.Semaphore(limits.LISTED_READS_MAX)
        # Without its document an entity is asked for as if the client had it in any version.
        known = None if wanted.include == "document" else _ANY_ETAG

        async def one(entity: ListedEntity) -> Item | None:
            key = unescape_key(entity.name)
            async with places:
                try:
                    result = await self._entities.get(
                        wanted.schema_id, key, if_none_match=known, request_id=request_id
                    )
                except NotFound:
                    return None
            return Item(
                key,
                entity.size_bytes,
                rfc3339(result.updated_ms),
                result.version,
                result.etag,
                msgspec.UNSET if known else msgspec.Raw(result.document),
            )

        reads = [asyncio.ensure_future(one(entity)) for entity in entities]
        try:
            return [item for item in await asyncio.gather(*reads) if item is not None]
        finally:
            for read in reads:
                read.cancel()


def wanted_of(schema_id: str, query: bytes) -> Wanted:
    """What the parameters ask for.

    Raises:
        Invalid: ``bad_query`` or ``bad_token``.
    """
    given = parameters(query, "prefix", "limit", "after", "include")
    count = number(given, "limit", LIMIT_DEFAULT, 1, limits.LIST_PAGE_MAX)
    include = choice(given, "include", INCLUDES, "")
    key_prefix = given.get("prefix", "")
    prefix = escape_key(key_prefix) if key_prefix else ""
    if len(prefix) > limits.KEY_ESCAPED_BYTES_MAX:
        raise Invalid("the prefix is longer than any key", code="bad_query")
    wanted = Wanted(schema_id, prefix, key_prefix, "", count, include)
    token = given.get("after")
    return msgspec.structs.replace(wanted, after=name_of(wanted, token)) if token else wanted


def token_of(schema_id: str, prefix: str, name: str) -> str:
    """The token to go on after a stored name with, in the list of just this schema and stored prefix."""
    about = blake2b(f"{schema_id}\0{prefix}".encode(), digest_size=_DIGEST_BYTES).digest()
    raw = _TOKEN_VERSION + about + name.encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def name_of(wanted: Wanted, token: str) -> str:
    """The stored name that a token goes on after.

    It is no secret and not signed: a made-up one may begin a list anywhere, which reveals nothing
    that the list would not.

    Raises:
        Invalid: ``bad_token``: not one that this list gave.
    """
    bad = Invalid("after is not a token that this list gave", code="bad_token")
    if len(token) > _TOKEN_LETTERS_MAX:
        raise bad
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        name = raw[1 + _DIGEST_BYTES :].decode("ascii")
    except (binascii.Error, ValueError):
        raise bad from None
    if not is_stored_name(name) or token_of(wanted.schema_id, wanted.prefix, name) != token:
        raise bad
    return name


def _url(wanted: Wanted, token: str) -> str:
    parameters = {"limit": str(wanted.limit), "after": token}
    if wanted.key_prefix:
        parameters["prefix"] = wanted.key_prefix
    if wanted.include:
        parameters["include"] = wanted.include
    return f"{PREFIX}{wanted.schema_id}?{urlencode(parameters, quote_via=quote)}"


def _cut(page: Page, bytes_max: int) -> Page:
    """The beginning of a page whose objects together fit, one at least."""
    total = 0
    for place, entity in enumerate(page.entities):
        total += entity.size_bytes
        if place and total > bytes_max:
            return Page(page.entities[:place], page.entities[place - 1].name)
    return page


def _item(entity: ListedEntity) -> Item:
    return Item(unescape_key(entity.name), entity.size_bytes, rfc3339(entity.updated_ms))
