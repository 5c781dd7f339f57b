"""How the tests are dealt out to processes that run beside each other, as ``just test`` lets them.

A plain ``pytest`` runs them one after the other, and needs nothing of this.
"""

from __future__ import annotations

from typing import Final

from xdist.scheduler import LoadScopeScheduling

COMPUTING: Final = ("tests/crash/", "tests/sim/")
"""Folders whose tests compute for long and wait for nothing.

They come last, when those that wait no longer leave the machine idle.
"""

SINGLY: Final = (*COMPUTING, "tests/integration/test_scrub.py")
"""Files of long tests that share nothing: a process takes one test of them, not all.

Tests that load the machine, as ``test_show.py`` does, stay together instead, so that they are not at work
beside each other.
"""


def comes_last(test: str) -> bool:
    """Whether the test with this node id runs after those that wait."""
    return test.startswith(COMPUTING)


class Dealing(LoadScopeScheduling):  # type: ignore[misc]
    """Deals out whole files, in the order in which they were collected, and single tests of ``SINGLY``.

    xdist's own ``--dist loadgroup`` could do the same by marks, but version 3.8.0 notes them where
    pytest 9.2 no longer looks: it then deals out single tests and says nothing.
    """

    def _split_scope(self, nodeid: str) -> str:
        return nodeid if nodeid.startswith(SINGLY) else nodeid.partition("::")[0]
