"""Make the bucket of an S3 store where it is missing and may be made.

obstore does nothing with buckets themselves, but it signs: one request on a signed URL is all
that is needed (Amazon S3 API reference, HeadBucket and CreateBucket).
"""

from __future__ import annotations

import asyncio
import http.client
import urllib.error
import urllib.request
from typing import Literal

from deltadatabase import limits
from deltadatabase.errors import StartupError, Unavailable
from deltadatabase.storage.objects import S3Objects, S3Settings

# AWS makes a bucket there when no region is said, and refuses this one's name. Other servers have
# no regions to choose from.
_AWS_DEFAULT_REGION = "us-east-1"
_LOCATION = (
    '<CreateBucketConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
    "<LocationConstraint>{region}</LocationConstraint></CreateBucketConfiguration>"
)


async def ensure_bucket(store: S3Objects) -> bool:
    """Make the bucket if it does not exist; return True when it was made now.

    Raises:
        StartupError: ``store_refused``: it does not exist and cannot be made, or is elsewhere.
        Unavailable: the server cannot be reached.
    """
    status = await _request(store, "HEAD", b"")
    # 403: it exists, or the credentials may not know; reading and writing will tell.
    if status in (200, 403):
        return False
    if status != 404:
        raise _refused("look for the bucket", status)
    status = await _request(store, "PUT", creation_body(store.settings))
    # 409: another worker made it at the same moment.
    if status in (200, 204, 409):
        return status != 409
    if status in (401, 403):
        raise StartupError(
            "the bucket does not exist and these credentials may not create it: create it, "
            f"bucket={store.settings.bucket}",
            code="store_refused",
        )
    raise _refused("create the missing bucket", status)


def creation_body(settings: S3Settings) -> bytes:
    """What a CreateBucket request says: the region, where AWS wants it said."""
    if settings.endpoint is None and settings.region != _AWS_DEFAULT_REGION:
        return _LOCATION.format(region=settings.region).encode()
    return b""


def _refused(what: str, status: int) -> StartupError:
    return StartupError(
        f"the S3 server refuses to {what}: check endpoint, bucket name, region and credentials, "
        f"status={status}",
        code="store_refused",
    )


async def _request(store: S3Objects, method: Literal["HEAD", "PUT"], body: bytes) -> int:
    """Send one signed request on the bucket itself; return the answer's status."""
    url = await store.sign(method, "")
    status = await asyncio.to_thread(_send, url, method, body)
    if status >= 500:
        raise Unavailable("the S3 server fails", code="store_refused")
    return status


def _send(url: str, method: str, body: bytes) -> int:
    # obstore built the URL from the endpoint and refuses all but http and https.
    request = urllib.request.Request(url, data=body or None, method=method)  # noqa: S310
    if method == "PUT":
        request.add_header("Content-Length", str(len(body)))
    try:
        with urllib.request.urlopen(request, timeout=limits.STORE_TIMEOUT_S) as response:  # noqa: S310
            return int(response.status)
    except urllib.error.HTTPError as exc:
        exc.close()
        return exc.code
    except (OSError, http.client.HTTPException, UnicodeError):
        raise Unavailable("the S3 server cannot be reached") from None
