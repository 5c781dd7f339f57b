"""What a schema may cost at most, computed from its graph before it is compiled.

A short schema can ask for an enormous amount of work: references that fan out two ways on
thirty levels visit a billion subschemas for a document ``1``, and the validating library holds
the interpreter meanwhile. So schemas that multiply on one place of a document are refused, and
those that are merely expensive limit the size of the documents they judge. Pure.
"""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter
from typing import Final

import msgspec

from deltadatabase import limits
from deltadatabase.schema.graph import Draft, Node, draft_of, read_graph, refusal

# Recursive references cost the library bookkeeping that other references do not.
_RECURSION_STEPS: Final = 4
_LEVEL_VISITS_MAX: Final = 100_000


class SchemaCost(msgspec.Struct, frozen=True):
    """Bounds on the work of one schema, each for one value of a document.

    Attributes:
        steps: keyword evaluations that any one path from the document's root to a leaf can cause,
            in units of about 20 ns.
        states: pattern states that a byte of a string can keep busy.
        failures: failures that can be reported of such a path, by depth of the document: the library
            collects them all before it gives the first. Deeper than the list: too many.
        settled: the last element of ``failures`` holds for all deeper documents too.
        copies_objects: each failure about a name brings a copy of its whole object.
        first_is_cheap: the first failure alone can be had at the price of a plain check.
    """

    steps: int
    states: int
    failures: tuple[int, ...]
    settled: bool
    copies_objects: bool
    first_is_cheap: bool

    def affordable(self, value_count: int, document_bytes: int) -> bool:
        """Tell whether checking a document of this size stays within the limits of about a second."""
        return (
            value_count * self.steps <= limits.VALIDATION_STEPS_MAX
            and document_bytes * self.states <= limits.PATTERN_STEPS_MAX
        )

    def explainable(self, value_count: int, depth: int) -> bool:
        """Tell whether all reasons of a refusal can be collected in about a second."""
        if depth >= len(self.failures) and not self.settled:
            return False
        copied_count = value_count**2 if self.copies_objects else value_count
        return copied_count * self.failures[min(depth, len(self.failures) - 1)] <= limits.ISSUE_STEPS_MAX


def measure_schema(schema: object, schema_bytes: int) -> tuple[Draft, SchemaCost]:
    """Find a decoded schema's draft and cost.

    Raises:
        Invalid: ``invalid_schema``: too large, of an unknown draft, with a reference out of its
            own text, or with more work on one place of a document than the limits allow.
    """
    if schema_bytes > limits.DOCUMENT_BYTES_MAX_DEFAULT:
        raise refusal(f"the schema is too large bytes_max={limits.DOCUMENT_BYTES_MAX_DEFAULT}")
    draft = draft_of(schema)
    nodes = read_graph(schema, draft)
    inner_first = _in_place_order(nodes)
    _check_expansion(nodes, inner_first)
    components = _components(nodes)
    steps, states = _worst_path(nodes, inner_first, components)
    if steps > limits.SCHEMA_STEPS_MAX:
        raise refusal("the schema takes too many steps for one value of a document")
    failures, settled = _failures_by_depth(nodes, inner_first)
    recursive = any(_is_recursive(nodes, component) for component in components)
    chooses = any(node.chooses for node in nodes)
    return draft, SchemaCost(
        steps=steps,
        states=states,
        failures=failures,
        settled=settled,
        copies_objects=any(node.names for node in nodes),
        first_is_cheap=not recursive and not chooses,
    )


def _in_place_order(nodes: list[Node]) -> list[int]:
    """Order the nodes so that each follows those that it evaluates in place."""
    try:
        return list(TopologicalSorter({i: node.in_place for i, node in enumerate(nodes)}).static_order())
    except CycleError:
        raise refusal("a subschema refers to itself without going deeper into the document") from None


