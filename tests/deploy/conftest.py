"""Fixtures of the tests of images, Compose files and manifests."""

from __future__ import annotations

import pytest
from integration.cluster import bucket_listing, s3_client
from support.weed import S3Server

BUCKET = "delta-db"


@pytest.fixture
def store(weed: S3Server) -> S3Server:
    """The S3 server, without the bucket that all files name."""
    client = s3_client(weed)
    if BUCKET in {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}:
        for name in bucket_listing(weed, BUCKET):
            client.delete_object(Bucket=BUCKET, Key=name)
        client.delete_bucket(Bucket=BUCKET)
    return weed
