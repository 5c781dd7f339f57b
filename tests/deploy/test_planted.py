"""The stand-ins for containers find a wrong name, port, path, variable or flag; so they are believed.

Mistakes that show only as something that never happens take seconds each: ``just plants`` tries all of
them, every other run one of a kind.
"""

from __future__ import annotations

import os

import pytest
from support.discretion import MASTER_KEY

from deploy.compose import FOLDER, read, running
from deploy.kubernetes import MANIFESTS, applied, documents

pytestmark = pytest.mark.integration

ALL = "ALL_PLANTS" in os.environ
PATIENCE_S = 4.0
S3 = "docker-compose.s3.yml"
MAIN = "main-worker is not healthy"
WORKER = "proc-worker is not healthy"
NOT_READY = "proc-worker-2: readinessProbe failed"

IN_COMPOSE_FILES = {
    "flag": ("-store-wait=2m", "-store-waits=2m", WORKER),
    "variable": ("S3_BUCKET: ", "S3_BUKET: ", WORKER),
    "path in no volume": ("state:/var/lib/deltadb", "state:/var/lib/delta", "read-only"),
    "published port": ('"8080:8080"', '"8080:8081"', "nobody answers"),
    "private listener": ("-grpc-addr=0.0.0.0:50052", "-grpc-addr=127.0.0.1:50052", WORKER),
}
IN_MANIFESTS = {
    "secret": ("key: master-key\n", "key: masterkey\n", "no secret delta-master-key/masterkey"),
    "key of a secret": ("key: secret-key", "key: secret", "belong together"),
    "Service that waits for whom it serves": (
        "publishNotReadyAddresses: true",
        "publishNotReadyAddresses: false",
        NOT_READY,
    ),
}
if ALL:
    IN_COMPOSE_FILES |= {
        "service": ("-main-addr=main-worker:50051", "-main-addr=mainworker:50051", WORKER),
        "port of the store": ("http://rustfs:9000", "http://rustfs:9001", WORKER),
        "port of a health check": ('"-grpc-addr=127.0.0.1:50052"', '"-grpc-addr=127.0.0.1:50051"', WORKER),
        "command of a health check": ('"deltadb", "health"]', '"deltadb", "healthy"]', MAIN),
    }
    IN_MANIFESTS |= {
        "service of a probe": ("deltadatabase.v1.ProcWorker", "deltadatabase.v1.Worker", NOT_READY),
        "advertised port": ("$(POD_IP):50052", "$(POD_IP):50051", NOT_READY),
        "path of a probe": ("path: /readyz", "path: /ready", "main-worker-1: readinessProbe failed"),
        "port of a Service": ("port: 50051\n", "port: 50050\n", NOT_READY),
        "name of a port": ("- name: http\n              cont", "- name: web\n              cont", "http"),
    }


@pytest.mark.parametrize("mistake", IN_COMPOSE_FILES)
def test_in_a_compose_file(tmp_path, store, monkeypatch, mistake):
    """Up to the mistake everything works: it is the mistake that is found."""
    right, wrong, found = IN_COMPOSE_FILES[mistake]
    monkeypatch.setattr("deploy.compose.PATIENCE_S", {found.split()[0]: PATIENCE_S})
    text = (FOLDER / S3).read_text()
    assert right in text
    planted = tmp_path / S3
    planted.write_text(text.replace(right, wrong, 1))
    with (
        pytest.raises(AssertionError, match=found),
        running(tmp_path, read(planted), (9000, store)) as composition,
    ):
        composition.serves("main-worker")


@pytest.mark.parametrize("mistake", IN_MANIFESTS)
def test_in_a_manifest(tmp_path, store, monkeypatch, mistake):
    right, wrong, found = IN_MANIFESTS[mistake]
    monkeypatch.setattr("deploy.kubernetes.READY_S", PATIENCE_S)
    names = ("main-worker.yaml", "proc-worker-s3.yaml")
    text = "\n---\n".join((MANIFESTS / name).read_text() for name in names)
    assert right in text
    secrets = {
        "delta-master-key": {"master-key": MASTER_KEY},
        "delta-s3-credentials": {"access-key": store.access_key, "secret-key": store.secret_key},
    }
    with (
        pytest.raises((AssertionError, KeyError), match=found),
        applied(tmp_path, documents(text.replace(right, wrong)), secrets, store),
    ):
        pass
