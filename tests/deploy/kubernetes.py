"""Manifests as local processes: Deployments, Services, Secrets, claims and probes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml
from support.programs import Program, Programs, programs
from support.weed import S3Server

from deploy.containers import (
    DEPLOY,
    ENTRYPOINT,
    POD_IP,
    Container,
    Host,
    certificates,
    grpc_probe,
    http_probe,
    passes,
    store_and_read,
)

MANIFESTS: Final = DEPLOY / "kubernetes"
CHART: Final = DEPLOY / "helm" / "deltadatabase"
NAMESPACE: Final = "deltadatabase"
READY_S: Final = 30.0
_HELM: Final = """\
import json, sys
from helm_python import chart

task, path, values, name, namespace = sys.argv[1:]
values = json.loads(values)
if task == "lint":
    answer = chart.lint(path, values, strict=True)
else:
    with chart.Chart.load(path) as loaded:
        loaded.validate_schema(values)
        answer = loaded.render(values, name=name, namespace=namespace)
print(json.dumps(answer))
"""
Objects = list[dict[str, Any]]
Secrets = Mapping[str, Mapping[str, str]]


def documents(text: str) -> Objects:
    """The objects of a YAML stream."""
    return [document for document in yaml.safe_load_all(text) if document]


def manifests(*names: str) -> Objects:
    """The objects of files below deploy/kubernetes."""
    return [each for name in names for each in documents((MANIFESTS / name).read_text())]


def kustomize(folder: Path) -> Objects:
    """What ``kubectl kustomize`` builds of a folder."""
    kubectl = Path(sys.executable).parent / "kubectl"
    done = subprocess.run(
        [kubectl, "kustomize", folder], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return documents(done.stdout)


def of_kind(objects: Iterable[dict[str, Any]], kind: str) -> Objects:
    """The objects of one kind."""
    return [each for each in objects if each["kind"] == kind]


def render(values: Mapping[str, Any], name: str = "demo") -> Objects:
    """What Helm makes of the chart. Raises ValueError where the values do not fit its schema."""
    rendered = _helm("render", values, name)
    texts = [text for path, text in sorted(rendered.items()) if path.endswith(".yaml")]
    return [each for text in texts for each in documents(text)]


def lint(values: Mapping[str, Any]) -> list[str]:
    """What Helm has to say against the chart."""
    return [each["error"] for each in _helm("lint", values, "")["messages"]]


def _helm(task: str, values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """In a process of its own: Helm is a Go program in a library, with threads and signal handlers."""
    done = subprocess.run(
        [sys.executable, "-c", _HELM, task, str(CHART), json.dumps(values), name, NAMESPACE],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode:
        raise ValueError(done.stderr.splitlines()[-1])
    answer = json.loads(done.stdout)
    assert isinstance(answer, dict)
    return answer


def named(objects: Iterable[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    """The object of a kind with a name."""
    return next(each for each in of_kind(objects, kind) if each["metadata"]["name"] == name)


@dataclass
class Pod:
    """A pod of a Deployment, running.

    Attributes:
        name: of the pod.
        spec: of its one container.
        grace_s: how long it may take to end.
        container: as it is run.
        program: its process.
    """

    name: str
    spec: dict[str, Any]
    grace_s: float
    container: Container
    program: Program


@dataclass
class Namespace:
    """What runs of the objects that were applied.

    Attributes:
        objects: all of them.
        secrets: name to values by key.
        programs: starts the processes.
        store: stands for the Service rustfs, port 9000.
    """

    objects: Objects
    secrets: Secrets
    programs: Programs
    store: S3Server
    pods: dict[str, Pod] = field(default_factory=dict)
    started: int = 0
    deployments: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert all(each["metadata"]["namespace"] == NAMESPACE for each in self.objects)
        self.programs.commands = {
            name: ["sh", str(ENTRYPOINT), name] for name in ("main-worker", "proc-worker")
        }
        self.deployments = {
            name: each["metadata"]["name"]
            for each in of_kind(self.objects, "Deployment")
            for name in self.programs.commands
            if each["metadata"]["name"].endswith(name)
        }
        self.host = Host(self.programs, self.programs.folder, self._service_ports())
        self.host.elsewhere["rustfs", 9000] = self.store.endpoint.removeprefix("http://")

    def _service_ports(self) -> dict[tuple[str, int], int]:
        """Service ports to container ports. What is not ready is reached only where the Service says so."""
        ports: dict[tuple[str, int], int] = {}
        for service in of_kind(self.objects, "Service"):
            template = next(
                each["spec"]["template"]
                for each in of_kind(self.objects, "Deployment")
                if service["spec"]["selector"].items()
                <= each["spec"]["template"]["metadata"]["labels"].items()
            )
            # The main worker is ready once a worker has joined it through this Service.
            if not service["spec"].get("publishNotReadyAddresses"):
                continue
            for port in service["spec"]["ports"]:
                inside = _port_number(template["spec"]["containers"][0], port.get("targetPort", port["port"]))
                ports[service["metadata"]["name"], port["port"]] = inside
        return ports

    def start(self, deployment: str) -> Pod:
        """Start one more pod of a Deployment: main-worker or proc-worker, whatever stands before it."""
        deployment = self.deployments[deployment]
        spec = named(self.objects, "Deployment", deployment)["spec"]["template"]["spec"]
        (container,) = spec["containers"]
        self.started += 1
        name = f"{deployment}-{self.started}"
        described = self._container(deployment, name, spec, container)
        pod = Pod(
            name, container, spec["terminationGracePeriodSeconds"], described, self.host.start(described)
        )
        self.pods[name] = pod
        return pod

    def ready(self, *pods: Pod) -> None:
        """Wait for the startup, the liveness and the readiness probes of pods."""
        for pod in pods:
            for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
                well = passes(
                    lambda each=pod, probe=kind: self.probe(each, probe),
                    READY_S,
                    ended=lambda each=pod: each.program.process.poll() is not None,
                )
                assert well, f"{pod.name}: {kind} failed: {pod.program.output[-2000:]}"

    def probe(self, pod: Pod, kind: str) -> bool:
        """Carry out a probe once."""
        probe = pod.spec[kind]
        if "httpGet" in probe:
            asked = probe["httpGet"]
            port = self.host.port(pod.container, _port_number(pod.spec, asked["port"]))
            return http_probe(f"{asked.get('scheme', 'HTTP').lower()}://127.0.0.1:{port}{asked['path']}")
        if "grpc" in probe:
            port = self.host.port(pod.container, probe["grpc"]["port"])
            return grpc_probe(port, probe["grpc"].get("service", ""))
        return self.host.execute(pod.container, probe["exec"]["command"]).returncode == 0

    def stop(self, pod: Pod) -> int:
        """End a pod as the kubelet does: preStop, SIGTERM, and no patience beyond the grace period."""
        spent_s = 0.0
        if hook := pod.spec.get("lifecycle", {}).get("preStop"):
            command = hook["exec"]["command"]
            assert self.host.execute(pod.container, command).returncode == 0
            spent_s = float(command[1])
        pod.program.process.terminate()
        del self.pods[pod.name]
        return pod.program.wait(pod.grace_s - spent_s)

    def admin_key(self) -> str:
        """Print the admin key by the command that main-worker.yaml names."""
        main = self.of("main-worker")[0]
        done = self.host.execute(main.container, ["deltadb", "admin-key"])
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def of(self, deployment: str) -> list[Pod]:
        """The pods of a Deployment that run."""
        name = self.deployments[deployment]
        return [pod for pod in self.pods.values() if pod.container.service == name]

    @property
    def url(self) -> str:
        """The REST API by the Service's port 8080."""
        return f"http://{self.host.published(self.deployments['main-worker'], 8080)}"

    def _container(
        self, deployment: str, name: str, spec: Mapping[str, Any], container: Mapping[str, Any]
    ) -> Container:
        environ = self._environ(name, container)
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        mounts = {
            mount["mountPath"]: self._volume(name, volumes[mount["name"]])
            for mount in container["volumeMounts"]
        }
        assert container["securityContext"]["readOnlyRootFilesystem"]
        return Container(
            service=deployment,
            instance=name,
            arguments=[_expanded(argument, environ) for argument in container["args"]],
            environ=environ,
            mounts=mounts,
        )

    def _environ(self, name: str, container: Mapping[str, Any]) -> dict[str, str]:
        fields = {"metadata.name": name, "status.podIP": POD_IP}
        environ: dict[str, str] = {}
        for variable in container["env"]:
            if "value" in variable:
                environ[variable["name"]] = variable["value"]
            elif reference := variable["valueFrom"].get("secretKeyRef"):
                secret = self.secrets.get(reference["name"], {})
                if reference["key"] in secret:
                    environ[variable["name"]] = secret[reference["key"]]
                else:
                    assert reference.get("optional"), f"no secret {reference['name']}/{reference['key']}"
            else:
                environ[variable["name"]] = fields[variable["valueFrom"]["fieldRef"]["fieldPath"]]
        return environ

    def _volume(self, pod: str, volume: Mapping[str, Any]) -> str:
        if "persistentVolumeClaim" in volume:
            name = volume["persistentVolumeClaim"]["claimName"]
            assert named(self.objects, "PersistentVolumeClaim", name)
            return str(name)
        if "secret" in volume:
            folder = self.programs.folder / "volumes" / volume["secret"]["secretName"]
            if not folder.exists():
                certificates(folder)
            return str(volume["secret"]["secretName"])
        return f"{pod}-{volume['name']}"


def _port_number(container: Mapping[str, Any], port: int | str) -> int:
    """A container's port by its name or number; it must be declared."""
    declared = {each["name"]: each["containerPort"] for each in container["ports"]}
    return int(declared[port]) if isinstance(port, str) else next(n for n in declared.values() if n == port)


def _expanded(argument: str, environ: Mapping[str, str]) -> str:
    return re.sub(r"\$\(([A-Z_]+)\)", lambda found: environ.get(found[1], found[0]), argument)


@contextmanager
def applied(
    folder: Path, objects: Objects, secrets: Secrets, store: S3Server, *, workers: int = 1
) -> Iterator[Namespace]:
    """Run the main worker and so many proc workers of these objects, all ready."""
    with programs(folder) as started:
        namespace = Namespace(objects, secrets, started, store)
        main = namespace.start("main-worker")
        pods = [namespace.start("proc-worker") for _ in range(workers)]
        namespace.ready(*pods, main)
        yield namespace
        namespace.host.check_read_only()


def serves(namespace: Namespace) -> None:
    """Store and read a document through the Service."""
    store_and_read(namespace.url, namespace.admin_key())
