from __future__ import annotations

import json
import resource
import sys
from types import ModuleType

import pytest
from support.process_state import restored

import deltadatabase.cli
from deltadatabase import __version__
from deltadatabase.cli.main import run_deltadb, run_main_worker, run_proc_worker
from deltadatabase.errors import StartupError
from deltadatabase.settings import MainSettings, ServeSettings, WorkerSettings

PROGRAMS = [
    pytest.param(lambda *a: run_deltadb(["serve", *a], {}), "deltadb serve", id="serve"),
    pytest.param(lambda *a: run_deltadb(["admin-key", *a], {}), "deltadb admin-key", id="admin-key"),
    pytest.param(lambda *a: run_deltadb(["scrub", *a], {}), "deltadb scrub", id="scrub"),
    pytest.param(lambda *a: run_deltadb(["doctor", *a], {}), "deltadb doctor", id="doctor"),
    pytest.param(lambda *a: run_deltadb(["health", *a], {}), "deltadb health", id="health"),
    pytest.param(lambda *a: run_main_worker(a, {}), "main-worker", id="main-worker"),
    pytest.param(lambda *a: run_proc_worker(a, {}), "proc-worker", id="proc-worker"),
]
SERVERS = [PROGRAMS[0], *PROGRAMS[5:]]


class Roots(ModuleType):
    """Stands in for the composition root: remembers its settings, then does what it is told."""

    def __init__(self):
        super().__init__("deltadatabase.cli.roots")
        self.settings = None
        self.end = 0
        self.run_main = self.run_worker = self.run_serve = self._run

    def _run(self, settings):
        self.settings = settings
        if isinstance(self.end, BaseException):
            raise self.end
        return self.end


@pytest.fixture
def roots(monkeypatch):
    fake = Roots()
    for name in ("main_worker", "serving", "worker"):
        monkeypatch.setitem(sys.modules, f"deltadatabase.cli.{name}", fake)
        monkeypatch.setattr(deltadatabase.cli, name, fake, raising=False)
    return fake


@pytest.fixture(autouse=True)
def _restore_process(monkeypatch):
    monkeypatch.setenv("GRPC_VERBOSITY", "NONE")
    with restored():
        yield


@pytest.mark.parametrize("arguments", [[], [""], ["help"], ["-h"], ["-help"], ["--help"]])
def test_deltadb_alone_teaches(capsys, arguments):
    assert run_deltadb(arguments, {}) == 0
    out, err = capsys.readouterr()
    assert "deltadb serve" in out
    assert "deltadb admin-key" in out
    assert err == ""


@pytest.mark.parametrize(("run", "name"), PROGRAMS)
@pytest.mark.parametrize("spelling", ["-h", "--help", "-help"])
def test_help_on_stdout(capsys, run, name, spelling):
    assert run(spelling) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"usage: {name} [flags]\n")
    assert "examples:" in out
    assert err == ""


@pytest.mark.parametrize(("run", "name"), PROGRAMS)
def test_version_on_stdout(capsys, run, name):
    assert run("-version") == 0
    assert capsys.readouterr().out == f"{name.split()[0]} {__version__}\n"


@pytest.mark.parametrize(("run", "name"), PROGRAMS)
def test_a_bad_flag_is_one_line_and_exit_code_2(capsys, roots, run, name):
    assert run("-nonsense=hunter2") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"{name}: unknown flag -nonsense (-h lists all)\n"
    assert roots.settings is None


def test_an_unknown_command_is_one_line_and_exit_code_2(capsys):
    assert run_deltadb(["srve"], {}) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "unknown command" in err


@pytest.mark.parametrize(
    ("run", "settings"),
    [
        (lambda a, e: run_deltadb(["serve", *a], e), ServeSettings),
        (run_main_worker, MainSettings),
        (run_proc_worker, WorkerSettings),
    ],
)
def test_servers_get_their_settings_and_decide_the_exit_code(roots, run, settings):
    roots.end = 3
    assert run(["-log-level=error"], {"JOIN_TOKEN": "t" * 16}) == 3
    assert type(roots.settings) is settings
    assert roots.settings.join_token.reveal() == "t" * 16


def test_start_is_logged_once_with_the_settings_in_force(capsys, roots):
    assert run_main_worker(["-log-format=json", "-admin-key=hunter2-hunter2-h", "-key-store=x"], {}) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert "hunter2" not in err
    start, note = map(json.loads, err.splitlines())
    assert start["settings"] == {"log-format": "json", "admin-key": "set"}
    assert start["program"] == "main-worker"
    assert note["level"] == "warning"
    assert note["event"].startswith("-key-store has no effect")


@pytest.mark.parametrize(("run", "name"), SERVERS)
def test_a_refused_start_is_one_line_and_exit_code_2(capsys, roots, run, name):
    roots.end = StartupError("the store cannot\nbe reached", code="store_unreachable")
    assert run("-log-level=error") == 2
    assert capsys.readouterr().err == f"{name}: the store cannot be reached\n"


@pytest.mark.parametrize(("run", "name"), SERVERS)
def test_an_unforeseen_error_is_one_line_and_exit_code_70(capsys, roots, run, name):
    roots.end = ValueError("a document, a /path")
    assert run("-log-level=error") == 70
    err = capsys.readouterr().err
    assert err.startswith(f"{name}: internal error (ValueError): please report it")
    assert err.count("\n") == 1
    assert "a document" not in err


def test_an_unforeseen_error_has_its_trace_at_debug(capsys, roots):
    roots.end = ValueError("why")
    assert run_main_worker(["-log-level=debug"], {}) == 70
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "ValueError: why" in err


def test_ctrl_c_ends_cleanly(capsys, roots):
    roots.end = KeyboardInterrupt()
    assert run_main_worker(["-log-level=error"], {}) == 0
    assert capsys.readouterr() == ("", "")


def test_servers_leave_no_core_files(roots):
    assert run_proc_worker(["-log-level=error"], {}) == 0
    assert resource.getrlimit(resource.RLIMIT_CORE)[0] == 0


def test_admin_key_is_printed_alone(capsys, tmp_path):
    (tmp_path / "admin-key").write_text("the-key\n")
    assert run_deltadb(["admin-key", "-state-dir", str(tmp_path)], {}) == 0
    assert capsys.readouterr() == ("the-key\n", "")


def test_without_admin_key_it_says_what_to_do(capsys, tmp_path):
    assert run_deltadb(["admin-key"], {"DELTADB_STATE_DIR": str(tmp_path)}) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "-state-dir" in err
    assert str(tmp_path) not in err