def _check_expansion(nodes: list[Node], inner_first: list[int]) -> None:
    """Count the subschemas evaluated on one value from each node on; refuse where they multiply."""
    expansion = [1] * len(nodes)
    for i in inner_first:
        expansion[i] += nodes[i].repeats * sum(expansion[j] for j in nodes[i].in_place)
        if expansion[i] > limits.SCHEMA_EXPANSION_MAX:
            raise refusal(
                f"references make too many subschemas meet on one value max={limits.SCHEMA_EXPANSION_MAX}"
            )


def _worst_path(nodes: list[Node], inner_first: list[int], components: list[list[int]]) -> tuple[int, int]:
    """Add up steps and states along the costliest path down a document, from the root node on.

    Without recursion that is a plain sum. What is recursive the library evaluates once at most on
    each value, together with all that follows in place, so a component counts each node once so.
    """
    sums = []
    for own, recursion_factor in (
        ([node.steps for node in nodes], _RECURSION_STEPS),
        ([node.states for node in nodes], 1),
    ):
        in_place, total = list(own), [0] * len(nodes)
        for i in inner_first:
            in_place[i] += nodes[i].repeats * sum(in_place[j] for j in nodes[i].in_place)
        for component in components:
            recursive = _is_recursive(nodes, component)
            cost = 0
            for i in component:
                node = nodes[i]
                cost += recursion_factor * in_place[i] if recursive else own[i]
                cost += node.repeats * sum(total[j] for j in node.in_place)
                cost += sum(total[j] for j in node.summed)
                cost += max((total[j] for j in node.exclusive), default=0)
            for i in component:
                total[i] = cost
        sums.append(total[0])
    steps, states = sums
    return steps, states


def _is_recursive(nodes: list[Node], component: list[int]) -> bool:
    return len(component) > 1 or component[0] in nodes[component[0]].children()


def _failures_by_depth(nodes: list[Node], inner_first: list[int]) -> tuple[tuple[int, ...], bool]:
    """Count subschemas along a path for documents of depth 0, 1, …, until it settles or explodes."""
    level = [node.failures for node in nodes]
    for i in inner_first:
        level[i] += nodes[i].repeats * sum(level[j] for j in nodes[i].in_place)
    found = [level[0]]
    visits = sum(1 for node in nodes for _ in node.children()) + len(nodes)
    for _ in range(min(limits.JSON_DEPTH_MAX, 1 + _LEVEL_VISITS_MAX // visits)):
        deeper = [0] * len(nodes)
        for i in inner_first:
            node = nodes[i]
            deeper[i] = (
                node.failures
                + node.repeats * sum(deeper[j] for j in node.in_place)
                + sum(level[j] for j in node.summed)
                + max((level[j] for j in node.exclusive), default=0)
            )
        if deeper == level:
            return tuple(found), True
        found.append(deeper[0])
        if deeper[0] > limits.ISSUE_STEPS_MAX:
            break
        level = [min(count, limits.ISSUE_STEPS_MAX + 1) for count in deeper]
    return tuple(found), False


def _components(nodes: list[Node]) -> list[list[int]]:
    """Strongly connected components, each after those that it leads to.

    Kosaraju's algorithm: finishing order of a walk, then walks against the edges.
    """
    finished: list[int] = []
    seen = [False] * len(nodes)
    against: list[list[int]] = [[] for _ in nodes]
    for start, node in enumerate(nodes):
        for j in node.children():
            against[j].append(start)
        if seen[start]:
            continue
        seen[start] = True
        stack = [(start, nodes[start].children())]
        while stack:
            i, rest = stack[-1]
            for j in rest:
                if not seen[j]:
                    seen[j] = True
                    stack.append((j, nodes[j].children()))
                    break
            else:
                finished.append(i)
                stack.pop()
    components: list[list[int]] = []
    placed = [False] * len(nodes)
    for start in reversed(finished):
        if placed[start]:
            continue
        placed[start] = True
        component = [start]
        for i in component:  # Grows while it is walked.
            for j in against[i]:
                if not placed[j]:
                    placed[j] = True
                    component.append(j)
        components.append(component)
    components.reverse()
    return components
