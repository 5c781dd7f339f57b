"""Back up and restore in the order that docs/operations.md names, while documents are written."""

from __future__ import annotations

import shutil

import pytest
from integration.cluster import MARKER, Cluster, bucket_listing, get, load, put, s3_arguments, s3_client
from support.programs import programs, wait_for

pytestmark = pytest.mark.integration


def copy(weed, source, target, prefix):
    client = s3_client(weed)
    for name in bucket_listing(weed, source):
        if name.startswith(prefix):
            client.copy_object(Bucket=target, Key=name, CopySource={"Bucket": source, "Key": name})


def test_a_backup_of_a_running_service_is_restored(tmp_path, weed):
    """The master key is the one that the main worker made: it is in the state directory."""
    before, after = "to-be-backed-up", "restored"
    with programs(tmp_path) as started:
        cluster = Cluster(started, s3_arguments(weed, before), tmp_path / "state", {})
        cluster.start("one", "two")
        assert put(cluster.url, "kept", f'["{MARKER}"]').status_code == 200
        assert put(cluster.url, "again", f'["{MARKER}"]').status_code == 200
        s3_client(weed).create_bucket(Bucket=after)
        with load(cluster.url) as statuses:
            for prefix in ("files/", "templates/", "cluster/"):
                copy(weed, before, after, prefix)
            # The main worker is stopped for the copy of its state directory, and comes back.
            assert cluster.main.stop() == 0
            shutil.copytree(cluster.state, tmp_path / "copy")
            cluster.start_main()
            served = statuses[200]
            wait_for(lambda: statuses[200] > served + 20, "service goes on")
        cluster.stop()

        restored = Cluster(started, s3_arguments(weed, after), tmp_path / "copy", {})
        restored.start("three")
        assert get(restored.url, "kept").json() == [MARKER]
        assert put(restored.url, "again", f'["{MARKER}", 2]').json()["versions"]["again"] == 2
        store = [*s3_arguments(weed, after), f"-state-dir={restored.state}"]
        for command in ("doctor", "scrub"):
            done = started.run("deltadb", command, *store)
            assert done.returncode == 0, done.stdout + done.stderr
