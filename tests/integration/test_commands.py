"""The commands of ``deltadb`` that work on a running server."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from support.process_state import restored
from support.programs import free_port, installed, wait_for

from deltadatabase import Client
from deltadatabase.cli.commands import COMMANDS
from deltadatabase.cli.main import run_deltadb
from integration.serving import Served, served

pytestmark = pytest.mark.integration

DELTADB = str(installed("deltadb"))


@pytest.fixture(autouse=True)
def _restore_process():
    with restored():
        yield


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("commands")) as running:
        yield running


@pytest.fixture
def shell(server, tmp_path):
    """Runs a line of a shell in which ``deltadb`` knows the server."""
    environ = os.environ | {
        "DELTADB_URL": server.url,
        "PATH": f"{installed('deltadb').parent}:{os.environ['PATH']}",
    }

    def run(line, data=b""):
        return subprocess.run(
            ["bash", "-c", line],
            input=data,
            cwd=tmp_path,
            env=environ,
            capture_output=True,
            timeout=60,
            check=False,
        )

    return run


@pytest.fixture
def deltadb(server, capfdbinary, monkeypatch, tmp_path):
    """Runs a command in this process: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, url=server.url):
        code = run_deltadb(arguments, {"DELTADB_URL": url})
        sys.stdout.flush()
        out, err = capfdbinary.readouterr()
        return code, out, err.decode()

    return run


def lines(out):
    return [json.loads(line) for line in out.splitlines()]


# -- documents ---------------------------------------------------------------------------


def test_documents_come_and_go_byte_for_byte(deltadb, tmp_path):
    text = b'{ "text": "hello",\n  "price": 0.10 }\n'
    (tmp_path / "note.json").write_bytes(text)
    code, out, err = deltadb("put", "notes", "first", "note.json")
    assert (code, err) == (0, "")
    (written,) = lines(out)
    assert (written["key"], written["version"], written["created"]) == ("first", 1, True)
    assert deltadb("get", "notes", "first") == (0, text, "")
    code, out, _ = deltadb("get", "notes", "first", "-json")
    (shown,) = lines(out)
    assert shown["etag"] == written["etag"] and shown["document"] == {"text": "hello", "price": 0.10}
    assert b"0.10" in out
    assert deltadb("delete", "notes", "first")[0] == 0
    code, out, err = deltadb("get", "notes", "first")
    assert (code, out) == (1, b"") and err == "deltadb get: there is no such entity (entity_not_found)\n"


def test_conditions_have_an_exit_code_of_their_own(deltadb):
    assert deltadb("put", "notes", "c", "-document", "1", "-create")[0] == 0
    code, out, err = deltadb("put", "notes", "c", "-document", "2", "-create")
    assert (code, out) == (3, b"") and "version_mismatch" in err
    etag = lines(deltadb("get", "notes", "c", "-json")[1])[0]["etag"]
    assert deltadb("put", "notes", "c", "-document", "3", "-if-match", etag)[0] == 0
    assert deltadb("patch", "notes", "c", "-document", "4", "-if-match", etag)[0] == 3
    assert deltadb("delete", "notes", "c", "-if-match", etag)[0] == 3


def test_patches_of_both_kinds(deltadb):
    deltadb("put", "notes", "p", "-document", '{"a": 1}')
    assert deltadb("patch", "notes", "p", "-document", '{"b": 2}')[0] == 0
    assert deltadb("patch", "notes", "p", "-document", '[{"op": "remove", "path": "/a"}]')[0] == 0
    assert json.loads(deltadb("get", "notes", "p")[1]) == {"b": 2}
    code, _, err = deltadb("patch", "notes", "p", "-document", '[{"op": "test", "path": "/b", "value": 0}]')
    assert code == 3 and err.count("\n") == 1


