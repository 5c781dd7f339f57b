"""Checking with a meter, for recursive schemas whose cost cannot be bounded in advance.

The library evaluates a recursive schema anew for each way that leads to it, which on a deep
document may be exponentially many. No call into it can be interrupted, but it runs custom
keywords, and ``allOf`` stops at the first of its members that fails. So each reference ``R``
becomes ``allOf: [meter, R]``: once the meter has run down every further reference fails at
once, the call returns soon, and its answer is thrown away.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from deltadatabase import limits
from deltadatabase.errors import Invalid
from deltadatabase.schema.bounds import inline_costs
from deltadatabase.schema.graph import NOT_EVALUATED_KEYWORDS, REFERENCE_KEYWORDS, Draft, SchemaGraph

METER_KEYWORD: Final = "x-deltadatabase-meter"
_CALL_STEPS: Final = 50
_BYTES_PER_SIZE: Final = 64


class Meter:
    """Counts down the steps of one check at a time."""

    def __init__(self) -> None:
        self._left = 0
        self._sizes: dict[int, int] = {}

    def keyword(self) -> type:
        """Make the custom keyword that draws on this meter; its value is the cost for each value."""
        meter = self

        class Metering:
            def __init__(
                self, parent_schema: dict[str, Any], value: Any, schema_path: list[str | int]
            ) -> None:
                # A schema may hold this word of its own accord.
                self._cost = value if type(value) is int and value >= 0 else 0

            def validate(self, instance: Any) -> None:
                meter.draw(self._cost, instance)

        return Metering

    def draw(self, cost: int, instance: object) -> None:
        """Pay for one reference; ValueError, for the library alone, when nothing is left."""
        size = self._sizes.get(id(instance), 1)
        if isinstance(instance, str):
            size += len(instance) // _BYTES_PER_SIZE
        self._left -= _CALL_STEPS + cost * size
        if self._left < 0:
            raise ValueError("the meter has run down")

    def run(self, is_valid: Callable[[Any], bool], value: object) -> bool:
        """Check one document.

        Raises:
            Invalid: ``too_complex``: it would have taken too long.
        """
        self._left, self._sizes = limits.VALIDATION_STEPS_MAX, {}
        self._measure(value)
        try:
            valid = is_valid(value)
        finally:
            self._sizes = {}
        if self._left < 0:
            raise Invalid("the document is too complex for its recursive schema", code="too_complex")
        return valid

    def _measure(self, value: object) -> int:
        """Remember how many values each array and object holds, long strings counting for more.

        Identity names them: the library hands the document's own objects to custom keywords.
        """
        size = 1
        if isinstance(value, str):
            return size + len(value) // _BYTES_PER_SIZE
        if isinstance(value, (dict, list)):
            for child in value.values() if isinstance(value, dict) else value:
                size += self._measure(child)
            self._sizes[id(value)] = size
        return size


def metered_schema(schema: dict[str, Any] | bool, graph: SchemaGraph) -> dict[str, Any] | bool:
    """Copy a schema with a meter before each of its references."""
    costs = inline_costs(graph.nodes)
    return _copied(schema, graph, costs)  # type: ignore[no-any-return]


def _copied(value: Any, graph: SchemaGraph, costs: list[int]) -> Any:
    if isinstance(value, list):
        return [_copied(item, graph, costs) for item in value]
    if not isinstance(value, dict):
        return value
    copy = {name: _copied(item, graph, costs) for name, item in value.items()}
    index = graph.index_of.get(id(value))
    if index is None or not graph.nodes[index].references:
        return copy
    references = [{word: copy.pop(word)} for word in REFERENCE_KEYWORDS if word in copy]
    if graph.draft <= Draft.DRAFT7:
        # There a reference silences what stands beside it.
        copy = {name: item for name, item in copy.items() if name in NOT_EVALUATED_KEYWORDS}
    meter = {METER_KEYWORD: max(costs[target] for target in graph.nodes[index].references)}
    copy["allOf"] = [*copy.get("allOf", ()), meter, *references]
    return copy
