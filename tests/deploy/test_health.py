"""``deltadb health``, which the health checks of images, Compose files and manifests run."""

from __future__ import annotations

import signal

import pytest
from integration.cluster import Cluster
from support.certificates import Authority, flags
from support.programs import free_port, programs, wait_for

pytestmark = pytest.mark.integration


@pytest.fixture
def cluster(tmp_path):
    with programs(tmp_path) as started:
        yield Cluster(started, [f"-shared-fs={tmp_path / 'data'}"], tmp_path / "state")


def ask(cluster, *arguments, environ=None):
    done = cluster.programs.run("deltadb", "health", *arguments, environ=environ)
    return done.returncode, (done.stdout + done.stderr).strip()


def test_each_program_says_when_it_lives_and_when_it_serves(cluster):
    main, worker = f"-url={cluster.url}", f"-grpc-addr=0.0.0.0:{free_port()}"
    assert ask(cluster, main)[0] == 1  # Nobody is there.
    assert ask(cluster, worker)[0] == 1
    cluster.start_main()
    cluster.answers()
    assert ask(cluster, main) == (0, "ok")
    code, why = ask(cluster, main, "-ready")
    assert code == 1 and "no_worker" in why
    cluster.start_worker("one", worker)
    cluster.ready(1)
    assert ask(cluster, main, "-ready") == (0, "ok")
    assert ask(cluster, worker) == (0, "ok")
    assert ask(cluster, environ={"DELTADB_HEALTH_GRPC_ADDR": worker.partition("=")[2]}) == (0, "ok")
    wait_for(lambda: ask(cluster, worker, "-ready") == (0, "ok"), "the worker says that it serves", 5)
    # A worker without its main worker lives on, and is not ready.
    cluster.main.kill()
    wait_for(lambda: ask(cluster, worker, "-ready")[0] == 1, "the worker says that it serves no more", 5)
    assert ask(cluster, worker) == (0, "ok")
    # A main worker's own listener knows no service of a proc worker.
    cluster.start_main()
    cluster.answers()
    assert ask(cluster, f"-grpc-addr=127.0.0.1:{cluster.grpc_port}")[0] == 0
    assert ask(cluster, f"-grpc-addr=127.0.0.1:{cluster.grpc_port}", "-ready")[0] == 1
    wait_for(lambda: ask(cluster, worker, "-ready") == (0, "ok"), "the worker has joined again", 5)


def test_who_does_not_answer_in_time_is_unwell(cluster):
    cluster.start_main()
    cluster.answers()
    cluster.main.signal(signal.SIGSTOP)
    code, why = ask(cluster, f"-url={cluster.url}", "-timeout=300ms")
    cluster.main.signal(signal.SIGCONT)
    assert code == 1 and "does not answer" in why


@pytest.mark.parametrize(
    "arguments", [["-url=nonsense"], ["-grpc-addr=127.0.0.1"], ["-tls-ca=/nowhere"], ["-redy"]]
)
def test_what_cannot_be_asked_is_refused(cluster, arguments):
    assert ask(cluster, *arguments)[0] == 2


def test_with_certificates(cluster, tmp_path):
    authority = Authority()
    # A name of the certificate that is not the address which is asked.
    files = authority.issue(["db.internal"]).write(tmp_path / "tls", authority.cert)
    tls = flags(files, "-tls-client-auth", "-tls-server-name=db.internal")
    worker = f"-grpc-addr=127.0.0.1:{free_port()}"
    cluster.start_main(*tls)
    cluster.start_worker("one", worker, *tls)
    url = f"-url=https://127.0.0.1:{cluster.rest_port}"
    wait_for(lambda: ask(cluster, url, "-ready", *tls) == (0, "ok"), "data is served")
    wait_for(lambda: ask(cluster, worker, "-ready", *tls) == (0, "ok"), "the worker serves")
    stranger = Authority("stranger")
    other = stranger.issue(["db.internal"]).write(tmp_path / "other", stranger.cert)
    for asked in (url, worker):
        assert ask(cluster, asked, *flags(other), "-tls-server-name=db.internal")[0] == 1
        assert ask(cluster, asked, *flags(files), "-tls-server-name=else.internal")[0] == 1
    assert ask(cluster, worker)[0] == 1
