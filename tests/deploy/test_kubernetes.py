"""Every manifest against Kubernetes' schemas, and its containers with their probes as processes."""

from __future__ import annotations

import base64
import copy
import functools
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import kubernetes_validate
import pytest
import yaml
from integration.cluster import load
from support.discretion import ADMIN_KEY, JOIN_TOKEN, MASTER_KEY
from support.programs import wait_for

from deploy.containers import DEPLOY, grpc_probe, store_and_read
from deploy.kubernetes import (
    CHART,
    MANIFESTS,
    NAMESPACE,
    applied,
    documents,
    kustomize,
    lint,
    manifests,
    named,
    of_kind,
    render,
    serves,
)

VERSIONS = ("1.31", "1.37")
"""Of Kubernetes: an old one that is still run, and the newest that the validator knows."""
FILES = (
    "main-worker.yaml",
    "proc-worker.yaml",
    "proc-worker-s3.yaml",
    "proc-worker-hpa.yaml",
    "shared-pvc.yaml",
)
OVERLAYS = ("s3", "directory", "monitoring", "in-flight", "hardened")
RESTRICTED_POD = {
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}
RESTRICTED_CONTAINER = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
}
DOCUMENT = """\
# 1. Create namespace and secrets
kubectl create namespace deltadatabase

kubectl -n deltadatabase create secret generic delta-master-key \\
  --from-literal=master-key="$(openssl rand -hex 32)"

kubectl -n deltadatabase create secret generic delta-s3-credentials \\
  --from-literal=access-key="<your-access-key>" \\
  --from-literal=secret-key="<your-secret-key>"

# 2. Deploy Main Worker (same manifest as the local-FS topology)
kubectl apply -f deploy/kubernetes/main-worker.yaml

# 3. Deploy Processing Workers with S3 backend
#    Edit deploy/kubernetes/proc-worker-s3.yaml to set S3_ENDPOINT and S3_BUCKET
kubectl apply -f deploy/kubernetes/proc-worker-s3.yaml

# 4. (Optional) Autoscale Processing Workers
kubectl apply -f deploy/kubernetes/proc-worker-hpa.yaml

# 5. Verify
kubectl -n deltadatabase rollout status deployment/proc-worker
kubectl -n deltadatabase port-forward svc/main-worker 8080:8080 &
curl http://localhost:8080/health
"""
"""The user's document, as written."""
NO_CLUSTER = """\
kubectl() {
    case "$*" in
        *create*) command kubectl "$@" --dry-run=client -o yaml; echo --- ;;
        "apply -f "*) cat "$3"; echo --- ;;
        *) echo "$*" >> "$HOME/later" ;;
    esac
}
curl() { echo "curl $*" >> "$HOME/later"; }
"""
"""kubectl shows what it would create or apply; what needs a cluster is noted."""


CHARTS = {
    "chart": {},
    "chart, directory": {"store": {"type": "directory"}, "procWorker": {"autoscaling": {"enabled": False}}},
    "chart, everything": {
        "tls": {"enabled": True},
        "metrics": {"enabled": True},
        "networkPolicy": {"egress": {"enabled": True}},
        "imagePullSecrets": [{"name": "registry"}],
        "mainWorker": {
            "podAnnotations": {"a": "b"},
            "extraArgs": ["-client-ttl=12h"],
            "extraEnv": [{"name": "DELTADB_PUBLIC_SCHEMAS", "value": "true"}],
            "nodeSelector": {"disk": "ssd"},
            "tolerations": [{"key": "a", "operator": "Exists"}],
            "service": {"type": "LoadBalancer", "annotations": {"a": "b"}},
        },
        "procWorker": {
            "podAnnotations": {"a": "b"},
            "extraArgs": ["-cache-ttl=1h"],
            "extraEnv": [{"name": "DELTADB_META_SIDECAR", "value": "false"}],
            "autoscaling": {"by": "inFlight"},
        },
    },
}


SETS = [*FILES, "base", *OVERLAYS, *CHARTS]


