"""TLS between real processes: who gets in, what is spoken, certificates that change, and bad files."""

from __future__ import annotations

import contextlib
import datetime as dt
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519
from grpc_health.v1 import health_pb2, health_pb2_grpc
from support.certificates import Authority, Pair, flags
from support.programs import Program, Programs, free_port, wait_for

from integration.cluster import ADMIN_KEY, Cluster, discreet_programs, get, load, put
from integration.test_https import OUTDATED, spoken

pytestmark = pytest.mark.integration

METHODS = [
    "/deltadatabase.v1.MainWorker/Subscribe",
    "/deltadatabase.v1.MainWorker/Process",
    "/deltadatabase.v1.ProcWorker/Exchange",
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    "/no.Such/Method",
]
NAME = "deltadb.internal"


class TlsCluster(Cluster):
    """A cluster whose REST API is spoken to over TLS."""

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.rest_port}"


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """An authority that httpx trusts."""
    made = Authority()
    path = tmp_path / "trusted.pem"
    path.write_bytes(made.cert)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    return made


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Programs]:
    with discreet_programs(tmp_path) as started:
        yield started


def cluster_in(folder: Path, programs: Programs) -> TlsCluster:
    return TlsCluster(programs, [f"-shared-fs={folder / 'db'}"], folder / "state")


def credentials(pair: Pair | None, authority: Authority) -> grpc.ChannelCredentials:
    if pair is None:
        return grpc.ssl_channel_credentials(authority.cert)
    return grpc.ssl_channel_credentials(authority.cert, pair.key, pair.cert)


def called(channel: grpc.Channel, method: str) -> grpc.StatusCode:
    """Call a method with an empty message; what came of it."""
    try:
        list(channel.stream_stream(method)(iter([b""]), timeout=2))
    except grpc.RpcError as exc:
        return exc.code()
    return grpc.StatusCode.OK


def serving_health(channel: grpc.Channel) -> bool:
    answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
    return answer.status == health_pb2.HealthCheckResponse.SERVING


