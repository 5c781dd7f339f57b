"""Each program as a process: how it starts, what it says when it can't, and how it ends."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from support.programs import Program, Programs, free_port, wait_for, wait_until_ready
from support.weed import READER_ACCESS_KEY, READER_SECRET_KEY, running_weed

from integration.cluster import (
    ADMIN_KEY,
    MARKER,
    MASTER_KEY,
    Cluster,
    discreet_programs,
    get,
    load,
    not_ready,
    probe,
    put,
    s3_arguments,
    secrets_in,
)

pytestmark = pytest.mark.integration

END_S = 10.0
COMMANDS = (
    "deltadb serve",
    "deltadb admin-key",
    "deltadb scrub",
    "deltadb doctor",
    "main-worker",
    "proc-worker",
)


@pytest.fixture
def started(tmp_path) -> Iterator[Programs]:
    with discreet_programs(tmp_path) as programs:
        yield programs


def one_line(done: subprocess.CompletedProcess[str], command: str) -> str:
    """What a program says that refuses to start: one line, and nothing else."""
    assert done.returncode == 2, done
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith(f"{command}: "), done.stderr
    assert secrets_in(done.stderr) == []
    return lines[0]


def run(started: Programs, command: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a command line to its end; it logs errors only."""
    return started.run(*shlex.split(command), environ={"DELTADB_LOG_LEVEL": "error", **environ})


def ends(program: Program, number: signal.Signals = signal.SIGTERM) -> None:
    """The program ends on a signal, in time and without an error."""
    program.signal(number)
    wait_end(program)


def wait_end(program: Program, timeout_s: float = END_S) -> None:
    try:
        code = program.wait(timeout_s)
    except subprocess.TimeoutExpired:
        raise AssertionError(f"{program.name} goes on:\n{program.output[-3000:]}") from None
    assert code == 0, program.output


@pytest.fixture
def occupied() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


# The command line


@pytest.mark.parametrize("command", [*COMMANDS, "deltadb"])
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help(started, command, flag):
    done = run(started, f"{command} {flag}")
    assert (done.returncode, done.stderr) == (0, "")
    assert command in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_flag_is_one_line(started, command):
    assert "-bogus" in one_line(run(started, f"{command} -bogus=1"), command)


@pytest.mark.parametrize(
    "command",
    [
        "deltadb serve -rest-addr=nowhere",
        "deltadb serve -workers=many",
        "main-worker -client-ttl=soon",
        "main-worker -master-key=abc",
        "main-worker -dev -rest-addr=0.0.0.0:0",
        "proc-worker -cache-bytes=-1",
        "proc-worker -s3-endpoint=http://127.0.0.1:1",
    ],
)
def test_a_bad_value_is_one_line(started, command):
    one_line(run(started, command), command.split(" -")[0])


@pytest.mark.parametrize(
    "command",
    [
        "deltadb serve -memory -rest-addr=127.0.0.1:{port}",
        "deltadb serve -data=db -workers=1 -rest-addr=127.0.0.1:0 -grpc-addr=127.0.0.1:{port}",
        "main-worker -dev -grpc-addr=127.0.0.1:0 -rest-addr=127.0.0.1:{port}",
        "main-worker -dev -rest-addr=127.0.0.1:0 -grpc-addr=127.0.0.1:{port}",
        "proc-worker -grpc-addr=127.0.0.1:{port}",
    ],
)
def test_an_occupied_port_is_one_line(started, occupied, command):
    line = one_line(run(started, command.format(port=occupied)), command.split(" -")[0])
    assert str(occupied) in line


# The end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_idle_programs_end(started, number):
    rest, memory_rest, unreachable = free_port(), free_port(), free_port()
    cluster = Cluster(started, ["-shared-fs=cluster"], started.folder / "state")
    serve = started.start("deltadb", "serve", f"-rest-addr=127.0.0.1:{rest}", "-data=db")
    memory = started.start("deltadb", "serve", f"-rest-addr=127.0.0.1:{memory_rest}", "-memory")
    alone = started.start("proc-worker", f"-main-addr=127.0.0.1:{unreachable}", "-worker-id=alone")
    cluster.start("proc-1", "proc-2")
    wait_until_ready(f"http://127.0.0.1:{rest}", serve)
    wait_until_ready(f"http://127.0.0.1:{memory_rest}", memory)
    wait_for(lambda: "cannot be reached" in alone.output, "the worker without a main worker runs")
    for program in (serve, memory, alone, cluster.workers["proc-1"]):
        ends(program, number)
    ends(cluster.main, number)
    # Its main worker is gone already.
    ends(cluster.workers["proc-2"], number)


