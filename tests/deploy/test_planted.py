"""The stand-ins for containers find a wrong name, port, path, variable or flag: they are believed because of it."""

from __future__ import annotations

import pytest

from deploy.compose import FOLDER, read, running

pytestmark = pytest.mark.integration

S3 = "docker-compose.s3.yml"
PLANTED = [
    pytest.param("-main-addr=main-worker:50051", "-main-addr=mainworker:50051", id="name of a service"),
    pytest.param("http://rustfs:9000", "http://rustfs:9001", id="port of another service"),
    pytest.param("-grpc-addr=0.0.0.0:50052", "-grpc-addr=127.0.0.1:50052", id="listener for itself alone"),
    pytest.param("-store-wait=2m", "-store-waits=2m", id="flag"),
    pytest.param("S3_BUCKET: ", "S3_BUKET: ", id="variable"),
    pytest.param("-state-dir=/var/lib/deltadb", "-state-dir=/var/lib/deltadatabase", id="path in no volume"),
    pytest.param('"-grpc-addr=127.0.0.1:50052"', '"-grpc-addr=127.0.0.1:50051"', id="port of a health check"),
    pytest.param('"8080:8080"', '"8080:8081"', id="published port"),
    pytest.param('"deltadb", "health"]', '"deltadb", "healthy"]', id="command of a health check"),
]


@pytest.mark.parametrize(("right", "wrong"), PLANTED)
def test_in_a_compose_file(tmp_path, store, monkeypatch, right, wrong):
    monkeypatch.setattr("deploy.compose.HEALTH_S", 2.0)
    text = (FOLDER / S3).read_text()
    assert right in text
    planted = tmp_path / S3
    planted.write_text(text.replace(right, wrong, 1))
    with (
        pytest.raises((AssertionError, KeyError)),
        running(tmp_path, read(planted), (9000, store)) as composition,
    ):
        composition.serves("main-worker")


def test_without_a_mistake_the_same_time_is_enough(tmp_path, store, monkeypatch):
    monkeypatch.setattr("deploy.compose.HEALTH_S", 2.0)
    with running(tmp_path, read(FOLDER / S3), (9000, store)) as composition:
        composition.serves("main-worker")
