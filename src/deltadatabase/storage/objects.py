"""The S3 and the memory backend, both through obstore.

obstore's own retries are off: it would report the success of a first try, whose reply was lost,
as a failed condition. Who issued a put decides what to do about its outcome.

Text compares by code points, which is the order of its UTF-8 bytes, so lists are sorted as they are.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Sequence
from datetime import datetime, timedelta
from operator import itemgetter
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

import msgspec
import obstore
from obstore.store import MemoryStore, S3Store

from deltadatabase import limits
from deltadatabase.errors import (
    Internal,
    NotFound,
    OutcomeUnknown,
    StartupError,
    Unavailable,
    VersionMismatch,
)
from deltadatabase.settings.values import Secret
from deltadatabase.storage.base import Condition, ObjectInfo, Stored, When, no_scan, too_large
from deltadatabase.storage.failures import (
    FAILURES,
    delete_failure,
    is_not_modified,
    put_failure,
    read_failure,
)
from deltadatabase.storage.paths import is_leaf_folder
from deltadatabase.storage.sorted_names import SortedNames

if TYPE_CHECKING:
    from obstore import ObjectMeta, PutMode, PutResult
    from obstore.store import S3Config, S3Credential

T = TypeVar("T")

# Wider than Amazon's present rules: old buckets and other servers have more.
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_REGION = re.compile(r"[A-Za-z0-9_-]{1,64}")
_URL = re.compile(r"https?://[!-~]+")


class S3Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Where an S3-compatible store is and how to sign for it.

    Attributes:
        endpoint: URL of the server (``http://host:port``); None is AWS itself.
        bucket: bucket name.
        region: region to sign for; self-hosted servers take any.
        access_key, secret_key: static credentials; empty: the AWS credential chain (environment,
            web identity, container, instance metadata).
        path_style: the bucket is in the path; else in the host name.
        allow_http: an endpoint without TLS is accepted.
    """

    endpoint: str | None
    bucket: str
    region: str = "us-east-1"
    access_key: Secret = Secret("")
    secret_key: Secret = Secret("")
    path_style: bool = True
    allow_http: bool = False


class MemoryObjects:
    """Objects in this process's memory, gone with it. Fulfils ``Store``."""

    backend = "memory"
    removes = True

    def __init__(self, object_bytes_max: int = limits.OBJECT_BYTES_MAX) -> None:
        self._object_bytes_max = object_bytes_max
        # Called synchronously: 2 µs a call, where the asynchronous form costs a thread hop.
        self._store = MemoryStore()
        # Its own listing copies what it describes of every object for each page.
        self._paths = SortedNames()

    async def put(self, path: str, data: bytes, condition: Condition) -> str:
        try:
            result = self._store.put(path, data, mode=_mode(condition), use_multipart=False)
        except FAILURES as exc:
            raise put_failure(exc, condition) from None
        if condition is When.ABSENT or condition is When.ALWAYS:
            self._paths.add(path)
        return _put_etag(result)

    async def get(self, path: str) -> Stored:
        try:
            result = self._store.get(path)
        except FAILURES as exc:
            raise read_failure(exc) from None
        if result.meta["size"] > self._object_bytes_max:
            raise too_large() from None
        return _stored(result.bytes(), result.meta)

    async def settle(self, path: str) -> None:
        pass  # Memory is as durable as it will be.

    async def get_if_changed(self, path: str, etag: str) -> Stored | None:
        stored = await self.get(path)
        return None if stored.etag == etag else stored

    async def head(self, path: str) -> ObjectInfo:
        try:
            return _info(self._store.head(path))
        except FAILURES as exc:
            raise read_failure(exc) from None

    async def list(
        self, prefix: str, *, after: str = "", limit: int = limits.LIST_PAGE_MAX
    ) -> Sequence[ObjectInfo]:
        _check_folder(prefix)
        try:
            return [_info(self._store.head(path)) for path in self._paths.after(after, prefix, count=limit)]
        except FAILURES as exc:
            raise read_failure(exc) from None

    def scan(self, prefix: str) -> AsyncGenerator[Sequence[str]]:
        raise no_scan()

    async def describe(self, prefix: str, names: Sequence[str]) -> Sequence[ObjectInfo | None]:
        raise no_scan()

    async def folder_ms(self, prefix: str) -> int:
        raise no_scan()

    async def folders(self, prefix: str) -> Sequence[str]:
        _check_folder(prefix)
        return _folder_names(self._store.list_with_delimiter(prefix or None)["common_prefixes"])

    async def remove(self, path: str, etag: str) -> None:
        # Both calls are synchronous, so nothing of this event loop comes between them.
        try:
            current = self._store.head(path)["e_tag"]
        except FAILURES as exc:
            failure = read_failure(exc)
            raise (
                VersionMismatch("there is no object") if isinstance(failure, NotFound) else failure
            ) from None
        if current != etag:
            raise VersionMismatch("the object changed")
        await self.delete(path)

    async def delete(self, path: str) -> None:
        try:
            self._store.delete(path)
        except FAILURES as exc:
            if failure := delete_failure(exc):
                raise failure from None
        self._paths.discard(path)

    async def close(self) -> None:
        pass


