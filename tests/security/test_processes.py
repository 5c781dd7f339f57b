"""What other programs of the same machine can learn: cores, arguments, environments, logs."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from integration.cluster import Cluster
from support.discretion import ADMIN_KEY, JOIN_TOKEN, MARKER, MASTER_KEY, SECRETS
from support.programs import Program, Programs, free_port, wait_for, wait_until_ready

from security.attacker import ADMIN

pytestmark = pytest.mark.integration


def core_limit(pid: int) -> str:
    """The soft limit of a process's core files."""
    for line in Path(f"/proc/{pid}/limits").read_text().splitlines():
        if line.startswith("Max core file size"):
            return line.split()[4]
    raise AssertionError("no such limit")


def children_of(pid: int) -> list[int]:
    """The processes that a process has started."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT])
def test_a_crash_of_any_program_leaves_no_core(guarded, number):
    programs = [guarded.workers["one"], guarded.main]
    for program in programs:
        assert core_limit(program.process.pid) == "0"
    for program in programs:
        program.signal(number)
        assert program.wait() == -number
    pids = {str(program.process.pid) for program in programs}
    left = [path for path in guarded.state.parent.rglob("*core*") if path.is_file()]
    assert [path for path in left if path.name == "core" or pids & set(path.name.split("."))] == []


def test_the_limit_is_what_prevents_the_core(tmp_path):
    """The test above could not fail where no program leaves cores: one without the limit does."""
    pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
    if pattern.startswith(("|", "/")):
        pytest.skip("the kernel puts cores elsewhere here")
    crash = (
        "import os, resource; hard = resource.getrlimit(resource.RLIMIT_CORE)[1]; "
        "resource.setrlimit(resource.RLIMIT_CORE, (hard, hard)); os.abort()"
    )
    ended = subprocess.run([sys.executable, "-c", crash], cwd=tmp_path, check=False)
    assert ended.returncode == -signal.SIGABRT
    if not list(tmp_path.glob("core*")):
        pytest.skip("this machine's hard limit allows no cores")


def test_a_program_that_holds_keys_is_not_dumpable():
    """Then no other program of its user may read its memory or its environment either."""
    asked = (
        "import ctypes; from deltadatabase.cli import main; "
        "before = ctypes.CDLL(None).prctl(3, 0, 0, 0, 0); "
        "main.run_proc_worker(['-no-such-flag'], {}); "
        "print(before, ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"
    )
    ran = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["1", "0"]


def started_serve(started: Programs, tmp_path: Path) -> tuple[Program, str]:
    port = free_port()
    program = started.start(
        "deltadb",
        "serve",
        f"-rest-addr=127.0.0.1:{port}",
        f"-data={tmp_path / 'db'}",
        "-workers=2",
        environ={"MASTER_KEY": MASTER_KEY, "ADMIN_KEY": ADMIN_KEY, "JOIN_TOKEN": JOIN_TOKEN},
    )
    url = f"http://127.0.0.1:{port}"
    wait_until_ready(url, program, workers=2)
    return program, url


def test_no_process_that_we_start_has_a_key_on_its_command_line_or_one_it_does_not_need(started, tmp_path):
    program, url = started_serve(started, tmp_path)
    assert httpx.put(f"{url}/entity/notes", json={"a": MARKER}, headers=ADMIN).status_code == 200
    children = children_of(program.process.pid)
    workers = [pid for pid in children if b"local-worker" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert len(workers) == 2
    for pid in [program.process.pid, *children]:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().decode()
        assert [secret for secret in SECRETS if secret in command] == []
        assert core_limit(pid) == "0"
    for pid in workers:
        environment = Path(f"/proc/{pid}/environ").read_bytes().decode()
        assert JOIN_TOKEN in environment, "it is what a worker needs"
        assert MASTER_KEY not in environment
        assert ADMIN_KEY not in environment


def test_files_with_secrets_are_for_their_owner_only(started, tmp_path):
    program, url = started_serve(started, tmp_path)
    httpx.put(f"{url}/entity/notes", json={"a": MARKER}, headers=ADMIN).raise_for_status()
    made = httpx.post(f"{url}/api/keys", json={"name": "k", "permissions": ["read"]}, headers=ADMIN).json()
    program.stop()
    files = [path for path in (tmp_path / "db").rglob("*") if path.is_file()]
    assert files
    for path in files:
        assert path.stat().st_mode & 0o077 == 0, path.name
        content = path.read_bytes()
        for secret in (MASTER_KEY, ADMIN_KEY, MARKER, made["secret"]):
            assert secret.encode() not in content, path.name
        assert bytes.fromhex(MASTER_KEY) not in content, path.name


@pytest.mark.parametrize("form", ["text", "json"])
def test_what_callers_send_forges_no_log_line(started, tmp_path, form):
    cluster = Cluster(
        started,
        (f"-shared-fs={tmp_path / 'db'}",),
        tmp_path / "state",
        {"MASTER_KEY": MASTER_KEY, "ADMIN_KEY": ADMIN_KEY},
    )
    cluster.start_main("-log-level=debug", f"-log-format={form}")
    cluster.answers()
    forged = "2026-01-01T00:00:00Z [info] forged"
    for evil in (f"a\n{forged}", f"a\r{forged}", f"a\x1b[2J{forged}", f"a\u2028{forged}", f"a\x85{forged}"):
        quoted = httpx.QueryParams({"key": evil})
        httpx.get(f"{cluster.url}/entity/notes?{quoted}", headers=ADMIN)
        body = {"name": evil, "permissions": ["read"]}
        httpx.post(f"{cluster.url}/api/keys", json=body, headers=ADMIN)
        httpx.post(f"{cluster.url}/api/login", json={"key": evil})
    wait_for(lambda: cluster.main.output, "something was logged")
    assert "\x1b" not in cluster.main.output
    for line in cluster.main.output.splitlines():
        assert not line.startswith(forged), line
