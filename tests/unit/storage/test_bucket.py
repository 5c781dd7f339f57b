from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from deltadatabase.storage.bucket import creation_body
from deltadatabase.storage.objects import S3Settings


@pytest.mark.parametrize(
    ("endpoint", "region"),
    [(None, "us-east-1"), ("http://127.0.0.1:9000", "us-east-1"), ("http://127.0.0.1:9000", "here")],
)
def test_the_region_is_left_out_where_it_would_be_refused(endpoint: str | None, region: str) -> None:
    assert creation_body(S3Settings(endpoint=endpoint, bucket="some-bucket", region=region)) == b""


def test_aws_is_told_the_region() -> None:
    body = creation_body(S3Settings(endpoint=None, bucket="some-bucket", region="eu-west-1"))
    namespace = "{http://s3.amazonaws.com/doc/2006-03-01/}"
    root = ET.fromstring(body)
    assert root.tag == f"{namespace}CreateBucketConfiguration"
    assert root.findtext(f"{namespace}LocationConstraint") == "eu-west-1"
