"""The stand-ins for containers find a wrong name, port, path, variable or flag; so they are believed."""

from __future__ import annotations

import pytest
from support.discretion import MASTER_KEY

from deploy.compose import FOLDER, read, running
from deploy.kubernetes import MANIFESTS, applied, documents

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


IN_MANIFESTS = [
    pytest.param(
        "service: deltadatabase.v1.ProcWorker",
        "service: deltadatabase.v1.Worker",
        "proc-worker-2: readinessProbe failed",
        id="service of a probe",
    ),
    pytest.param(
        "key: secret-key", "key: secret", "proc-worker-2: readinessProbe failed", id="key of a secret"
    ),
    pytest.param(
        "key: master-key\n", "key: masterkey\n", "no secret delta-master-key/masterkey", id="secret"
    ),
    pytest.param(
        "publishNotReadyAddresses: true",
        "publishNotReadyAddresses: false",
        "proc-worker-2: readinessProbe failed",
        id="a Service that waits for whom it serves",
    ),
    pytest.param(
        "$(POD_IP):50052",
        "$(POD_IP):50051",
        "proc-worker-2: readinessProbe failed",
        id="advertised port",
    ),
    pytest.param(
        "path: /readyz", "path: /ready", "main-worker-1: readinessProbe failed", id="path of a probe"
    ),
]


@pytest.mark.parametrize(("right", "wrong", "found"), IN_MANIFESTS)
def test_in_a_manifest(tmp_path, store, monkeypatch, right, wrong, found):
    monkeypatch.setattr("deploy.kubernetes.READY_S", 4.0)
    text = "\n---\n".join(
        (MANIFESTS / name).read_text() for name in ("main-worker.yaml", "proc-worker-s3.yaml")
    )
    assert right in text
    secrets = {
        "delta-master-key": {"master-key": MASTER_KEY},
        "delta-s3-credentials": {"access-key": store.access_key, "secret-key": store.secret_key},
    }
    with (
        pytest.raises(AssertionError, match=found),
        applied(tmp_path, documents(text.replace(right, wrong)), secrets, store),
    ):
        pass
