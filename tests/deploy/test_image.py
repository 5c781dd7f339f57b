"""The image, as far as it can be proven without a builder: its recipe and its two scripts."""

from __future__ import annotations

import os
import re
import subprocess
from fnmatch import fnmatch

import pytest
import yaml

from deploy.compose import FOLDER
from deploy.containers import DEPLOY, DOCKERFILE, ENTRYPOINT, ROOT
from deploy.kubernetes import MANIFESTS, kustomize, of_kind

RECIPE = DOCKERFILE.read_text()
STAGES = re.split(r"^(?=FROM )", RECIPE, flags=re.MULTILINE)[1:]


def ignored(path):
    """Whether .dockerignore keeps a path of the checkout out of the build."""
    kept = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!").removeprefix("**/")
        parts = path.split("/")
        ways = ["/".join(parts[:end]) for end in range(1, len(parts) + 1)]
        if line and not line.startswith("#") and any(fnmatch(way, pattern) for way in [*ways, *parts]):
            kept = line.startswith("!")
    return not kept


def test_what_is_copied_is_there_and_reaches_the_builder():
    sources = re.findall(r"^COPY (?:--chmod=\S+ )?([^-\s]\S*) ", RECIPE, re.MULTILINE)
    assert {"pyproject.toml", "src", "README.md"} <= set(sources)
    for source in sources:
        assert (ROOT / source).exists() and not ignored(source), source
    for secret in (
        "shared/db/_state/master-key",
        ".git/config",
        "tests/conftest.py",
        "src/a/__pycache__/b.pyc",
    ):
        assert ignored(secret), secret


def test_the_base_is_pinned_and_the_last_stage_builds_nothing():
    assert re.search(r"^ARG PYTHON_IMAGE=python:3\.\d+\.\d+-slim-\w+$", RECIPE, re.MULTILINE)
    assert all(stage.startswith("FROM ${PYTHON_IMAGE}") for stage in STAGES)
    assert "ARG PIP_INDEX_URL" in STAGES[0] and "--only-binary :all:" in STAGES[0]
    assert not re.search(r"pip install|apt-get|gcc|build-essential", STAGES[-1])


def test_it_is_nobody_in_particular():
    """The same number everywhere, so that volumes belong to it and Kubernetes sees that it is not root."""
    (user,) = re.findall(r"^USER (\d+):(\d+)$", STAGES[-1], re.MULTILINE)
    for deployment in of_kind(kustomize(MANIFESTS), "Deployment"):
        security = deployment["spec"]["template"]["spec"]["securityContext"]
        assert (str(security["runAsUser"]), str(security["fsGroup"])) == user
    # What a fresh named volume gets its owner from.
    mounted = {
        volume.partition(":")[2].partition(":")[0]
        for path in FOLDER.glob("*.yml")
        for name, service in yaml.safe_load(path.read_text())["services"].items()
        if name in {"deltadb", "main-worker", "proc-worker"}
        for volume in service["volumes" if "volumes" in service else "tmpfs"]
    }
    owned = re.findall(r"install -d -o (\d+) -g (\d+) -m \d+ (.*?)(?: \\)?$", STAGES[-1], re.MULTILINE)
    folders = {folder for owner, group, names in owned if (owner, group) == user for folder in names.split()}
    assert mounted - {""} <= folders


@pytest.mark.parametrize(
    ("given", "run"),
    [
        ("deltadb serve", "deltadb serve rest=0.0.0.0:8080 grpc="),
        ("", "deltadb serve rest=0.0.0.0:8080 grpc="),
        ("serve -memory", "deltadb serve -memory rest=0.0.0.0:8080 grpc="),
        ("-workers=2", "deltadb serve -workers=2 rest=0.0.0.0:8080 grpc="),
        ("admin-key", "deltadb admin-key rest=0.0.0.0:8080 grpc="),
        ("health -ready", "deltadb health -ready rest=0.0.0.0:8080 grpc="),
        ("main-worker -dev=false", "main-worker -dev=false rest=0.0.0.0:8080 grpc=0.0.0.0:50051"),
        ("proc-worker", "proc-worker rest= grpc=0.0.0.0:50052"),
        ("sh -c true", ""),
    ],
)
def test_the_entry_point_chooses_the_program(tmp_path, given, run):
    for name in ("deltadb", "main-worker", "proc-worker"):
        program = tmp_path / name
        program.write_text(f'#!/bin/sh\necho {name} "$@" rest=$DELTADB_REST_ADDR grpc=$DELTADB_GRPC_ADDR\n')
        program.chmod(0o755)
    done = subprocess.run(
        ["sh", ENTRYPOINT, *given.split()],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == run


def test_what_is_given_outranks_the_entry_point(tmp_path):
    program = tmp_path / "proc-worker"
    program.write_text("#!/bin/sh\necho $DELTADB_GRPC_ADDR\n")
    program.chmod(0o755)
    environ = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "DELTADB_GRPC_ADDR": "0.0.0.0:1"}
    done = subprocess.run(
        ["sh", ENTRYPOINT, "proc-worker"], env=environ, capture_output=True, text=True, check=True
    )
    assert done.stdout == "0.0.0.0:1\n"


def test_both_scripts_are_in_the_image():
    for name in ("entrypoint", "healthcheck"):
        assert f"deploy/docker/{name}.sh /usr/local/bin/deltadb-{name}" in STAGES[-1]
        assert (DEPLOY / "docker" / f"{name}.sh").stat().st_mode & 0o111
    assert 'ENTRYPOINT ["/usr/local/bin/deltadb-entrypoint"]' in STAGES[-1]
    assert 'CMD ["/usr/local/bin/deltadb-healthcheck"]' in STAGES[-1]
