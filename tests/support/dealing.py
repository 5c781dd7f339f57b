"""How the tests are dealt out to processes that run beside each other, as ``just test`` lets them.

A plain ``pytest`` runs them one after the other, and needs nothing of this.
"""

from __future__ import annotations

from typing import Final

from xdist.scheduler import LoadScopeScheduling

SPREAD: Final = ("tests/crash/", "tests/sim/")
"""Folders whose tests compute for long, wait for nothing and share nothing.

They come last, when those that wait no longer leave the machine idle, and each for itself.
"""


def is_spread(test: str) -> bool:
    """Whether the test with this node id may run in another process than the rest of its file."""
    return test.startswith(SPREAD)


class Dealing(LoadScopeScheduling):  # type: ignore[misc]
    """Deals out whole files, in the order in which they were collected, and single tests of ``SPREAD``.

    xdist's own ``--dist loadgroup`` could do the same by marks, but version 3.8.0 notes them where
    pytest 9.2 no longer looks: it then deals out single tests and says nothing.
    """

    def _split_scope(self, nodeid: str) -> str:
        return nodeid if is_spread(nodeid) else nodeid.partition("::")[0]
