"""The three programs: read the arguments, set logging up, run, and turn the end into an exit code."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

from deltadatabase import __version__
from deltadatabase.cli import commands, keyfiles
from deltadatabase.cli.flags import help_text
from deltadatabase.cli.operators import HELP
from deltadatabase.errors import StartupError
from deltadatabase.settings import (
    AdminKeySettings,
    Asked,
    CommandFlags,
    DoctorSettings,
    HealthSettings,
    LogFlags,
    MainSettings,
    ProcessFlags,
    RotateSettings,
    ScrubSettings,
    ServeSettings,
    WorkerSettings,
    describe,
    load_admin_key,
    load_command,
    load_doctor,
    load_health,
    load_main,
    load_rotate,
    load_scrub,
    load_serve,
    load_worker,
)
from deltadatabase.telemetry.logging import configure, get_logger

#: Of linux/prctl.h.
_PR_SET_DUMPABLE: Final = 4
EXIT_OK: Final = 0
EXIT_REFUSED: Final = 2
EXIT_INTERNAL: Final = 70
_HELP_WORDS: Final = frozenset({"help", "-h", "-help", "--help"})

Help = tuple[str, type, tuple[str, ...]]
"""Purpose, settings and examples of a program."""

_Server = TypeVar("_Server", bound=ProcessFlags)
_Operator = TypeVar("_Operator", bound=LogFlags)

_log = get_logger(__name__)

_OVERVIEW: Final = """\
    deltadb: a JSON document database, encrypted at rest, on a directory or an object store

    start one, open to programs of this machine only:
      deltadb serve
    talk to it:
      deltadb put notes first -document '{"text": "hello"}'
      deltadb get notes first
      curl http://127.0.0.1:8080/entities/notes/first
    let others in; they need the key that the second line prints:
      deltadb serve -rest-addr :8080
      deltadb admin-key

    commands (each explains itself with -h):
      serve       REST API and worker in one process
      admin-key   print the admin key that was made at the first start
      doctor      examine a store: what it guarantees, which keys fit, clock, disk, secrets
      scrub       verify every stored entity, rebuild meta files, set damage aside
      rotate      exchange the master key while the service runs
      health      ask a running program whether it lives or serves: exit code 0 or 1

    on a running server (-url or DELTADB_URL, -key or DELTADB_KEY):
      get put patch delete ls     documents
      import export watch         many documents as NDJSON; what changes
      schema                      ls get put check delete
      keys                        API keys: ls create delete
      workers                     who does the work
      completion                  let bash, zsh or fish complete all this

    beside it:
      main-worker, proc-worker   the same as separate processes, for many workers and S3
    """


def deltadb() -> int:
    """Run ``deltadb``."""
    return run_deltadb(sys.argv[1:], _environment())


def main_worker() -> int:
    """Run ``main-worker``."""
    return run_main_worker(sys.argv[1:], _environment())


def proc_worker() -> int:
    """Run ``proc-worker``."""
    return run_proc_worker(sys.argv[1:], _environment())


def run_deltadb(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run ``deltadb`` with these arguments; return its exit code."""
    command, *rest = [*filter(None, arguments)] or ["help"]
    if command in _HELP_WORDS:
        print(textwrap.dedent(_OVERVIEW), end="")
        return EXIT_OK
    if command in {"-version", "--version"}:
        print(f"deltadb {__version__}")
        return EXIT_OK
    if command == "serve":
        return _serve("deltadb serve", load_serve, rest, environ, _run_serve)
    if command == "admin-key":
        return _guarded("deltadb admin-key", lambda: _print_admin_key(load_admin_key(rest, environ)))
    if command == "scrub":
        return _operate("deltadb scrub", load_scrub, rest, environ, _run_scrub)
    if command == "doctor":
        return _operate("deltadb doctor", load_doctor, rest, environ, _run_doctor)
    if command == "rotate":
        return _operate("deltadb rotate", load_rotate, rest, environ, _run_rotate)
    if command == "health":
        return _operate("deltadb health", load_health, rest, environ, _run_health)
    return _run_command(command, rest, environ)


def _run_command(word: str, rest: list[str], environ: Mapping[str, str]) -> int:
    """Run one of the commands that work on a running server."""
    found = commands.find([word, *rest])
    if found is not None:
        command, arguments = found
        program = f"deltadb {command.name}"
        explained = (command.purpose, command.settings, command.examples)

        def load(given: Sequence[str], environ: Mapping[str, str]) -> CommandFlags:
            return load_command(command.settings, given, environ)

        return _operate(program, load, arguments, environ, lambda it: _run_found(command, it), explained)
    if word in commands.GROUPS:
        if not rest or rest[0] in _HELP_WORDS:
            print(commands.group_text(word), end="")
            return EXIT_OK
        print(f"deltadb {word}: unknown command (deltadb {word} -h explains)", file=sys.stderr)
        return EXIT_REFUSED
    print("deltadb: unknown command (deltadb -h lists all)", file=sys.stderr)
    return EXIT_REFUSED


