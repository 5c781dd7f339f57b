from __future__ import annotations

from deltadatabase.cli.children import NOT_FOR_CHILDREN, inherited


def test_workers_inherit_neither_keys_nor_the_address_of_the_metrics() -> None:
    # Otherwise they would all listen where their parent does, and refuse to start.
    environ = {
        "DELTADB_METRICS_ADDR": "127.0.0.1:9090",
        "ADMIN_KEY_FILE": "x",
        "MASTER_KEY": "y",
        "HOME": "/h",
    }
    assert inherited(environ) == {"HOME": "/h"}
    assert "DELTADB_METRICS_ADDR" in NOT_FOR_CHILDREN
