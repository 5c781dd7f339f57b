"""The search through the logs finds what it looks for."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.discretion import ADMIN_KEY, MARKER, MASTER_KEY, check_logs


def logs(folder: Path, text: str, name: str = "serve-0.log") -> list[Path]:
    path = folder / name
    path.write_text(f"worker joined\n{text}\nworker left\n")
    return [path]


@pytest.mark.parametrize(
    "text",
    [
        f"key={MASTER_KEY}",
        f"Bearer {ADMIN_KEY}",
        f'{{"text": "{MARKER}"}}',
        "token=ds_" + "x" * 43,
        "Traceback (most recent call last):",
        "kept 0123456789abcdef0123456789abcdef",
    ],
)
def test_what_must_not_be_logged_is_found(tmp_path: Path, text: str) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "master-key-old-aa").write_text("0123456789abcdef0123456789abcdef\n")
    with pytest.raises(AssertionError):
        check_logs(tmp_path, logs(tmp_path, text))
    logs(tmp_path, text, "audit.jsonl")
    with pytest.raises(AssertionError):
        check_logs(tmp_path, [])


def test_what_may_be_logged_is_left_alone(tmp_path: Path) -> None:
    check_logs(tmp_path, logs(tmp_path, "key_id=a7d5f5185402f6a3"))
