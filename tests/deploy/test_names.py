"""Every flag and variable in deploy/ and in docs/operations.md exists."""

from __future__ import annotations

import re
import shlex

from deltadatabase.settings import (
    AdminKeySettings,
    DoctorSettings,
    HealthSettings,
    MainSettings,
    RotateSettings,
    ScrubSettings,
    ServeSettings,
    WorkerSettings,
    flags_of,
)
from deploy.compose import FOLDER, read
from deploy.containers import DEPLOY, ROOT, image_environ
from deploy.kubernetes import MANIFESTS, kustomize, of_kind, render

PROGRAMS = {
    "main-worker": MainSettings,
    "proc-worker": WorkerSettings,
    "serve": ServeSettings,
    "admin-key": AdminKeySettings,
    "doctor": DoctorSettings,
    "health": HealthSettings,
    "rotate": RotateSettings,
    "scrub": ScrubSettings,
}
POD_FIELDS = {"POD_NAME", "POD_IP"}
OPERATIONS = ROOT / "docs" / "operations.md"


def program_of(command):
    return command[1] if command[0] == "deltadb" else command[0]


def flags(program):
    declared = [flag for _, flag in flags_of(PROGRAMS[program])]
    names = {name for flag in declared for name in (flag.name, *flag.aliases)}
    return names | {f"{flag.name}-file" for flag in declared if flag.is_secret}


def variables(program):
    return {name for _, flag in flags_of(PROGRAMS[program]) for name in flag.env_names}


def used_flags(command):
    return {
        part.lstrip("-").partition("=")[0] for part in command if re.match(r"--?[a-z][a-z0-9-]*(=|$)", part)
    }


def containers():
    """(where, command line, variables) of every container of ours and of its health checks."""
    for path in sorted(FOLDER.glob("*.yml")):
        for name, service in read(path)["services"].items():
            if "deltadatabase" in service["image"]:
                environ = set(service.get("environment") or {})
                yield f"{path.name}: {name}", service["command"], environ
                yield f"{path.name}: {name}, health", service["healthcheck"]["test"][1:], set()
    everything = {"tls": {"enabled": True}, "metrics": {"enabled": True}}
    sets = {"base": kustomize(MANIFESTS), "chart": render(everything)}
    sets |= {path.name: kustomize(path) for path in (DEPLOY / "kustomize").iterdir()}
    for name, objects in sets.items():
        for deployment in of_kind(objects, "Deployment"):
            for container in deployment["spec"]["template"]["spec"]["containers"]:
                where = f"{name}: {deployment['metadata']['name']}"
                yield where, container["args"], {each["name"] for each in container["env"]} - POD_FIELDS
                for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
                    if "exec" in container[kind]:
                        yield f"{where}, {kind}", container[kind]["exec"]["command"], set()


def test_flags_and_variables_of_every_container_exist():
    seen = 0
    for where, command, environ in containers():
        program = program_of(command)
        assert used_flags(command) <= flags(program), where
        assert environ <= variables(program), where
        seen += 1
    assert seen > 30


def test_variables_of_the_image_exist():
    known = set().union(*(variables(program) for program in PROGRAMS))
    assert image_environ().keys() <= known and len(image_environ()) == 3
    scripts = "".join(path.read_text() for path in (DEPLOY / "docker").glob("*.sh"))
    used = set(re.findall(r"DELTADB_[A-Z_]+", scripts))
    assert used and used <= known


def documented_commands():
    text = OPERATIONS.read_text()
    blocks = "".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL)).replace("\\\n", " ").splitlines()
    return [line for line in [*blocks, *re.findall(r"`([^`\n]+)`", text)] if line.strip()]


def test_our_commands_in_the_operations_manual_exist():
    found = 0
    for line in documented_commands():
        for start in re.finditer(r"(?:^|\s)(deltadb [a-z-]+|main-worker|proc-worker)(?= -)", line):
            command = shlex.split(line[start.start() :])
            found += 1
            assert used_flags(command) <= flags(program_of(command)), line
    assert found > 8


def test_files_in_the_operations_manual_exist():
    names = set(re.findall(r"deploy/[A-Za-z0-9_./-]+", OPERATIONS.read_text()))
    assert len(names) > 8
    # Written beside this: deploy/monitoring.
    missing = {name for name in names if not (ROOT / name).exists() and "monitoring/" not in name}
    assert not missing


def test_services_and_resources_in_the_operations_manual_exist():
    text = OPERATIONS.read_text()
    for name, rest in re.findall(r"docker compose -f \S*/(docker-compose\.\S+\.yml) (.*)", text):
        services = read(FOLDER / name)["services"]
        if (found := re.match(r"(?:exec|stop|start|cp) ([a-z-]+)", rest)) is not None:
            assert found[1] in services
        if (scaled := re.search(r"--scale ([a-z-]+)=", rest)) is not None:
            assert scaled[1] in services
    deployments = {each["metadata"]["name"] for each in of_kind(kustomize(MANIFESTS), "Deployment")}
    assert set(re.findall(r"deployment/([a-z-]+)", text)) == deployments