@functools.cache
def objects_of(name):
    """The objects of a file, of the base, of an overlay or of the chart. Not to be changed."""
    if name in FILES:
        return manifests(name)
    if name in CHARTS:
        return render(CHARTS[name])
    return kustomize(MANIFESTS if name == "base" else DEPLOY / "kustomize" / name)


def test_these_are_the_files():
    assert {path.name for path in MANIFESTS.iterdir()} == {*FILES, "kustomization.yaml"}
    assert {path.name for path in (DEPLOY / "kustomize").iterdir()} == set(OVERLAYS)


@pytest.mark.parametrize("name", SETS)
def test_it_validates_against_the_schemas(name):
    for each in objects_of(name):
        for version in VERSIONS:
            kubernetes_validate.validate(each, version, strict=True)


def test_what_does_not_fit_the_schemas_is_found():
    wrong = copy.deepcopy(objects_of("base"))
    container = named(wrong, "Deployment", "main-worker")["spec"]["template"]["spec"]["containers"][0]
    container["readynessProbe"] = container.pop("readinessProbe")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(named(wrong, "Deployment", "main-worker"), VERSIONS[1], strict=True)


@pytest.mark.parametrize("name", SETS)
def test_it_is_restricted_and_everything_is_where_it_belongs(name):
    for each in objects_of(name):
        assert each["metadata"]["namespace"] == NAMESPACE
    for deployment in of_kind(objects_of(name), "Deployment"):
        spec = deployment["spec"]["template"]["spec"]
        assert RESTRICTED_POD.items() <= spec["securityContext"].items()
        assert spec["automountServiceAccountToken"] is False
        for container in spec["containers"]:
            assert container["securityContext"] == RESTRICTED_CONTAINER
            assert {"requests", "limits"} <= container["resources"].keys()
            assert {"startupProbe", "readinessProbe", "livenessProbe"} <= container.keys()
            # Time for preStop and for the drain (10 s unless a flag says otherwise), and some to spare.
            drains = [a.partition("=")[2] for a in container["args"] if a.startswith("-drain-timeout=")]
            drain_s = int(drains[0].removesuffix("s")) if drains else 10
            stop = container.get("lifecycle", {}).get("preStop", {"exec": {"command": ["sleep", "0"]}})
            assert spec["terminationGracePeriodSeconds"] > drain_s + int(stop["exec"]["command"][1])


def test_the_directory_overlay_is_the_plain_files():
    built, plain = objects_of("directory"), manifests("proc-worker.yaml", "shared-pvc.yaml")
    for each in plain:
        kind, name = each["kind"], each["metadata"]["name"]
        assert _unordered(named(built, kind, name)) == _unordered(each), name


def _unordered(value):
    """Lists of named things in the order of their names."""
    if isinstance(value, dict):
        return {key: _unordered(each) for key, each in value.items()}
    if isinstance(value, list):
        return sorted((_unordered(each) for each in value), key=lambda each: json.dumps(each, sort_keys=True))
    return value


def test_the_autoscaler_reaches_from_1_to_10():
    (scaler,) = manifests("proc-worker-hpa.yaml")
    spec = scaler["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"]) == (1, 10)
    for name in ("proc-worker.yaml", "proc-worker-s3.yaml"):
        (deployment,) = of_kind(manifests(name), "Deployment")
        assert spec["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
        # Applying the file again must not undo what the autoscaler did.
        assert "replicas" not in deployment["spec"]
        assert deployment["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]["cpu"]
    assert spec["behavior"]["scaleDown"]["policies"] == [{"type": "Pods", "value": 1, "periodSeconds": 60}]
    (by_requests,) = of_kind(objects_of("in-flight"), "HorizontalPodAutoscaler")
    metric = by_requests["spec"]["metrics"][0]["external"]["metric"]["name"]
    assert metric == "deltadatabase_router_in_flight"


def test_policies_let_in_main_worker_and_workers_only():
    def callers(name):
        spec = named(objects_of("base"), "NetworkPolicy", name)["spec"]
        assert spec["policyTypes"] == ["Ingress"]
        return {
            port["port"]: {
                peer["podSelector"]["matchLabels"]["app.kubernetes.io/name"] for peer in rule.get("from", [])
            }
            for rule in spec["ingress"]
            for port in rule["ports"]
        }

    assert callers("main-worker") == {"http": set(), "grpc": {"proc-worker"}}
    assert callers("proc-worker") == {"grpc": {"main-worker"}}


def test_helm_has_nothing_to_say_against_the_chart():
    for values in CHARTS.values():
        assert lint(values) == ["icon is recommended"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"store": {"type": "s4"}},
        {"store": {"s3": {"endpont": "http://rustfs:9000"}}},
        {"procWorker": {"cacheBytes": "much"}},
        {"procWorkers": {}},
        {"networkPolicy": {"egress": {"storePorts": ["9000"]}}},
    ],
)
def test_wrong_values_are_refused_by_the_charts_schema(wrong):
    with pytest.raises(ValueError):
        render(wrong)