def test_a_cluster_ends_under_load(started):
    cluster = Cluster(started, ["-shared-fs=cluster"], started.folder / "state").start("proc-1", "proc-2")
    with load(cluster.url) as statuses:
        ends(cluster.workers["proc-1"])
        before = statuses[200]
        wait_for(lambda: statuses[200] > before + 50, "the load goes on")
        assert set(statuses) == {200}, "a worker that ends fails no request"
        ends(cluster.main)
        ends(cluster.workers["proc-2"])
    assert set(statuses) <= {0, 200, 503}


def test_serve_ends_under_load(started):
    port = free_port()
    serve = started.start("deltadb", "serve", f"-rest-addr=127.0.0.1:{port}", "-data=db")
    wait_until_ready(f"http://127.0.0.1:{port}", serve)
    with load(f"http://127.0.0.1:{port}") as statuses:
        ends(serve)
    assert set(statuses) <= {0, 200, 503}


# The store


def nowhere() -> tuple[str, ...]:
    """Flags of an S3 server that nobody runs."""
    return (
        f"-s3-endpoint=http://127.0.0.1:{free_port()}",
        "-s3-bucket=delta-nowhere",
        "-s3-access-key=anybody",
        f"-s3-secret-key={MARKER}",
    )


def test_an_unreachable_store_is_waited_for(started):
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    serve = started.start("deltadb", "serve", f"-rest-addr=127.0.0.1:{port}", "-data=db", *nowhere())
    cluster = Cluster(started, nowhere(), started.folder / "state")
    cluster.start_main()
    worker = cluster.start_worker("proc-1")
    wait_for(lambda: "does not answer yet" in serve.output, "serve waits")
    wait_for(lambda: "does not answer yet" in worker.output, "the worker waits")
    for each in (url, cluster.url):
        assert not_ready(each)
        assert probe(each, "/livez")[0] == probe(each, "/health")[0] == 200
        assert put(each, "a", "1").status_code == 503
    for program in (serve, worker, cluster.main):
        ends(program)


def test_after_the_wait_it_is_one_line(started):
    done = run(
        started, shlex.join(["deltadb", "serve", "-rest-addr=127.0.0.1:0", "-store-wait=1s", *nowhere()])
    )
    assert "not reachable within 1 s" in one_line(done, "deltadb serve")
    cluster = Cluster(started, nowhere(), started.folder / "state")
    cluster.start_main()
    worker = cluster.start_worker("proc-1", "-store-wait=1s", "-log-level=error")
    assert worker.wait() == 2
    assert len(worker.output.splitlines()) == 1 and "not reachable within 1 s" in worker.output
    wait_for(lambda: probe(cluster.url, "/readyz")[0] == 503, "the main worker goes on")
    checks = {check["name"]: check["code"] for check in probe(cluster.url, "/readyz")[1]["checks"]}
    assert (checks["workers"], checks["store"]) == ("no_worker", "store_unreachable")
    assert probe(cluster.url, "/livez")[0] == 200
    ends(cluster.main)


@pytest.mark.parametrize(
    ("credentials", "says"),
    [
        ((READER_ACCESS_KEY, READER_SECRET_KEY), "may not create it"),
        ((READER_ACCESS_KEY, MARKER), "credentials"),
    ],
    ids=["may not create buckets", "wrong secret"],
)
def test_a_bucket_that_cannot_be_made_is_one_line(started, weed, credentials, says):
    access_key, secret_key = credentials
    command = [
        "deltadb",
        "serve",
        "-rest-addr=127.0.0.1:0",
        "-store-wait=2s",
        f"-s3-endpoint={weed.endpoint}",
    ]
    done = run(
        started,
        shlex.join([*command, "-s3-bucket=delta-unmade"]),
        S3_ACCESS_KEY=access_key,
        S3_SECRET_KEY=secret_key,
    )
    assert says in one_line(done, "deltadb serve")


def test_a_store_lost_later_ends_no_process(started, tmp_path):
    with running_weed(tmp_path / "weed") as weed:
        cluster = Cluster(started, s3_arguments(weed, "delta-lost"), tmp_path / "state").start("proc-1")
        assert put(cluster.url, "a", f'"{MARKER}"').status_code == 200
        weed.pause()
        assert put(cluster.url, "b", f'"{MARKER}"').status_code in (503, 504)
        assert probe(cluster.url, "/livez")[0] == 200
        weed.resume()
        wait_for(lambda: put(cluster.url, "b", f'"{MARKER}"').status_code == 200, "writes go on")
        assert get(cluster.url, "a").json() == MARKER
        weed.pause()
        statuses: list[int] = []
        writing = threading.Thread(
            target=lambda: statuses.append(put(cluster.url, "c", f'"{MARKER}"').status_code)
        )
        writing.start()
        time.sleep(0.5)
        ends(cluster.workers["proc-1"])
        writing.join()
        assert statuses[0] in (503, 504)
        ends(cluster.main)
        weed.resume()


