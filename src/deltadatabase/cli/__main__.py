"""``python -m deltadatabase.cli PROGRAM …``: the programs where their scripts are not on PATH.

``local-worker PID …`` is a proc worker that ends when the process that started it is gone.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Final

from deltadatabase.cli import main

PARENT_CHECK_S: Final = 0.5


def local_worker() -> int:
    """Run a proc worker that does not outlive its parent, whatever ended that."""
    parent = int(sys.argv.pop(1))
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()
    return main.proc_worker()


def _follow(parent: int) -> None:
    wait = threading.Event()
    while os.getppid() == parent:
        wait.wait(PARENT_CHECK_S)
    os.kill(os.getpid(), signal.SIGTERM)


PROGRAMS: Final = {
    "deltadb": main.deltadb,
    "main-worker": main.main_worker,
    "proc-worker": main.proc_worker,
    "local-worker": local_worker,
}

if __name__ == "__main__":
    program = PROGRAMS.get(sys.argv[1] if len(sys.argv) > 1 else "")
    if program is None:
        print("usage: python -m deltadatabase.cli {deltadb,main-worker,proc-worker} …", file=sys.stderr)
        sys.exit(2)
    del sys.argv[1]
    sys.exit(program())