def test_every_value_of_the_chart_is_in_its_schema_and_is_used():
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())
    templates = "".join(path.read_text() for path in (CHART / "templates").iterdir())

    def check(part, described, path):
        for name, value in part.items():
            assert name in described["properties"], f"{path}.{name}"
            assert re.search(rf"\.{name}\b", templates), f"{path}.{name} is used nowhere"
            below = described["properties"][name]
            if "properties" in below:
                check(value, below, f"{path}.{name}")

    check(values, schema, "")


def test_the_chart_says_what_the_manifests_say():
    """Beside names, labels and what only the chart lets one choose."""

    def spec(objects, name):
        (deployment,) = (
            each for each in of_kind(objects, "Deployment") if each["metadata"]["name"].endswith(name)
        )
        return deployment["spec"]["template"]["spec"]

    for name in ("main-worker", "proc-worker"):
        chart, plain = spec(objects_of("chart"), name), spec(objects_of("base"), name)
        assert chart["securityContext"] == plain["securityContext"]
        (ours,), (theirs,) = chart["containers"], plain["containers"]
        for same in ("env", "resources", "securityContext", "ports"):
            assert ours[same] == theirs[same], same
        assert {a.replace("demo-deltadatabase-", "") for a in ours["args"]} >= set(theirs["args"])


# -- as processes ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def document(weed, tmp_path_factory):
    """The objects that the document's commands make, and the lines that need a cluster."""
    home = tmp_path_factory.mktemp("home")
    script = DOCUMENT.replace("<your-access-key>", weed.access_key)
    done = subprocess.run(
        ["sh", "-ec", NO_CLUSTER + script.replace("<your-secret-key>", weed.secret_key) + "wait"],
        cwd=MANIFESTS.parents[1],
        env={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(home)},
        capture_output=True,
        text=True,
        check=True,
    )
    return documents(done.stdout), (home / "later").read_text().splitlines()


@pytest.fixture(scope="module")
def secrets(document):
    """The secrets that the document's commands make."""
    return {
        each["metadata"]["name"]: {
            key: base64.b64decode(value).decode() for key, value in each["data"].items()
        }
        for each in of_kind(document[0], "Secret")
    }


@pytest.mark.integration
def test_the_documents_commands_are_enough(tmp_path, store, document, secrets):
    made, later = document
    assert [each["metadata"]["name"] for each in of_kind(made, "Namespace")] == [NAMESPACE]
    assert sorted(later) == [
        "-n deltadatabase port-forward svc/main-worker 8080:8080",
        "-n deltadatabase rollout status deployment/proc-worker",
        "curl http://localhost:8080/health",
    ]
    objects = [each for each in made if each["kind"] != "Namespace"]
    assert {each["metadata"]["namespace"] for each in objects} == {NAMESPACE}
    assert named(objects, "Deployment", "proc-worker") and of_kind(objects, "HorizontalPodAutoscaler")
    applied_objects = [each for each in objects if each["kind"] != "Secret"]
    with applied(tmp_path, applied_objects, secrets, store) as namespace:
        # svc/main-worker 8080
        assert httpx.get(f"{namespace.url}/health").json()["status"] == "ok"
        serves(namespace)


