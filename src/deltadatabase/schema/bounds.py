"""What a schema may cost at most, computed from its graph before it is compiled.

A short schema can ask for an enormous amount of work: references that fan out two ways on
thirty levels visit a billion subschemas for a document ``1``, and the validating library holds
the interpreter meanwhile. So schemas that multiply on one place of a document are refused. Those
that multiply on the way down a document are legitimate (every syntax tree does so a little);
their bounds grow with the document's depth, and where a bound is too high the check is metered.
Pure.
"""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter
from typing import Final

import msgspec

from deltadatabase import limits
from deltadatabase.schema.graph import Node, SchemaGraph, refusal

_BY_DEPTH_VISITS_MAX: Final = 100_000


class ByDepth(msgspec.Struct, frozen=True):
    """A bound that grows with a document's depth.

    Attributes:
        bounds: for depth 0, 1, …
        settled: the last one holds for all deeper documents too; otherwise those have none.
    """

    bounds: tuple[int, ...]
    settled: bool

    def at(self, depth: int) -> int | None:
        """Give the bound for documents of this depth; None: out of all proportion."""
        if depth < len(self.bounds):
            return self.bounds[depth]
        return self.bounds[-1] if self.settled else None

    def within(self, depth: int, times: int, most: int) -> bool:
        """Tell whether ``times`` the bound is at most ``most``."""
        bound = self.at(depth)
        return bound is not None and bound * times <= most


class SchemaCost(msgspec.Struct, frozen=True):
    """Bounds on a schema's work, each along one path from the document's root down to a leaf.

    Attributes:
        steps: the work in units of about 20 ns.
        states: pattern states that a byte of a string can keep busy.
        failures: failures to report; the library collects them all before it gives the first.
        copies_objects: each failure about a name brings a copy of its whole object.
        first_is_cheap: the first failure alone can be had at the price of a plain check.
    """

    steps: ByDepth
    states: ByDepth
    failures: ByDepth
    copies_objects: bool
    first_is_cheap: bool

    def affordable(self, value_count: int, document_bytes: int, depth: int) -> bool:
        """Tell whether a plain check takes about a second at most."""
        return self.steps.within(depth, value_count, limits.VALIDATION_STEPS_MAX) and self.states.within(
            depth, document_bytes, limits.PATTERN_STEPS_MAX
        )

    def explainable(self, value_count: int, depth: int) -> bool:
        """Tell whether all reasons of a refusal can be collected in about a second."""
        times = value_count**2 if self.copies_objects else value_count
        return self.failures.within(depth, times, limits.ISSUE_STEPS_MAX)


def measure(graph: SchemaGraph) -> SchemaCost:
    """Bound a schema's cost.

    Raises:
        Invalid: ``invalid_schema``: too many subschemas meet on one value, or one meets itself.
    """
    nodes = graph.nodes
    inner_first = _in_place_order(nodes)
    _check_expansion(nodes, inner_first)
    steps = _by_depth(nodes, inner_first, [node.steps for node in nodes], limits.VALIDATION_STEPS_MAX)
    return SchemaCost(
        steps=steps,
        states=_by_depth(nodes, inner_first, [node.states for node in nodes], limits.PATTERN_STEPS_MAX),
        failures=_by_depth(nodes, inner_first, [node.failures for node in nodes], limits.ISSUE_STEPS_MAX),
        copies_objects=any(node.names for node in nodes),
        first_is_cheap=steps.settled and not any(node.chooses for node in nodes),
    )


def inline_costs(nodes: list[Node]) -> list[int]:
    """Bound the work of each node and what is written inside of it, without what it refers to.

    Unit: steps for each value and for each 64 bytes of string.
    """
    # Whatever is written inside comes later, but for what only references reach: those are no edges here.
    costs = [node.steps + node.states for node in nodes]
    edges = {i: [*node.inline, *node.summed, *node.exclusive] for i, node in enumerate(nodes)}
    for i in TopologicalSorter(edges).static_order():
        node = nodes[i]
        costs[i] += node.repeats * sum(costs[j] for j in node.inline)
        costs[i] += sum(costs[j] for j in node.summed)
        costs[i] += max((costs[j] for j in node.exclusive), default=0)
    return costs


def _in_place_order(nodes: list[Node]) -> list[int]:
    """Order the nodes so that each follows those that it evaluates in place."""
    try:
        return list(TopologicalSorter({i: node.in_place() for i, node in enumerate(nodes)}).static_order())
    except CycleError:
        raise refusal("a subschema refers to itself without going deeper into the document") from None


def _check_expansion(nodes: list[Node], inner_first: list[int]) -> None:
    """Refuse schemas whose references multiply on one value."""
    expansion = [1] * len(nodes)
    for i in inner_first:
        expansion[i] += nodes[i].repeats * sum(expansion[j] for j in nodes[i].in_place())
        if expansion[i] > limits.SCHEMA_EXPANSION_MAX:
            raise refusal(
                f"references make too many subschemas meet on one value max={limits.SCHEMA_EXPANSION_MAX}"
            )


def _by_depth(nodes: list[Node], inner_first: list[int], own: list[int], most: int) -> ByDepth:
    """Add up ``own`` along the costliest path, for documents of depth 0, 1, … until it settles.

    Ends early above ``most``, where no document is affordable, and on very large schemas.
    """
    in_place = [node.in_place() for node in nodes]
    visits = sum(
        1 + len(in_place[i]) + len(node.summed) + len(node.exclusive) for i, node in enumerate(nodes)
    )
    level: list[int] | None = None
    bounds: list[int] = []
    for _ in range(min(limits.JSON_DEPTH_MAX + 1, 2 + _BY_DEPTH_VISITS_MAX // visits)):
        deeper = list(own)
        for i in inner_first:
            node = nodes[i]
            deeper[i] += node.repeats * sum(deeper[j] for j in in_place[i])
            if level is not None:
                deeper[i] += sum(level[j] for j in node.summed)
                deeper[i] += max((level[j] for j in node.exclusive), default=0)
            deeper[i] = min(deeper[i], most + 1)
        if deeper == level:
            return ByDepth(tuple(bounds), settled=True)
        bounds.append(deeper[0])
        if deeper[0] > most:
            break
        level = deeper
    return ByDepth(tuple(bounds), settled=False)