def run_main_worker(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run ``main-worker`` with these arguments; return its exit code."""
    return _serve("main-worker", load_main, arguments, environ, _run_main)


def run_proc_worker(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run ``proc-worker`` with these arguments; return its exit code."""
    return _serve("proc-worker", load_worker, arguments, environ, _run_worker)


# The servers are imported only when they run: it takes half a second, which -h and admin-key
# need not wait for, and grpc reads its environment on import.


def _run_serve(settings: ServeSettings) -> int:
    from deltadatabase.cli import serving

    return serving.run_serve(settings)


def _run_main(settings: MainSettings) -> int:
    from deltadatabase.cli import main_worker

    return main_worker.run_main(settings)


def _run_worker(settings: WorkerSettings) -> int:
    from deltadatabase.cli import worker

    return worker.run_worker(settings)


def _run_scrub(settings: ScrubSettings) -> int:
    from deltadatabase.cli import scrub

    return scrub.run_scrub(settings)


def _run_doctor(settings: DoctorSettings) -> int:
    from deltadatabase.cli import doctor

    return doctor.run_doctor(settings)


def _run_rotate(settings: RotateSettings) -> int:
    from deltadatabase.cli import rotate

    return rotate.run_rotate(settings)


def _run_health(settings: HealthSettings) -> int:
    from deltadatabase.cli import health

    return health.run_health(settings)


def _run_found(command: commands.Command, settings: CommandFlags) -> int:
    from deltadatabase.cli import commanding

    return commanding.run(command, settings)


def _operate(
    program: str,
    load: Callable[[Sequence[str], Mapping[str, str]], _Operator],
    arguments: Sequence[str],
    environ: Mapping[str, str],
    run: Callable[[_Operator], int],
    help: Help | None = None,
) -> int:
    def body() -> int:
        settings = load(arguments, environ)
        configure(settings.log_level, settings.log_format, colour="NO_COLOR" not in environ)
        return run(settings)

    _forbid_core_dumps()
    return _guarded(program, body, help)


def _serve(
    program: str,
    load: Callable[[Sequence[str], Mapping[str, str]], _Server],
    arguments: Sequence[str],
    environ: Mapping[str, str],
    run: Callable[[_Server], int],
) -> int:
    def body() -> int:
        # Until the server has its own handler: an end asked for during the start is a clean one.
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(EXIT_OK))
        settings = load(arguments, environ)
        configure(settings.log_level, settings.log_format, colour="NO_COLOR" not in environ)
        changed = describe(settings, changed_only=True)
        _log.info("starting", program=program, version=__version__, settings=changed)
        _log.debug("settings in force", settings=describe(settings))
        for note in settings.notes:
            _log.warning(note)
        return run(settings)

    _forbid_core_dumps()
    return _guarded(program, body)


def _guarded(program: str, body: Callable[[], int], help: Help | None = None) -> int:
    """Run it; whatever ends it becomes one line and an exit code."""
    try:
        return body()
    except Asked as asked:
        purpose, settings, examples = help or HELP[program]
        version = f"{program.split()[0]} {__version__}\n"
        print(
            version if asked.topic == "version" else help_text(program, purpose, settings, examples), end=""
        )
        return EXIT_OK
    except StartupError as exc:
        print(f"{program}: {_one_line(exc.detail)}", file=sys.stderr)
        return EXIT_REFUSED
    except KeyboardInterrupt:
        # Ctrl-C is how people end a server; servers handle it themselves once they run.
        return EXIT_OK
    except Exception as exc:  # noqa: BLE001 - the last place: nobody above could name it better
        print(
            f"{program}: internal error ({type(exc).__name__}): please report it, with the output of "
            "-log-level=debug",
            file=sys.stderr,
        )
        _log.debug("internal error", exc_info=exc)
        return EXIT_INTERNAL


def _print_admin_key(settings: AdminKeySettings) -> int:
    secret = keyfiles.load(settings.state_path / keyfiles.ADMIN_KEY)
    if secret is None:
        raise StartupError(
            "no admin key is kept there: start the server once outside dev mode to have one made, or name "
            "its directory with -state-dir or -data; a key given by -admin-key or ADMIN_KEY is not kept",
            code="no_admin_key",
        )
    print(secret)
    return EXIT_OK


def _forbid_core_dumps() -> None:
    """Keep keys and documents out of core files, and out of reach of the user's other programs.

    The limit alone does not count where the kernel hands cores to a program (core(5)). A process
    that is not dumpable gives none, and no program of the same user but root's may read its memory
    or environment (prctl(2), ``PR_SET_DUMPABLE``); children become dumpable again by exec.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    # Not on every system; where it is missing, the limit is what there is.
    if prctl := getattr(ctypes.CDLL(None), "prctl", None):
        prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _environment() -> Mapping[str, str]:
    return os.environ  # noqa: TID251 - the one read; everything below takes it as an argument
