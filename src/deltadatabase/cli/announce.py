"""What a person reads when a server is up: where it is, where the data is, what to try next."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from deltadatabase.cli.secrets import Made
from deltadatabase.settings import Address, MainSettings, RouterFlags, ServeSettings

WIDTH: Final = 12


def announce_serve(settings: ServeSettings, *, rest_port: int, made: Made) -> None:
    """Print the lines of ``deltadb serve`` on stdout."""
    url = base_url(settings, rest_port)
    rows = [("URL", url), ("docs", f"{url}/docs"), ("data", _where(settings)), *_keys(settings, made)]
    _print("DeltaDatabase is running.", rows, url, settings, made)


def announce_main(settings: MainSettings, *, rest_port: int, grpc_port: int, made: Made) -> None:
    """Print the lines of ``main-worker`` on stdout."""
    url = base_url(settings, rest_port)
    workers = f"proc-worker -main-addr={_host(settings.grpc_addr)}:{grpc_port}"
    rows = [("URL", url), ("docs", f"{url}/docs"), ("workers join", workers), *_keys(settings, made)]
    title = "The main worker is running; it serves data once a proc worker has joined."
    _print(title, rows, url, settings, made)


def base_url(settings: RouterFlags, port: int) -> str:
    """Return the URL under which this machine reaches the REST API."""
    scheme = "https" if settings.tls.cert else "http"
    return f"{scheme}://{_host(settings.rest_addr)}:{port}"


def _print(title: str, rows: list[tuple[str, str]], url: str, settings: RouterFlags, made: Made) -> None:
    header = "" if settings.dev else f' -H "Authorization: Bearer {_admin_key(settings, made)}"'
    lines = [title, *(f"  {name:<{WIDTH}}  {value}" for name, value in rows)]
    if settings.dev:
        lines.append(
            f"  {'DEV MODE':<{WIDTH}}  no authentication: every program on this machine has full rights"
        )
    lines += [
        "Try:",
        f'  curl{header} -X PUT {url}/entity/notes -d \'{{"first": {{"text": "hello"}}}}\'',
        f"  curl{header} '{url}/entity/notes?key=first'",
        "Stop it with Ctrl-C.",
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def _where(settings: ServeSettings) -> str:
    if settings.memory:
        return "in memory: gone when this program ends"
    if settings.s3.enabled:
        return f"bucket {settings.s3.bucket}"
    return str(settings.shared_fs.resolve())


def _keys(settings: RouterFlags, made: Made) -> list[tuple[str, str]]:
    rows = [("master key", _file(made.master_key, "given; back it up, without it the data is lost"))]
    if not settings.dev:
        rows.append(("admin key", _file(made.admin_key, "given")))
    return rows


def _file(path: Path | None, given: str) -> str:
    return given if path is None else str(path.resolve())


def _admin_key(settings: RouterFlags, made: Made) -> str:
    if made.admin_key is None:
        return "$ADMIN_KEY"
    return f"$(deltadb admin-key -state-dir {settings.state_path})"


def _host(address: Address) -> str:
    if address.host in ("", "0.0.0.0", "::"):  # noqa: S104  # compared, not bound
        return "127.0.0.1"
    return f"[{address.host}]" if ":" in address.host else address.host