class S3Objects:
    """Objects in a bucket of an S3-compatible server. Fulfils ``Store``.

    Every call ends within ``limits.STORE_TIMEOUT_S`` seconds, a listing within that time for each
    ``limits.LIST_PAGE_MAX`` objects.

    Raises:
        StartupError: ``bad_flag``, ``store_refused``: the settings make no usable client.
    """

    backend = "s3"
    removes = False

    def __init__(self, settings: S3Settings, object_bytes_max: int = limits.OBJECT_BYTES_MAX) -> None:
        self.settings = settings
        self._object_bytes_max = object_bytes_max
        self._store = _s3_client(settings)

    async def put(self, path: str, data: bytes, condition: Condition) -> str:
        try:
            result = await _in_time(
                # Never in parts: their completion takes no condition.
                obstore.put_async(self._store, path, data, mode=_mode(condition), use_multipart=False)
            )
        except FAILURES as exc:
            raise put_failure(exc, condition) from None
        return _put_etag(result)

    async def get(self, path: str) -> Stored:
        stored = await self.get_if_changed(path, "")
        assert stored is not None
        return stored

    async def settle(self, path: str) -> None:
        pass  # S3 shows what is stored, and nothing before.

    async def get_if_changed(self, path: str, etag: str) -> Stored | None:
        try:
            return await _in_time(self._read(path, etag))
        except FAILURES as exc:
            if etag and is_not_modified(exc):
                return None
            raise read_failure(exc) from None

    async def _read(self, path: str, etag: str) -> Stored:
        options: obstore.GetOptions = {"if_none_match": etag} if etag else {}
        result = await obstore.get_async(self._store, path, options=options)
        # Known from the answer's headers; what is not asked for is not read, and the connection ends.
        if result.meta["size"] > self._object_bytes_max:
            raise too_large() from None
        return _stored(await result.bytes_async(), result.meta)

    async def head(self, path: str) -> ObjectInfo:
        try:
            return _info(await _in_time(obstore.head_async(self._store, path)))
        except FAILURES as exc:
            raise read_failure(exc) from None

    async def list(
        self, prefix: str, *, after: str = "", limit: int = limits.LIST_PAGE_MAX
    ) -> Sequence[ObjectInfo]:
        _check_folder(prefix)
        if is_leaf_folder(prefix):
            return await self._page(prefix, after, limit)
        # SeaweedFS lists folder by folder: "a/x" before "a-b/x", and nothing of "a/" after "a-b".
        # Within one folder every server keeps byte order, so the tree is walked here.
        objects, folders = await self._entries(prefix)
        entries = [(info.path, info) for info in objects] + [(path, None) for path in folders]
        found: list[ObjectInfo] = []
        for path, info in sorted(entries, key=itemgetter(0)):
            if len(found) >= limit:
                break
            if info is not None:
                if path > after:
                    found.append(info)
            elif path > after or after.startswith(path):
                found.extend(await self.list(path, after=after, limit=limit - len(found)))
        return found

    async def folders(self, prefix: str) -> Sequence[str]:
        _check_folder(prefix)
        _, folders = await self._entries(prefix)
        return _folder_names(folders)

    def scan(self, prefix: str) -> AsyncGenerator[Sequence[str]]:
        raise no_scan()

    async def describe(self, prefix: str, names: Sequence[str]) -> Sequence[ObjectInfo | None]:
        raise no_scan()

    async def folder_ms(self, prefix: str) -> int:
        raise no_scan()

    async def remove(self, path: str, etag: str) -> None:
        # obstore's delete takes no condition: a late one would destroy a newer write.
        raise Internal("this store cannot remove an object under a condition")

    async def delete(self, path: str) -> None:
        try:
            await _in_time(obstore.delete_async(self._store, path))
        except FAILURES as exc:
            if failure := delete_failure(exc):
                raise failure from None

    async def sign(self, method: obstore.HTTP_METHOD, path: str) -> str:
        """A URL for one request on ``path``; "" is the bucket itself. Valid for one minute.

        Raises:
            Unavailable: no credentials could be had.
        """
        try:
            return await _in_time(obstore.sign_async(self._store, method, path, timedelta(minutes=1)))
        except FAILURES as exc:
            raise read_failure(exc) from None

    async def close(self) -> None:
        # obstore has nothing to close: idle connections end with the client object.
        pass

    async def _page(self, prefix: str, after: str, limit: int) -> Sequence[ObjectInfo]:
        """The next ``limit`` objects directly in a folder that has no folders in it."""
        found: list[ObjectInfo] = []
        try:
            # In the chunks that a server gives at once, so that each of them has its time.
            chunks = obstore.list(
                self._store, prefix, offset=after or None, chunk_size=min(limit, limits.LIST_PAGE_MAX)
            )
            while len(found) < limit and (chunk := await _in_time(anext(chunks, None))) is not None:
                # What others put deeper is not ours, and where it would come differs by server.
                # obstore sends the offset without a closing slash, so more may come than was asked for.
                found += [
                    _info(meta)
                    for meta in chunk
                    if "/" not in meta["path"][len(prefix) :] and meta["path"] > after
                ]
        except FAILURES as exc:
            raise read_failure(exc) from None
        return found[:limit]

    async def _entries(self, prefix: str) -> tuple[Sequence[ObjectInfo], Sequence[str]]:
        """Objects, and folders with their closing slash, directly in a folder."""
        try:
            result = await _in_time(obstore.list_with_delimiter_async(self._store, prefix or None))
        except FAILURES as exc:
            raise read_failure(exc) from None
        return (
            [_info(meta) for meta in result["objects"]],
            [folder.rstrip("/") + "/" for folder in result["common_prefixes"]],
        )


