"""What ``serve -workers`` hands on to the workers that it starts."""

from __future__ import annotations

from deltadatabase.cli.children import worker_arguments
from deltadatabase.settings import load_serve, load_worker


def test_all_write_to_one_audit_log():
    settings = load_serve(["-workers=2", "-audit-log=logs/audit.jsonl"], {})
    handed_on = load_worker(worker_arguments(settings, "proc-1", 50051), {})
    assert handed_on.audit_log == settings.audit_log
    without = load_serve(["-workers=2"], {})
    assert load_worker(worker_arguments(without, "proc-1", 50051), {}).audit_log is None
