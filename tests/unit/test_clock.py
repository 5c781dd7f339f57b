from __future__ import annotations

import pytest

from deltadatabase.clock import rfc3339


@pytest.mark.parametrize(
    ("wall_ms", "text"),
    [
        (1_700_000_000_123, "2023-11-14T22:13:20.123Z"),
        (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
        (2**64 - 1, "9999-12-31T23:59:59.999Z"),
        (-62_135_596_800_000, "0001-01-01T00:00:00.000Z"),
        (-(2**63), "0001-01-01T00:00:00.000Z"),
    ],
)
def test_a_time_beyond_all_calendars_is_still_shown(wall_ms, text):
    assert rfc3339(wall_ms) == text
