from __future__ import annotations

import pytest

from deltadatabase.limits import SCRUB_FINDINGS_MAX
from deltadatabase.maintenance.findings import (
    DAMAGE,
    Action,
    Counts,
    Finding,
    Kind,
    Ledger,
    report_of,
    summary,
    told_one_by_one,
)


def test_more_findings_than_are_listed_are_counted():
    ledger = Ledger()
    for number in range(SCRUB_FINDINGS_MAX + 5):
        ledger.note(Finding(kind=Kind.INTEGRITY, schema_id="s", key=str(number)))
    assert len(ledger.findings) == SCRUB_FINDINGS_MAX and ledger.left_out == 5
    assert ledger.counts.remaining == SCRUB_FINDINGS_MAX + 5
    report = report_of(ledger, complete=True, dry_run=False, backend="s3", database_id="d")
    assert not report.clean and report.findings_left_out == 5


def test_what_was_repaired_never_hides_what_remains():
    ledger = Ledger()
    for number in range(SCRUB_FINDINGS_MAX + 5):
        ledger.note(Finding(kind=Kind.META_WRONG, action=Action.REBUILT, schema_id="a", key=str(number)))
    ledger.note(Finding(kind=Kind.INTEGRITY, schema_id="z", key="damaged"))
    report = report_of(ledger, complete=True, dry_run=False, backend="s3", database_id="d")
    assert report.findings[0].key == "damaged" and len(report.findings) == SCRUB_FINDINGS_MAX // 10 + 1
    assert len(report.findings) + report.findings_left_out == SCRUB_FINDINGS_MAX + 6


def test_removed_tombstones_are_counted_only():
    ledger = Ledger()
    ledger.note(Finding(kind=Kind.TOMBSTONE, action=Action.REMOVED))
    assert ledger.findings == [] and ledger.counts.number(Kind.TOMBSTONE) == 1
    assert ledger.counts.remaining == 0


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("action", Action)
def test_what_remains_is_what_nobody_has_dealt_with(kind, action):
    remarks = {Kind.QUARANTINED, Kind.LEFTOVER, Kind.TOMBSTONE}
    assert Finding(kind=kind, action=action).remains is (action is Action.NONE and kind not in remarks)


@pytest.mark.parametrize("kind", [kind for kind in Kind if Finding(kind=kind).remains])
def test_the_summary_names_whatever_remains(kind):
    ledger = Ledger()
    ledger.note(Finding(kind=kind))
    lines = summary(ledger.counts, complete=True)
    assert len(lines) == 2 and lines[1].startswith("1 ")
    assert "Nothing remains" not in " ".join(lines)


def test_an_interrupted_scrub_is_never_clean():
    report = report_of(Ledger(), complete=False, dry_run=False, backend="s3", database_id="d")
    assert not report.clean and "interrupted" in report.summary[-1]
    assert summary(Counts(), complete=True)[-1] == "Nothing remains to be done."


def test_ledgers_share_nothing():
    one, other = Ledger(), Ledger()
    one.note(Finding(kind=Kind.INTEGRITY))
    assert other.counts.found == {} and other.findings == [] and Kind.INTEGRITY in DAMAGE


def test_a_person_reads_no_line_for_each_meta_file_and_one_for_each_entity_set_aside():
    damaged = Finding(kind=Kind.INTEGRITY, action=Action.QUARANTINED, schema_id="s", key="a")
    copy = Finding(kind=Kind.QUARANTINED, schema_id="s", key="a")
    older = Finding(kind=Kind.QUARANTINED, schema_id="s", key="b")
    rebuilt = Finding(kind=Kind.META_MISSING, action=Action.REBUILT, schema_id="s", key="c")
    late = Finding(kind=Kind.META_MISSING, action=Action.LEFT_TO_WORKER, schema_id="s", key="d")
    assert told_one_by_one([damaged, copy, older, rebuilt, late]) == [damaged, older]