def test_lists(deltadb):
    for number in range(5):
        deltadb("put", "listed", f"k {number}", "-document", json.dumps({"n": number}))
    assert deltadb("ls", "listed")[1] == b"k 0\nk 1\nk 2\nk 3\nk 4\n"
    assert deltadb("ls", "listed", "-prefix", "k", "-limit", "2")[1] == b"k 0\nk 1\n"
    shown = lines(deltadb("ls", "listed", "-include", "document")[1])
    assert [item["document"]["n"] for item in shown] == [0, 1, 2, 3, 4]
    item = lines(deltadb("ls", "listed", "-json")[1])[0]
    assert set(item) == {"key", "size", "updated_at"}
    assert re.fullmatch(r"....-..-..T..:..:..\.\d{3}Z", item["updated_at"]), "as the server writes it"
    assert deltadb("ls", "listed", "-counts")[0] == 2
    assert b"listed\n" in deltadb("ls")[1]
    assert deltadb("ls", "nothing") == (0, b"", "")
    code, _, err = deltadb("delete", "listed", "k 0", "absent", "k 1")
    assert code == 1 and "absent" in err
    assert deltadb("ls", "listed")[1] == b"k 2\nk 3\nk 4\n"


def test_who_has_no_valid_key_is_told_how_to_give_one(tmp_path):
    with served(tmp_path / "guarded", f"-data={tmp_path / 'db'}", "-admin-key=0123456789abcdef") as server:
        done = subprocess.run(
            [DELTADB, "ls", "-url", server.url],
            env={**os.environ, "DELTADB_KEY": "wrong"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert "(unauthenticated)" in done.stderr and "DELTADB_KEY" in done.stderr


def test_a_key_may_look_like_a_flag(deltadb):
    assert deltadb("put", "-document", "1", "--", "notes", "-url")[0] == 0
    assert deltadb("get", "--", "notes", "-url")[1] == b"1"


# -- administration ------------------------------------------------------------------------


def test_schemas(deltadb, tmp_path):
    rule = b'{"type": "object", "required": ["text"]}\n'
    (tmp_path / "rule.json").write_bytes(rule)
    deltadb("put", "ruled", "old", "-document", "{}")
    code, out, _ = deltadb("schema", "check", "ruled", "rule.json")
    assert code == 0 and lines(out)[0]["enforced"] is False
    code, out, _ = deltadb("schema", "check", "ruled", "rule.json", "-scan")
    assert code == 1 and lines(out)[0]["key"] == "old" and lines(out)[-1]["refused"] == 1
    assert deltadb("schema", "put", "ruled", "rule.json")[0] == 0
    assert deltadb("schema", "get", "ruled")[1] == rule
    assert b"ruled\n" in deltadb("schema", "ls")[1]
    code, _, err = deltadb("put", "ruled", "new", "-document", '{"x": 1}')
    assert code == 1 and "text" in err
    assert deltadb("schema", "delete", "ruled")[0] == 0
    assert deltadb("schema", "get", "ruled")[0] == 1


def test_keys_and_workers(deltadb):
    code, out, _ = deltadb("keys", "create", "bot", "-permissions", "read,write", "-expires-in", "1h")
    (made,) = lines(out)
    assert code == 0 and made["secret"].startswith("dk_")
    assert made["id"] in {key["id"] for key in lines(deltadb("keys", "ls")[1])}
    assert deltadb("keys", "delete", made["id"])[0] == 0
    assert deltadb("keys", "delete", made["id"])[0] == 1
    assert deltadb("keys", "create", "bot", "-permissions", "fly")[0] == 1
    assert [worker["status"] for worker in lines(deltadb("workers")[1])] == ["Available"]


# -- many documents ------------------------------------------------------------------------


def test_import_and_export(deltadb, tmp_path):
    (tmp_path / "in.ndjson").write_bytes(
        b"".join(b'{"key":"k%02d","document":{"n":%d}}\n' % (number, number) for number in range(50))
    )
    code, out, err = deltadb("import", "moved", "in.ndjson")
    assert (code, err) == (0, "")
    assert lines(out) == [{"lines": 50, "imported": 50, "created": 50, "skipped": 0, "failed": 0}]
    assert lines(deltadb("import", "moved", "in.ndjson", "-skip-existing")[1])[0]["skipped"] == 50
    assert lines(deltadb("import", "moved", "in.ndjson", "-skip-lines=48")[1])[0]["imported"] == 2
    code, out, _ = deltadb("export", "moved", "-o", "out.ndjson")
    assert code == 0 and lines(out)[0]["lines"] == 50
    assert lines((tmp_path / "out.ndjson").read_bytes())[7] == {"key": "k07", "document": {"n": 7}}
    assert len(lines(deltadb("export", "moved", "-after", "k39")[1])) == 10


def test_refused_lines_are_told(deltadb, tmp_path):
    (tmp_path / "in.ndjson").write_bytes(b'{"key":"a","document":1}\nnonsense\n\n{"key":"b"}\n')
    code, out, err = deltadb("import", "half", "in.ndjson")
    assert code == 1 and lines(out)[0]["imported"] == 1
    assert [line.split(":")[0] for line in err.splitlines()] == ["line 2", "line 4"]
    code, _, err = deltadb("import", "half", "in.ndjson", "-on-error", "stop")
    assert code == 1 and "stopped at line 2" in err


def test_an_import_that_breaks_off_says_where_to_go_on(deltadb, tmp_path):
    (tmp_path / "in.ndjson").write_bytes(b'{"key":"a","document":1}\n')
    code, _, err = deltadb("import", "x", "in.ndjson", "-retry=0s", url=f"http://127.0.0.1:{free_port()}")
    assert code == 2 and "go on with -skip-lines=0" in err


# -- wrong use -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ("get", "notes"),
        ("get", "notes", "a", "b"),
        ("put", "notes", "a", "/nowhere/file"),
        ("put", "notes", "a", "file", "-document", "1"),
        ("put", "notes", "a", "-document", "1", "-create", "-if-match", "x"),
        ("put", "notes", "a", "-document", "1", "-if-match", "3"),
        ("get", "notes", "a", "-url", "nonsense"),
        ("get", "notes", "a", "-nonsense"),
        ("ls", "-prefix", "a"),
        ("schema", "nonsense"),
        ("keys", "nonsense"),
        ("nonsense",),
        ("completion", "tcsh"),
        ("import", "notes", "/nowhere/file"),
        ("export", "notes", "-o", "/nowhere/file"),
        ("import", "notes", "-on-error", "panic"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(deltadb, arguments):
    code, out, err = deltadb(*arguments)
    assert (code, out) == (2, b"")
    assert err.startswith("deltadb") and err.count("\n") == 1


def test_a_server_that_is_not_there_is_exit_code_2(deltadb):
    code, out, err = deltadb("get", "notes", "a", "-retry=0s", url=f"http://127.0.0.1:{free_port()}")
    assert (code, out) == (2, b"") and "unreachable" in err


def test_no_log_tells_of_keys(server, tmp_path):
    asked = [DELTADB, "get", "notes", "hummingbird", "-log-level=debug", "-url", server.url]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1 and "hummingbird" not in done.stderr


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_explains_itself_with_examples(deltadb, command):
    code, out, err = deltadb(*command.name.split(), "-h")
    assert (code, err) == (0, "")
    assert f"usage: deltadb {command.name} [flags]" in out.decode() and b"examples:" in out
    for example in command.examples:
        assert f"deltadb {command.name}" in example


def test_the_overview_is_one_screen_and_names_everything(deltadb):
    out = deltadb("-h")[1].decode()
    assert len(out.splitlines()) <= 40 and max(map(len, out.splitlines())) <= 100
    for command in COMMANDS:
        assert set(command.name.split()) <= set(out.replace(":", " ").split())
    for group in ("schema", "keys"):
        assert deltadb(group)[1] == deltadb(group, "-h")[1]


# -- pipes, terminals, signals: as processes -------------------------------------------------


def test_pipes(shell):
    assert shell("deltadb put piped a", b'{"n": 1}').returncode == 0
    assert shell("deltadb put piped b - < /dev/stdin", b'{"n": 2}').returncode == 0
    done = shell("deltadb export piped | deltadb import -skip-existing copied && deltadb ls copied")
    assert done.returncode == 0 and done.stdout.endswith(b"a\nb\n")


def test_a_reader_that_has_seen_enough_is_no_trouble(shell):
    lines = b"".join(b'{"key":"k%05d","document":"%s"}\n' % (number, b"x" * 100) for number in range(3000))
    assert shell("deltadb import large", lines).returncode == 0
    done = shell("set -o pipefail; deltadb export large | head -1")
    assert done.stdout.count(b"\n") == 1 and done.stderr == b""
    assert done.returncode == 141


def test_watching_goes_on_through_a_restart_and_ends_quietly(tmp_path):
    with served(tmp_path / "watched") as server:
        with Client(server.url) as client:
            client.put("notes", "before", 0)
        out = tmp_path / "out"
        with out.open("wb") as file:
            watch = subprocess.Popen(
                [DELTADB, "watch", "notes", "-url", server.url, "-include", "document"],
                stdout=file,
                stderr=subprocess.PIPE,
            )
        with Client(server.url) as client:

            def seen(key):
                # The watcher may not be there yet.
                client.put("notes", key, {"n": 1})
                time.sleep(0.2)
                return f'"key":"{key}"'.encode() in out.read_bytes()

            wait_for(lambda: seen("first"), "the first change is seen")
            server.restart()
            wait_for(lambda: seen("second"), "the second change is seen")
        watch.send_signal(signal.SIGINT)
        _, err = watch.communicate(timeout=20)
        assert (watch.returncode, err) == (130, b"")
        # After the restart earlier states are told of again, in any order with new ones.
        change = next(it for it in lines(out.read_bytes()) if it["key"] == "second")
        assert change["document"] == {"n": 1} and change["token"]


def test_a_bar_is_shown_on_a_terminal_only(server, tmp_path):
    source = tmp_path / "in.ndjson"
    source.write_bytes(b"".join(b'{"key":"k%d","document":1}\n' % number for number in range(100)))
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [DELTADB, "import", "barred", str(source), "-url", server.url],
        stdout=subprocess.PIPE,
        stderr=theirs,
        timeout=60,
        check=False,
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            block = os.read(ours, 4096)
        except OSError:
            break
        if not block:
            break
        shown += block
    os.close(ours)
    assert done.returncode == 0 and lines(done.stdout)[0]["imported"] == 100
    assert "━".encode() in shown


# -- completion --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("deltadb", "wa"), {"watch"}),
        (("deltadb", "s"), {"schema", "scrub", "serve"}),
        (("deltadb", "schema", ""), {"ls", "get", "put", "check", "delete"}),
        (("deltadb", "keys", "c"), {"create"}),
        (("deltadb", "import", "-skip"), {"-skip-existing", "-skip-lines"}),
        (("deltadb", "schema", "check", "x", "-sc"), {"-scan"}),
        (("deltadb", "serve", "-mem"), {"-memory"}),
        (("deltadb", "put", "notes", "fi"), set()),
    ],
)
def test_bash_completes(words, expected, tmp_path):
    script = tmp_path / "completion.bash"
    script.write_bytes(
        subprocess.run([DELTADB, "completion", "bash"], capture_output=True, check=True).stdout
    )
    quoted = " ".join(f"'{word}'" for word in words)
    program = f"""
        source {script}
        COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}
        _deltadb
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-euc", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert set(done.stdout.split()) == expected


def test_the_other_shells_have_scripts(deltadb):
    zsh, fish = deltadb("completion", "zsh")[1].decode(), deltadb("completion", "fish")[1].decode()
    assert zsh.startswith("#compdef deltadb\n") and "_deltadb" in zsh
    assert "complete -c deltadb -n __fish_use_subcommand -a watch" in fish