async def _in_time(call: Awaitable[T]) -> T:
    # obstore's own timeout starts anew with each request of a call, and leaves out credentials.
    async with asyncio.timeout(limits.STORE_TIMEOUT_S):
        return await call


def _check(settings: S3Settings) -> None:
    """Refuse what the client would only fail on later, with a less useful message."""
    complaint = ""
    if not _BUCKET.fullmatch(settings.bucket):
        complaint = "-s3-bucket is not a bucket name"
    elif not _REGION.fullmatch(settings.region):
        complaint = "-s3-region is not a region's name"
    elif bool(settings.access_key.reveal()) != bool(settings.secret_key.reveal()):
        complaint = "-s3-access-key and -s3-secret-key must be given together"
    elif settings.endpoint is not None:
        if not _is_server_url(settings.endpoint):
            complaint = "-s3-endpoint is not the http or https URL of a server"
        elif settings.endpoint.startswith("http:") and not settings.allow_http:
            complaint = "-s3-endpoint is not encrypted, and that is not allowed"
    if complaint:
        raise StartupError(complaint, code="bad_flag")


def _is_server_url(text: str) -> bool:
    try:
        url = urlsplit(text)
        return bool(_URL.fullmatch(text)) and bool(url.hostname) and url.port != 0
    except ValueError:
        return False


def _s3_client(settings: S3Settings) -> S3Store:
    _check(settings)
    config: S3Config = {
        "region": settings.region,
        "virtual_hosted_style_request": not settings.path_style,
        # The bulk form is not known to every server.
        "disable_bulk_delete": True,
        # obstore takes what is not given from the environment; what must hold is given.
        "conditional_put": "etag",
        "skip_signature": False,
    }
    if settings.endpoint is not None:
        endpoint = settings.endpoint.rstrip("/")
        if not settings.path_style:
            scheme, _, host = endpoint.partition("://")
            endpoint = f"{scheme}://{settings.bucket}.{host}"
        config["endpoint"] = endpoint
        config["aws_endpoint_url_s3"] = endpoint
    try:
        return S3Store(
            settings.bucket,
            config=config,
            # Static credentials come from a provider, so that no session token of the
            # environment is mixed with them.
            credential_provider=_StaticCredentials(settings) if settings.access_key.reveal() else None,
            client_options={
                "allow_http": settings.allow_http,
                "connect_timeout": timedelta(seconds=limits.STORE_CONNECT_TIMEOUT_S),
                "timeout": timedelta(seconds=limits.STORE_TIMEOUT_S),
            },
            retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=limits.STORE_TIMEOUT_S)},
        )
    except FAILURES:
        raise StartupError(
            "the S3 settings make no usable client: check endpoint, bucket and region", code="store_refused"
        ) from None


class _StaticCredentials:
    """Hands out the given keys; unlike a closure or partial it shows none."""

    def __init__(self, settings: S3Settings) -> None:
        self._settings = settings

    def __call__(self) -> S3Credential:
        return {
            "access_key_id": self._settings.access_key.reveal(),
            "secret_access_key": self._settings.secret_key.reveal(),
            "token": None,
            "expires_at": None,
        }


def _mode(condition: Condition) -> PutMode:
    if condition is When.ABSENT:
        return "create"
    if condition is When.ALWAYS:
        return "overwrite"
    assert isinstance(condition, str)
    # Without a "version" of None, which obstore refuses.
    return {"e_tag": condition}


def _check_folder(prefix: str) -> None:
    if prefix and not prefix.endswith("/"):
        raise Internal("a listing's prefix is a folder")


def _folder_names(paths: Sequence[str]) -> Sequence[str]:
    return sorted(path.rstrip("/").rpartition("/")[2] for path in paths)


def _stored(data: obstore.Bytes, meta: ObjectMeta) -> Stored:
    # Copied: obstore's Bytes keeps the whole network buffer alive.
    if not (etag := meta["e_tag"]):
        raise Unavailable("the store gives no etag", code="store_refused")
    return Stored(data.to_bytes(), etag, _ms(meta["last_modified"]))


def _info(meta: ObjectMeta) -> ObjectInfo:
    return ObjectInfo(meta["path"], meta["size"], meta["e_tag"] or "", _ms(meta["last_modified"]))


def _put_etag(result: PutResult) -> str:
    if not (etag := result["e_tag"]):
        raise OutcomeUnknown("the store confirmed the write without an etag")
    return etag


def _ms(time: datetime) -> int:
    return int(time.timestamp() * 1000)
