"""The Python client when things break: torn connections, servers that die, redirects, certificates."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Iterator

import pytest
from support.certificates import Authority
from support.discretion import ADMIN_KEY
from support.programs import free_port, programs, wait_for
from support.tearing import Tear, tearing

from deltadatabase import Client, errors
from deltadatabase.client import calls
from integration.serving import Served, served

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("faults")) as running:
        yield running


def plus_one(value):
    return (value or 0) + 1


# -- torn connections ------------------------------------------------------------------


@pytest.mark.parametrize("tear", [Tear.REQUEST, Tear.ANSWER, Tear.HALF])
def test_a_write_whose_connection_breaks_is_done_once(server, tear):
    with tearing(server.port, tear, half=20) as proxy, Client(proxy.url) as client:
        written = client.put("torn", tear.name, {"n": 1}, if_none_match="*")
        assert written.version == 1
        assert written.repeated is (tear is not Tear.REQUEST)
        assert proxy.requests == 2
        assert client.patch("torn", tear.name, {"n": 2}).version == 2


def test_deletes_and_patches_are_done_once_too(server):
    with Client(server.url) as direct:
        direct.put("torn", "list", {"n": []})
    with tearing(server.port, Tear.ANSWER, Tear.NOTHING, Tear.ANSWER) as proxy, Client(proxy.url) as client:
        client.patch("torn", "list", [{"op": "add", "path": "/n/-", "value": 1}])
        assert client.get("torn", "list").value == {"n": [1]}
        client.delete("torn", "list")


def test_a_batch_whose_connection_breaks_is_done_once(server):
    with tearing(server.port, Tear.ANSWER) as proxy, Client(proxy.url) as client:
        asked = [calls.put("torn", f"batch{number}", number, if_none_match="*") for number in range(10)]
        assert [result.version for result in client.batch(asked)] == [1] * 10


def test_without_another_try_the_outcome_is_unknown(server):
    with tearing(server.port, Tear.ANSWER) as proxy, Client(proxy.url, give_up_after_s=0.0) as client:
        with pytest.raises(errors.OutcomeUnknown):
            client.put("torn", "once", 1)
        assert client.get("torn", "once").value == 1


def test_what_has_no_name_is_not_sent_again(server):
    with tearing(server.port, Tear.ANSWER) as proxy, Client(proxy.url) as client:
        with pytest.raises(errors.OutcomeUnknown):
            client.key_create("torn", ["read"])
        made = client.keys()
        assert [key.name for key in made].count("torn") == 1


def test_updates_through_a_bad_line_lose_and_double_nothing(server):
    tears = [Tear.NOTHING, Tear.ANSWER, Tear.REQUEST, Tear.HALF] * 20
    with tearing(server.port, *tears, half=30) as proxy, Client(proxy.url) as client:
        for _ in range(20):
            client.update("torn", "counter", plus_one, create=True)
        entity = client.get("torn", "counter")
    assert (entity.value, entity.version) == (20, 20)


def test_an_export_survives_a_bad_line(server, tmp_path):
    with Client(server.url) as direct:
        direct.import_ndjson("exported", ((f"k{number:04}", {"n": number}) for number in range(500)))
        whole = [*direct.export_lines("exported")]
    assert len(whole) == 500
    with tearing(server.port, Tear.HALF, Tear.HALF, Tear.REQUEST, half=5000) as proxy:
        with Client(proxy.url) as client:
            path = tmp_path / "out.ndjson"
            assert client.export_ndjson("exported", path).lines == 500
        assert proxy.requests == 4
    assert path.read_bytes().splitlines() == whole


def test_an_import_survives_a_bad_line(server):
    lines = ((f"k{number:04}", {"n": number}) for number in range(300))
    with tearing(server.port, Tear.ANSWER, Tear.REQUEST) as proxy, Client(proxy.url) as client:
        report = client.import_ndjson("imported", lines, skip_existing=True)
        assert (report.lines, report.imported + report.skipped, report.failed) == (300, 300, 0)
        assert len([*client.iterate("imported")]) == 300


# -- servers that go and come ------------------------------------------------------------


def test_nothing_is_lost_or_done_twice_while_the_server_is_killed_again_and_again(tmp_path):
    with served(tmp_path / "killed") as server:
        done = threading.Event()
        counted = [0] * 3
        trouble: list[str] = []

        def count(number: int) -> None:
            with Client(server.url, timeout_s=10.0, give_up_after_s=120.0) as client:
                try:
                    while not done.is_set():
                        client.update("notes", f"n{number}", plus_one, create=True)
                        counted[number] += 1
                except errors.DeltaError as exc:
                    trouble.append(f"{type(exc).__name__} {exc.code}: {exc.detail}")

        threads = [threading.Thread(target=count, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(3):
            before = sum(counted)
            wait_for(lambda before=before: trouble or sum(counted) > before + 10, "they count")
            server.restart()
        done.set()
        for thread in threads:
            thread.join()
        assert trouble == []
        with Client(server.url) as client:
            stored = [client.get("notes", f"n{number}") for number in range(3)]
        assert [entity.value for entity in stored] == counted
        assert [entity.version for entity in stored] == counted


def test_changes_survive_a_restart(tmp_path):
    with served(tmp_path / "watched") as server, Client(server.url) as client:
        position = client.call(calls.position("notes"))
        client.put("notes", "first", 1)
        changes = client.changes("notes", since=position, include="document")
        assert next(changes).key == "first"
        server.restart()
        with Client(server.url) as other:
            other.put("notes", "second", 2)
        seen = next(change for change in changes if change.key == "second")
        assert seen.value == 2
        changes.close()


def test_a_server_that_is_not_there_yet_is_waited_for(tmp_path):
    with programs(tmp_path) as started:
        server = Served(started, ("-memory",))
        timer = threading.Timer(0.5, lambda: server.start(wait=False))
        timer.start()
        with Client(server.url) as client:
            assert client.put("notes", "a", 1).version == 1
        timer.join()


def test_a_server_that_is_never_there_is_told_in_time():
    with Client(f"http://127.0.0.1:{free_port()}", give_up_after_s=0.5) as client:
        begun = time.monotonic()
        with pytest.raises(errors.Unavailable) as caught:
            client.get("notes", "a")
    assert caught.value.code == "unreachable"
    assert time.monotonic() - begun < 5
    assert "127.0.0.1" not in str(caught.value)


# -- others who answer ---------------------------------------------------------------------


class Stranger(http.server.BaseHTTPRequestHandler):
    """Answers as a test wants it, and remembers who asked what."""

    def answer(self):
        self.server.seen.append((self.path, self.headers.get("authorization")))
        status, headers, body, pause_s = self.server.answers.pop(0)
        time.sleep(pause_s)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_PUT = do_POST = answer  # noqa: N815 - the names are the library's

    def log_message(self, *arguments):
        pass


@pytest.fixture
def stranger():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Stranger)
    server.seen, server.answers = [], []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def url_of(server):
    return f"http://127.0.0.1:{server.server_port}"


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_never_gets_the_key(server, stranger, status):
    stranger.answers = [(status, {"location": f"{url_of(stranger)}/elsewhere"}, b"", 0)] * 2
    with Client(url_of(stranger), ADMIN_KEY) as client:
        for call in (calls.get("notes", "a"), calls.put("notes", "a", 1)):
            with pytest.raises(errors.Invalid) as caught:
                client.call(call)
            assert caught.value.code == "redirected"
    assert [path for path, _ in stranger.seen] == ["/entities/notes/a"] * 2


def test_what_is_overloaded_is_asked_again_when_it_says(stranger):
    refusal = b'{"error":"overloaded","detail":"full","status":503}'
    stranger.answers = [
        (503, {"retry-after": "1", "content-type": "application/problem+json"}, refusal, 0),
        (200, {"etag": '"7-0123abcd"'}, b"1", 0),
    ]
    with Client(url_of(stranger)) as client:
        begun = time.monotonic()
        assert client.put("notes", "a", 1).version == 7
    assert time.monotonic() - begun >= 1


def test_an_answer_that_does_not_come_is_not_waited_for_for_ever(stranger):
    stranger.answers = [(200, {"etag": '"1-a"'}, b"", 1.0), (200, {"etag": '"1-a"'}, b"", 0)]
    with Client(url_of(stranger), timeout_s=0.3) as client:
        assert client.put("notes", "a", 1).version == 1
    assert len(stranger.seen) == 2


def test_who_is_no_database_is_told(stranger):
    stranger.answers = [(200, {}, b"<html>", 0), (404, {}, b"<html>", 0)]
    with Client(url_of(stranger)) as client:
        with pytest.raises(errors.Internal) as caught:
            client.workers()
        assert caught.value.code == "not_deltadatabase"
        with pytest.raises(errors.NotFound):
            client.get("notes", "a")


# -- TLS and rights ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A server with a certificate and an admin key; its URL and the file of its authority."""
    folder = tmp_path_factory.mktemp("tls")
    authority = Authority()
    files = authority.issue().write(folder / "tls", authority.cert)
    with programs(folder, {"ADMIN_KEY": ADMIN_KEY}) as started:
        flags = [f"-tls-cert={files / 'cert.pem'}", f"-tls-key={files / 'key.pem'}"]
        port = free_port()
        started.start("deltadb", "serve", "-memory", f"-rest-addr=127.0.0.1:{port}", *flags)
        url = f"https://127.0.0.1:{port}"
        with Client(url, ADMIN_KEY, tls_ca=files / "ca.pem", give_up_after_s=30.0) as client:
            client.workers()
        yield url, files / "ca.pem"


def test_a_server_with_a_certificate_is_known_by_its_authority(guarded):
    url, ca = guarded
    with Client(url, ADMIN_KEY, tls_ca=ca) as client:
        assert client.put("notes", "a", 1).version >= 1
    with Client(url, ADMIN_KEY) as client:
        with pytest.raises(errors.Unavailable) as caught:
            client.get("notes", "a")
        assert caught.value.code == "untrusted"


def test_rights_are_told_apart(guarded):
    url, ca = guarded
    with Client(url, tls_ca=ca) as client, pytest.raises(errors.Unauthenticated):
        client.get("notes", "a")
    with Client(url, ADMIN_KEY, tls_ca=ca) as admin:
        secret = admin.key_create("reader", ["read"], schemas=["chat"]).secret
    with Client(url, secret, tls_ca=ca) as reader:
        with pytest.raises(errors.Denied) as caught:
            reader.put("chat", "a", 1)
        assert secret not in str(caught.value) and caught.value.request_id
        with pytest.raises(errors.Denied):
            reader.get("notes", "a")
