"""Rules that every exported metric keeps."""

from __future__ import annotations

import re
from collections.abc import Iterable

from deltadatabase.telemetry.metrics import Family, Kind

LABELS = frozenset(
    {"action", "check", "code", "key_id", "kind", "method", "op", "outcome", "program", "reason", "route"}
    | {"state", "version"}
)
"""Names of labels whose values are few. A schema id, a key, an address or a worker id has no place here."""


def check_families(families: Iterable[Family]) -> None:
    """Fail for a name against the conventions of Prometheus, or a label that may take any value."""
    names = [family.name for family in families]
    assert len(names) == len(set(names))
    for family in families:
        assert re.fullmatch(r"deltadatabase(_[a-z]+)+", family.name), family.name
        assert (family.kind is Kind.COUNTER) == family.name.endswith("_total"), family.name
        assert set(family.labels) <= LABELS, family.name
        assert family.help.endswith("."), family.name