# deltadb serve


def children(program: Program) -> list[int]:
    """Processes that a program started."""
    pid = program.process.pid
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def runs(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_serve_keeps_its_workers_running(started):
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    serve = started.start(
        "deltadb",
        "serve",
        "-workers=2",
        f"-rest-addr=127.0.0.1:{port}",
        "-data=db",
        environ={"MASTER_KEY": MASTER_KEY, "ADMIN_KEY": ADMIN_KEY},
    )
    wait_until_ready(url, serve, workers=2)
    with httpx.Client(base_url=url, headers={"authorization": f"Bearer {ADMIN_KEY}"}, timeout=20.0) as client:
        keys = [f"k{number}" for number in range(50)]
        assert client.put("/entity/notes", json=dict.fromkeys(keys, MARKER)).status_code == 200
        before = children(serve)
        assert len(before) == 2
        for pid in before:
            environ = Path(f"/proc/{pid}/environ").read_bytes() + Path(f"/proc/{pid}/cmdline").read_bytes()
            assert MASTER_KEY.encode() not in environ and ADMIN_KEY.encode() not in environ
        os.kill(before[0], signal.SIGKILL)
        wait_for(lambda: not runs(before[0]), "the child is gone")
        wait_until_ready(url, serve, workers=2)
        assert len(children(serve)) == 2
        for key in keys:
            assert client.get("/entity/notes", params={"key": key}).json() == MARKER
    left = children(serve)
    ends(serve)
    assert [pid for pid in left if runs(pid)] == []


def test_a_killed_server_leaves_no_worker_behind(started):
    port = free_port()
    serve = started.start("deltadb", "serve", "-workers=2", f"-rest-addr=127.0.0.1:{port}", "-data=db")
    wait_until_ready(f"http://127.0.0.1:{port}", serve, workers=2)
    left = children(serve)
    serve.kill()
    wait_for(lambda: not any(runs(pid) for pid in left), "the workers end, too")


def test_a_worker_that_refuses_ends_the_server(started):
    port = free_port()
    arguments = ("serve", "-workers=1", f"-rest-addr=127.0.0.1:{port}", "-data=db")
    first = started.start("deltadb", *arguments, environ={"MASTER_KEY": MASTER_KEY})
    wait_until_ready(f"http://127.0.0.1:{port}", first)
    ends(first)
    other = started.start("deltadb", *arguments, environ={"MASTER_KEY": "b8" * 32})
    assert other.wait() == 2
    assert "deltadb serve: a proc worker refused to start" in other.output
    assert "the master key is not the one" in other.output


def test_serve_in_memory(started):
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    for _ in range(2):
        serve = started.start("deltadb", "serve", "-memory", f"-rest-addr=127.0.0.1:{port}")
        wait_until_ready(url, serve)
        assert get(url, "a").status_code == 404
        assert put(url, "a", f'"{MARKER}"').json()["versions"] == {"a": 1}
        assert get(url, "a").json() == MARKER
        ends(serve)
    assert MARKER not in "".join(path.read_text() for path in started.folder.rglob("*.json"))


def test_the_keys_that_are_made_are_private_and_kept(started):
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    arguments = ("serve", f"-rest-addr=127.0.0.1:{port}", "-dev=false", "-data=db")
    assert "no admin key" in one_line(run(started, "deltadb admin-key -data=db"), "deltadb admin-key")
    state = started.folder / "db" / "_state"
    kept: list[str] = []
    for _ in range(2):
        serve = started.start("deltadb", *arguments)
        wait_until_ready(url, serve)
        done = run(started, "deltadb admin-key -data=db")
        assert (done.returncode, done.stderr) == (0, "")
        key = done.stdout.strip()
        assert "deltadb admin-key" in put(url, "a", "1").json()["detail"]
        headers = {"authorization": f"Bearer {key}"}
        assert httpx.get(f"{url}/api/me", headers=headers).json()["is_admin"] is True
        kept.append(key + (state / "master-key").read_text())
        modes = {path.name: path.stat().st_mode & 0o777 for path in state.iterdir()}
        assert state.stat().st_mode & 0o777 == 0o700
        assert {modes["admin-key"], modes["master-key"], modes["accounts.db"]} == {0o600}
        ends(serve)
    assert kept[0] == kept[1]