@pytest.mark.integration
def test_scaling_1_to_5_to_1_under_load_fails_no_request(tmp_path, store, secrets):
    """As the autoscaler does: pods that count once their probes pass, and end by preStop and SIGTERM."""
    objects = kustomize(MANIFESTS)
    given = {**secrets, "delta-admin-key": {"admin-key": ADMIN_KEY}}
    with applied(tmp_path, objects, given, store) as namespace:
        (first,) = namespace.of("proc-worker")
        with load(namespace.url, headers={"Authorization": f"Bearer {ADMIN_KEY}"}) as statuses:
            more = [namespace.start("proc-worker") for _ in range(4)]
            namespace.ready(*more)
            served = statuses[200]
            wait_for(lambda: statuses[200] > served + 100, "five workers serve")
            # The first one too: nothing is special about it.
            ends = [namespace.stop(pod) for pod in (first, *more[:3])]
            served = statuses[200]
            wait_for(lambda: statuses[200] > served + 100, "one worker serves")
        assert ends == [0, 0, 0, 0]
        assert statuses.keys() == {200}, statuses


@pytest.mark.integration
def test_a_worker_that_drains_is_not_ready_and_still_alive_to_its_end(tmp_path, store, secrets):
    with applied(tmp_path, manifests("main-worker.yaml", "proc-worker-s3.yaml"), secrets, store) as namespace:
        (pod,), (main,) = namespace.of("proc-worker"), namespace.of("main-worker")
        main.program.process.send_signal(signal.SIGSTOP)  # So that the drain lasts.
        try:
            pod.program.process.terminate()
            port = namespace.host.port(pod.container, 50052)
            wait_for(lambda: not grpc_probe(port, "deltadatabase.v1.ProcWorker"), "it says so", 3.0)
            assert pod.program.process.poll() is None
        finally:
            main.program.process.send_signal(signal.SIGCONT)
        assert pod.program.wait(pod.grace_s) == 0


@pytest.mark.integration
def test_a_shared_volume_needs_one_more_secret(tmp_path, store, secrets):
    given = {"delta-master-key": secrets["delta-master-key"]}
    objects = manifests("main-worker.yaml", "proc-worker.yaml", "shared-pvc.yaml")
    missing = pytest.raises(AssertionError, match="no secret delta-join-token")
    with missing, applied(tmp_path, objects, given, store):
        pass
    folder = tmp_path / "again"
    folder.mkdir()
    given["delta-join-token"] = {"join-token": JOIN_TOKEN}
    with applied(folder, objects, given, store, workers=2) as namespace:
        serves(namespace)


@pytest.mark.integration
def test_with_certificates(tmp_path, store, secrets):
    given = {**secrets, "delta-admin-key": {"admin-key": ADMIN_KEY}}
    with applied(tmp_path, objects_of("hardened"), given, store) as namespace:
        store_and_read(namespace.url.replace("http:", "https:"), ADMIN_KEY)


@pytest.mark.integration
def test_the_chart_works(tmp_path, store, secrets):
    with applied(tmp_path, objects_of("chart, everything"), secrets, store) as namespace:
        store_and_read(namespace.url.replace("http:", "https:"), namespace.admin_key())


@pytest.mark.integration
def test_the_chart_works_on_a_shared_volume(tmp_path, store, secrets):
    given = {"delta-master-key": secrets["delta-master-key"], "delta-join-token": {"join-token": JOIN_TOKEN}}
    with applied(tmp_path, objects_of("chart, directory"), given, store) as namespace:
        serves(namespace)


@pytest.mark.integration
def test_with_metrics(tmp_path, store):
    given = {
        "delta-master-key": {"master-key": MASTER_KEY},
        "delta-s3-credentials": {"access-key": store.access_key, "secret-key": store.secret_key},
    }
    with applied(tmp_path, objects_of("monitoring"), given, store) as namespace:
        serves(namespace)
        for pod in namespace.pods.values():
            template = named(namespace.objects, "Deployment", pod.container.service)["spec"]["template"]
            port = int(template["metadata"]["annotations"]["prometheus.io/port"])
            url = f"http://127.0.0.1:{namespace.host.port(pod.container, port)}/metrics"
            assert "process_cpu_seconds_total" in httpx.get(url, timeout=5.0).raise_for_status().text
