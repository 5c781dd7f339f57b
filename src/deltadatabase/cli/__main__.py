"""``python -m deltadatabase.cli PROGRAM …``: the three programs where their scripts are not on PATH."""

from __future__ import annotations

import sys

from deltadatabase.cli import main

PROGRAMS = {"deltadb": main.deltadb, "main-worker": main.main_worker, "proc-worker": main.proc_worker}

if __name__ == "__main__":
    program = PROGRAMS.get(sys.argv[1] if len(sys.argv) > 1 else "")
    if program is None:
        print(f"usage: python -m deltadatabase.cli {{{','.join(PROGRAMS)}}} …", file=sys.stderr)
        sys.exit(2)
    del sys.argv[1]
    sys.exit(program())
