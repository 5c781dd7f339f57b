"""A main worker whose rotation waits for late puts for one second only; for tests that make none."""

import sys

from deltadatabase.cli.main import main_worker
from deltadatabase.gateway.rotation import Rotation

if __name__ == "__main__":
    Rotation.__init__.__kwdefaults__["settle_s"] = 1.0
    sys.exit(main_worker())
