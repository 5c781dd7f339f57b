"""``python -m bench.setup``: install what the benchmark compares with, into ``build/bench``.

wrk and etcd come from Debian, Vegeta and MinIO by the Go toolchain from their modules, Kinto from PyPI.
What can't be had is noted with its reason, and reports that lack it say so.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench.programs import ROOT

FOLDER = ROOT / "build" / "bench"
NOTES = FOLDER / "missing.json"
VEGETA = "github.com/tsenart/vegeta/v12@v12.12.0"
MINIO = "github.com/minio/minio@v0.0.0-20250907161309-07c3a429bfed"
KINTO = "kinto==26.5.0"
RUSTFS = "its crate, rustfs 1.0.1, asks for Rust 1.98.1 or newer; where one runs, -s3-endpoint measures it"
NEVER_TRIED = "`just bench-setup` was not run"


@dataclass(frozen=True)
class Tools:
    """Programs that are there; None for one that isn't.

    Attributes:
        missing: why not, by name.
    """

    wrk: Path | None = None
    vegeta: Path | None = None
    etcd: Path | None = None
    kinto: Path | None = None
    minio: Path | None = None
    missing: Mapping[str, str] = field(default_factory=dict)

    def why(self, name: str) -> str:
        """The reason for which it isn't there."""
        if name == "rustfs":
            return RUSTFS
        return self.missing.get(name, NEVER_TRIED)


def installed() -> Tools:
    """What is there now."""
    wrk = shutil.which("wrk")
    return Tools(
        wrk=Path(wrk) if wrk else None,
        vegeta=_there(FOLDER / "bin" / "vegeta"),
        etcd=_there(FOLDER / "etcd" / "usr" / "bin" / "etcd"),
        kinto=_there(FOLDER / "kinto" / "bin" / "kinto"),
        minio=_there(FOLDER / "bin" / "minio"),
        missing=json.loads(NOTES.read_text()) if NOTES.exists() else {},
    )


def main() -> int:
    """Install what is missing; exit code 0 also where something could not be had."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    steps = {
        "wrk": _install_wrk,
        "etcd": _install_etcd,
        "kinto": _install_kinto,
        "vegeta": lambda: _go_install(VEGETA),
        "minio": lambda: _go_install(MINIO),
    }
    missing: dict[str, str] = {}
    for name, install in steps.items():
        if getattr(installed(), name) is not None:
            print(f"{name}: there")
            continue
        print(f"{name}: …", flush=True)
        try:
            install()
        except (OSError, subprocess.CalledProcessError) as exc:
            missing[name] = _reason(exc)
        print(f"{name}: {missing.get(name, 'installed')}", flush=True)
    NOTES.write_text(json.dumps(missing, indent=1) + "\n")
    return 0


def _install_wrk() -> None:
    _run("apt-get", "-qq", "-y", "--no-install-recommends", "install", "wrk")


def _install_etcd() -> None:
    # Unpacked, not installed: a package would start it as a service.
    with tempfile.TemporaryDirectory(prefix="etcd-") as folder:
        _run("apt-get", "-qq", "download", "etcd-server", cwd=folder)
        (package,) = Path(folder).glob("etcd-server_*.deb")
        _run("dpkg-deb", "-x", package, FOLDER / "etcd")


def _install_kinto() -> None:
    # Its dependencies would change ours.
    _run(sys.executable, "-m", "venv", FOLDER / "kinto")
    _run(FOLDER / "kinto" / "bin" / "pip", "install", "-q", KINTO)


def _go_install(module: str) -> None:
    _run("go", "install", module, environ={"GOBIN": str(FOLDER / "bin")})


def _run(*command: str | Path, cwd: str | Path = FOLDER, environ: Mapping[str, str] | None = None) -> None:
    subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **(environ or {})},
        check=True,
        capture_output=True,
        text=True,
    )


def _reason(error: OSError | subprocess.CalledProcessError) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        last = (error.stderr or error.stdout or "").strip().rpartition("\n")[2]
        return f"{error.cmd[0]} failed: {last[:200]}"
    return f"{error.filename}: {error.strerror}"


def _there(program: Path) -> Path | None:
    return program if os.access(program, os.X_OK) else None


if __name__ == "__main__":
    sys.exit(main())
