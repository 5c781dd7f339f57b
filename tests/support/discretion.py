"""What no log of any program may hold, whatever the tests do to it.

Every program that a test starts passes here when it has ended (``support.programs``), so that one run of
all tests is a search through all logs that they made.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from support.weed import READER_SECRET_KEY, SECRET_KEY

MASTER_KEY: Final = "5d" * 32
ADMIN_KEY: Final = "the-admin-key-of-the-tests"
JOIN_TOKEN: Final = "the-join-token-of-the-tests"
MARKER: Final = "hummingbird"
"""A word in every document."""
SECRETS: Final = (MASTER_KEY, ADMIN_KEY, JOIN_TOKEN, MARKER, SECRET_KEY, READER_SECRET_KEY)
SECRET_FILES: Final = re.compile(r"admin-key|join-token|master-key.*|.*\.key")
"""Names of files that hold nothing but a secret."""
ISSUED_TOKEN: Final = re.compile(r"d[ks]_[A-Za-z0-9_-]{20,}")
_SECRET_CHARACTERS_MIN: Final = 16


def secrets_in(text: str, made: Sequence[str] = ()) -> list[str]:
    """Every secret of the tests that is in ``text``, and every issued token."""
    return [secret for secret in (*SECRETS, *made) if secret in text] + ISSUED_TOKEN.findall(text)


def check_logs(folder: Path, logs: Iterable[Path]) -> None:
    """Fail if a log holds a secret, a document or a stack trace.

    Args:
        folder: where the programs worked; secrets that they made are files below it.
        logs: what they wrote. Audit logs below ``folder`` are looked through as well.
    """
    made = [
        line
        for path in folder.rglob("*")
        if SECRET_FILES.fullmatch(path.name) and path.is_file()
        for line in path.read_text(errors="replace").split()
        if len(line) >= _SECRET_CHARACTERS_MIN
    ]
    for log in (*logs, *folder.rglob("*.jsonl")):
        text = log.read_text(errors="replace")
        assert secrets_in(text, made) == [], f"{log.name} holds them"
        assert "Traceback" not in text, text[-3000:]