def shown_serial(
    port: int, authority: Authority, pair: Pair | None = None, folder: Path | None = None
) -> int:
    """The serial number of the certificate that a new connection sees."""
    context = ssl.create_default_context(cadata=authority.cert.decode())
    context.check_hostname = False
    context.set_alpn_protocols(["h2", "http/1.1"])
    if pair is not None and folder is not None:
        pair.write(folder)
        context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    with (
        socket.create_connection(("127.0.0.1", port), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
    ):
        shown = secure.getpeercert(binary_form=True)
    assert shown is not None
    return x509.load_der_x509_certificate(shown).serial_number


# -- who gets in -----------------------------------------------------------------------


def test_a_cluster_with_mutual_tls_lets_nobody_else_in(tmp_path, running, authority):
    cluster = cluster_in(tmp_path, running)
    files = authority.issue().write(tmp_path / "files", authority.cert)
    mutual = flags(files, "-tls-client-auth")
    worker_port = free_port()
    cluster.start_main(*mutual)
    cluster.start_worker("w1", *mutual, f"-grpc-addr=127.0.0.1:{worker_port}")
    cluster.start_worker("w2", *mutual)
    cluster.ready(2)
    for number in range(20):
        assert put(cluster.url, f"k{number}", "1").status_code == 200
        assert get(cluster.url, f"k{number}").text == "1"

    strangers = Authority()
    callers = {
        "no certificate": None,
        "another authority": strangers.issue(),
        "expired": authority.issue(ends=dt.timedelta(minutes=-1)),
        "not valid yet": authority.issue(begins=dt.timedelta(hours=1), ends=dt.timedelta(hours=2)),
    }
    ours = authority.issue(["a-client"])
    for port in (cluster.grpc_port, worker_port):
        address = f"127.0.0.1:{port}"
        # That the refusals below are about the certificate: with one of ours, all of it answers.
        with grpc.secure_channel(address, credentials(ours, authority)) as channel:
            assert serving_health(channel)
            assert grpc.StatusCode.UNAVAILABLE not in {called(channel, method) for method in METHODS}
        for caller, pair in callers.items():
            with grpc.secure_channel(address, credentials(pair, authority)) as channel:
                for method in METHODS:
                    assert called(channel, method) is grpc.StatusCode.UNAVAILABLE, (caller, method)
        with grpc.insecure_channel(address) as channel:
            assert called(channel, METHODS[3]) is grpc.StatusCode.UNAVAILABLE

    # Nobody was harmed by it, and REST asks for no certificate at all.
    assert put(cluster.url, "after", "2").status_code == 200
    assert cluster.stop() == [0, 0, 0]


def test_a_server_without_mutual_tls_asks_for_no_certificate(tmp_path, running, authority):
    cluster = cluster_in(tmp_path, running)
    files = authority.issue().write(tmp_path / "files", authority.cert)
    cluster.start_main(*flags(files))
    cluster.start_worker("w1", *flags(files))
    cluster.ready(1)
    with grpc.secure_channel(f"127.0.0.1:{cluster.grpc_port}", credentials(None, authority)) as channel:
        assert serving_health(channel)


def test_a_worker_whose_certificate_carries_another_name_is_not_dialled(tmp_path, running, authority):
    cluster = cluster_in(tmp_path, running)
    named = [f"-tls-server-name={NAME}", "-tls-client-auth"]
    # The REST API is called by its address, the gRPC ports by the name.
    main = authority.issue([NAME, "127.0.0.1"]).write(tmp_path / "main", authority.cert)
    good = authority.issue([NAME]).write(tmp_path / "good", authority.cert)
    other = authority.issue(["other.internal", "127.0.0.1"]).write(tmp_path / "other", authority.cert)
    cluster.start_main(*flags(main, *named))
    cluster.start_worker("good", *flags(good, *named))
    cluster.ready(1)
    turned_away = cluster.start_worker("other", *flags(other, *named))
    wait_for(lambda: "worker_unreachable" in turned_away.output, "the worker is told so")
    time.sleep(2)
    assert "worker serves" not in turned_away.output
    cluster.ready(1)
    assert put(cluster.url, "k", "1").status_code == 200
    # A worker that expects another name of the main worker never gets as far as to join.
    choosy = cluster.start_worker(
        "choosy", *flags(good, "-tls-server-name=main.internal", "-tls-client-auth")
    )
    wait_for(lambda: "not a member" in choosy.output, "it says that it is no member")
    assert "=worker_unreachable" not in choosy.output and "worker serves" not in choosy.output
    cluster.ready(1)


def test_serve_hands_all_of_it_to_its_workers(tmp_path, running, authority):
    files = authority.issue([NAME, "127.0.0.1"]).write(tmp_path / "files", authority.cert)
    rest, control = free_port(), free_port()
    server = running.start(
        "deltadb",
        "serve",
        "-workers=2",
        f"-rest-addr=127.0.0.1:{rest}",
        f"-grpc-addr=127.0.0.1:{control}",
        f"-data={tmp_path / 'db'}",
        *flags(files, "-tls-client-auth", f"-tls-server-name={NAME}"),
        environ={"ADMIN_KEY": ADMIN_KEY},
    )
    url = f"https://127.0.0.1:{rest}"

    def ready() -> bool:
        with contextlib.suppress(httpx.TransportError):
            return "workers=2" in httpx.get(f"{url}/readyz", timeout=5).text
        return False

    wait_for(ready, "both workers have joined")
    with grpc.secure_channel(f"127.0.0.1:{control}", credentials(None, authority)) as channel:
        assert called(channel, METHODS[3]) is grpc.StatusCode.UNAVAILABLE
    assert server.stop() == 0


# -- versions --------------------------------------------------------------------------


def test_the_versions_that_grpc_speaks(tmp_path, running, authority):
    cluster = cluster_in(tmp_path, running)
    files = authority.issue().write(tmp_path / "files", authority.cert)
    port = free_port()
    cluster.start_main(*flags(files))
    cluster.start_worker("w1", *flags(files), f"-grpc-addr=127.0.0.1:{port}")
    cluster.ready(1)
    for listener in (cluster.grpc_port, port, cluster.rest_port):
        assert [spoken(listener, version) for version in OUTDATED] == [None, None]
        assert spoken(listener, ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
        assert spoken(listener, ssl.TLSVersion.TLSv1_3) == "TLSv1.3"


# -- certificates that change ----------------------------------------------------------


@contextlib.contextmanager
def grpc_load(address: str, creds: grpc.ChannelCredentials) -> Iterator[Counter[str]]:
    """Ask for the health over a new connection each time."""
    outcomes: Counter[str] = Counter()
    ends = threading.Event()

    def go_on() -> None:
        while not ends.is_set():
            options = [("grpc.use_local_subchannel_pool", 1)]
            with grpc.secure_channel(address, creds, options=options) as channel:
                try:
                    outcomes["ok" if serving_health(channel) else "not serving"] += 1
                except grpc.RpcError as exc:
                    outcomes[f"{exc.code()} {exc.details()}"] += 1
            time.sleep(0.01)

    threads = [threading.Thread(target=go_on) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield outcomes
    finally:
        ends.set()
        for thread in threads:
            thread.join()


def test_certificates_change_under_load_without_a_failed_request(tmp_path, running, authority):
    cluster = cluster_in(tmp_path, running)
    files = authority.issue().write(tmp_path / "files", authority.cert)
    mutual = flags(files, "-tls-client-auth")
    port = free_port()
    cluster.start_main(*mutual)
    cluster.start_worker("w1", *mutual, f"-grpc-addr=127.0.0.1:{port}")
    cluster.start_worker("w2", *mutual)
    cluster.ready(2)
    ours = authority.issue(["a-client"])

    def all_show(serial: int) -> Callable[[], bool]:
        return lambda: all(
            shown_serial(listener, authority, ours, tmp_path / "client") == serial
            for listener in (cluster.rest_port, cluster.grpc_port, port)
        )

    main_address, worker_address = f"127.0.0.1:{cluster.grpc_port}", f"127.0.0.1:{port}"
    with (
        load(cluster.url, threads=2) as statuses,
        grpc_load(main_address, credentials(ours, authority)) as main_outcomes,
        grpc_load(worker_address, credentials(ours, authority)) as worker_outcomes,
    ):
        for serial in range(0x100, 0x105):
            new = authority.issue(serial=serial)
            if serial % 2:
                new.write(files, authority.cert)
            else:
                # In place, and one long after the other.
                (files / "key.pem").write_bytes(new.key)
                time.sleep(5)
                (files / "cert.pem").write_bytes(new.cert)
            wait_for(all_show(serial), f"all listeners show serial {serial:x}")
    print(f"answers: rest {statuses}, main grpc {main_outcomes}, worker grpc {worker_outcomes}")
    assert set(statuses) == {200} and statuses[200] > 500
    assert set(main_outcomes) == {"ok"} and set(worker_outcomes) == {"ok"}
    for program in (cluster.main, cluster.workers["w1"]):
        # The three that were written in halves were kept out at first, each said once.
        assert 1 <= program.output.count("kept out") <= 3, program.output
        assert program.output.count("a changed tls certificate is in use") == 5
        assert str(files) not in program.output.replace(starting_line(program), "")
    # A worker that starts now, and one that joins again, does so with what is there now.
    cluster.workers["w2"].kill()
    cluster.start_worker("w3", *mutual)
    wait_for(lambda: "worker serves" in cluster.workers["w3"].output, "the third worker has joined")
    assert put(cluster.url, "last", "1").status_code == 200


def starting_line(program: Program) -> str:
    """The line that lists the flags as they were given, paths among them."""
    return "".join(line for line in program.output.splitlines() if "starting" in line)


def test_an_authority_that_is_replaced(tmp_path, running, authority):
    """From one authority to the next by way of a bundle of both, as operators do it."""
    cluster = cluster_in(tmp_path, running)
    files = authority.issue().write(tmp_path / "files", authority.cert)
    mutual = flags(files, "-tls-client-auth")
    cluster.start_main(*mutual)
    cluster.start_worker("w1", *mutual)
    cluster.ready(1)
    address = f"127.0.0.1:{cluster.grpc_port}"
    successor = Authority("successor")

    def admits(pair: Pair) -> bool:
        roots = authority.cert + successor.cert
        creds = grpc.ssl_channel_credentials(roots, pair.key, pair.cert)
        with grpc.secure_channel(address, creds) as channel:
            return called(channel, METHODS[3]) is not grpc.StatusCode.UNAVAILABLE

    old, new = authority.issue(["client"]), successor.issue(["client"])
    assert admits(old) and not admits(new)
    (files / "ca.pem").write_bytes(authority.cert + successor.cert)
    wait_for(lambda: admits(new), "the successor's certificates are let in")
    assert admits(old)
    successor.issue().write(files, successor.cert)
    wait_for(lambda: not admits(old), "the predecessor's are not let in any more")
    assert admits(new)


# -- bad files -------------------------------------------------------------------------


def bad_files(folder: Path, authority: Authority) -> dict[str, tuple[Path, str]]:
    """Folders of files that are of no use, and the words that each is refused with."""
    good = authority.issue()
    made: dict[str, tuple[Path, str]] = {}

    def add(name: str, words: str, pair: Pair, ca: bytes = authority.cert) -> Path:
        path = pair.write(folder / name, ca)
        made[name] = (path, words)
        return path

    (add("no-cert", "-tls-cert: the file cannot be read", good) / "cert.pem").unlink()
    (add("no-key", "-tls-key: the file cannot be read", good) / "key.pem").unlink()
    (add("no-ca", "-tls-ca: the file cannot be read", good) / "ca.pem").unlink()
    add("nonsense", "-tls-cert: the file holds no certificate", Pair(b"nonsense\n", good.key, 0))
    add("swapped", "-tls-cert: the file holds no certificate", Pair(good.key, good.cert, 0))
    add("no-pem-ca", "-tls-ca: the file holds no certificate", good, b"\xff\x00")
    add("unfit", "-tls-key: the private key does not belong", Pair(good.cert, authority.issue().key, 0))
    add("expired", "-tls-cert: the certificate has expired", authority.issue(ends=dt.timedelta(minutes=-1)))
    add("ed25519", "-tls-key: a key of this kind", authority.issue(key=ed25519.Ed25519PrivateKey.generate()))
    return made


def test_bad_files_are_one_clear_line(tmp_path, running, authority):
    for name, (files, words) in bad_files(tmp_path, authority).items():
        ended = running.run("proc-worker", f"-shared-fs={tmp_path / 'db'}", *flags(files))
        assert ended.returncode == 2, (name, ended)
        refused = ended.stderr.splitlines()[-1]
        assert refused.startswith("proc-worker: ") and words in refused, (name, refused)
        assert str(tmp_path) not in refused
        assert "Traceback" not in ended.stderr and ended.stdout == ""


@pytest.mark.parametrize("program", ["main-worker", "deltadb"])
def test_a_certificate_that_only_the_http_server_refuses(program, tmp_path, running, authority):
    # A critical extension that nobody knows: the process would end with granian's own stack.
    files = authority.issue(unknown=True).write(tmp_path / "files", authority.cert)
    arguments = ["serve"] if program == "deltadb" else []
    ended = running.run(
        program, *arguments, "-rest-addr=127.0.0.1:0", f"-shared-fs={tmp_path / 'db'}", *flags(files)
    )
    assert ended.returncode == 2, ended
    refused = ended.stderr.splitlines()[-1]
    assert "the HTTP server cannot use this certificate" in refused
    assert "panicked" not in ended.stderr and "Traceback" not in ended.stderr


def test_a_key_that_others_may_read_is_warned_of(tmp_path, running, authority):
    files = authority.issue().write(tmp_path / "files", authority.cert)
    (files / "key.pem").chmod(0o644)
    worker = running.start(
        "proc-worker", "-main-addr=127.0.0.1:1", f"-shared-fs={tmp_path / 'db'}", *flags(files)
    )
    wait_for(lambda: "give it mode 0600" in worker.output, "the worker warns")
    wait_for(lambda: "worker listens" in worker.output, "and goes on")
    assert str(files) not in worker.output.replace(starting_line(worker), "")
