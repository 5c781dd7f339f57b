from __future__ import annotations

import stat

import pytest

from deltadatabase.errors import StartupError
from deltadatabase.maintenance.findings import Action, Finding, Kind, Ledger
from deltadatabase.maintenance.position import FORMAT, Position, Positions


def position(after: str = "files/a") -> Position:
    ledger = Ledger()
    ledger.note(Finding(kind=Kind.META_WRONG, action=Action.REBUILT, schema_id="notes", key="ü"))
    return Position(
        format=FORMAT, database_id="d", tasks={"dry_run": False}, token="t", after=after, ledger=ledger
    )


def test_a_position_comes_back_as_it_was_saved(tmp_path):
    positions = Positions(tmp_path / "state")
    assert positions.load() is None
    positions.save(position("files/a"))
    positions.save(position("files/b"))
    assert positions.load() == position("files/b")
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == ["scrub.json", "scrub.lock"]
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "state" / "scrub.json").stat().st_mode) == 0o600
    positions.clear()
    positions.clear()
    assert positions.load() is None


def test_one_scrub_at_a_time(tmp_path):
    first = Positions(tmp_path)
    with pytest.raises(StartupError) as refused:
        Positions(tmp_path)
    assert refused.value.code == "locked"
    first.close()
    Positions(tmp_path).close()


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff", b'{"format": 1}', b'{"other":' + b"[" * 5000])
def test_a_damaged_file_is_refused_and_kept(tmp_path, text):
    (tmp_path / "scrub.json").write_bytes(text)
    with pytest.raises(StartupError, match="without -resume"):
        Positions(tmp_path).load()
    assert (tmp_path / "scrub.json").read_bytes() == text


def test_a_file_of_a_later_version_is_refused(tmp_path):
    import msgspec

    positions = Positions(tmp_path)
    positions.save(msgspec.structs.replace(position(), format=FORMAT + 1))
    with pytest.raises(StartupError, match="without -resume"):
        positions.load()


def test_a_place_that_cannot_be_used_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StartupError) as refused:
        Positions(tmp_path / "file")
    assert refused.value.code == "state_unusable" and str(tmp_path) not in refused.value.detail
