from __future__ import annotations

from pathlib import Path

import pytest

from deltadatabase.storage.mounts import filesystem_type, type_in_mountinfo

MOUNTINFO = r"""
22 1 259:2 / / rw,relatime shared:1 - ext4 /dev/root rw
23 22 0:21 / /proc rw - proc proc rw
40 22 0:50 / /data rw shared:5 master:2 - nfs4 server:/export rw,vers=4.2
41 40 0:51 / /data/inner rw - tmpfs tmpfs rw
42 22 0:52 / /with\040space rw - cifs //server/share rw
43 22 0:53 / /twice rw - ext4 /dev/a rw
44 22 0:54 / /twice rw - xfs /dev/b rw
45 22 0:55 / /far rw - fuse.sshfs host:/far rw
broken line
"""


@pytest.mark.parametrize(
    ("directory", "kind"),
    [
        ("/", "ext4"),
        ("/home/x", "ext4"),
        ("/data", "nfs4"),
        ("/data/a/b", "nfs4"),
        ("/database", "ext4"),
        ("/data/inner/x", "tmpfs"),
        ("/with space/x", "cifs"),
        ("/twice/x", "xfs"),
        ("/far/away", "fuse.sshfs"),
    ],
)
def test_the_innermost_latest_mount_counts(directory: str, kind: str) -> None:
    assert type_in_mountinfo(MOUNTINFO, Path(directory)) == kind


def test_without_mounts_the_type_is_unknown() -> None:
    assert type_in_mountinfo("", Path("/")) == ""


def test_this_machine_knows_its_own() -> None:
    assert filesystem_type(Path("/proc")) == "proc"
