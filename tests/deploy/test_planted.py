"""The stand-ins for containers find a wrong name, port, path, variable or flag; so they are believed."""

from __future__ import annotations

import pytest

from deploy.compose import FOLDER, read, running

pytestmark = pytest.mark.integration

S3 = "docker-compose.s3.yml"
MAIN = "main-worker is not healthy"
WORKER = "proc-worker is not healthy"
PLANTED = [
    pytest.param("-main-addr=main-worker:50051", "-main-addr=mainworker:50051", WORKER, id="service"),
    pytest.param("http://rustfs:9000", "http://rustfs:9001", WORKER, id="port of the store"),
    pytest.param("-grpc-addr=0.0.0.0:50052", "-grpc-addr=127.0.0.1:50052", WORKER, id="private listener"),
    pytest.param("-store-wait=2m", "-store-waits=2m", WORKER, id="flag"),
    pytest.param("S3_BUCKET: ", "S3_BUKET: ", WORKER, id="variable"),
    pytest.param(
        '"-grpc-addr=127.0.0.1:50052"', '"-grpc-addr=127.0.0.1:50051"', WORKER, id="port of a health check"
    ),
    pytest.param('"deltadb", "health"]', '"deltadb", "healthy"]', MAIN, id="health check"),
    pytest.param("state:/var/lib/deltadb", "state:/var/lib/delta", "read-only", id="path in no volume"),
    pytest.param('"8080:8080"', '"8080:8081"', "nobody answers", id="published port"),
]


@pytest.mark.parametrize(("right", "wrong", "found"), PLANTED)
def test_in_a_compose_file(tmp_path, store, monkeypatch, right, wrong, found):
    """Up to the mistake everything works: it is the mistake that is found."""
    failing = found.split()[0]
    monkeypatch.setattr("deploy.compose.PATIENCE_S", {failing: 4.0})
    text = (FOLDER / S3).read_text()
    assert right in text
    planted = tmp_path / S3
    planted.write_text(text.replace(right, wrong, 1))
    with (
        pytest.raises(AssertionError, match=found),
        running(tmp_path, read(planted), (9000, store)) as composition,
    ):
        composition.serves("main-worker")
