"""A JSON Schema as a graph: which subschemas are evaluated together on one place of a document.

References are followed inside the schema's own text alone; one that leads elsewhere is refused
here, before any library sees it. Keywords as in the JSON Schema drafts 4, 6, 7, 2019-09 and
2020-12; where the drafts differ, the graph holds the edges of all of them, which at worst
overstates the work. Pure.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable
from typing import Final, NamedTuple
from urllib.parse import unquote, urldefrag, urljoin

from deltadatabase import limits
from deltadatabase.errors import Invalid


class Draft(enum.IntEnum):
    """A version of the JSON Schema language, in order of age."""

    DRAFT4 = 4
    DRAFT6 = 6
    DRAFT7 = 7
    DRAFT2019 = 2019
    DRAFT2020 = 2020


_DRAFT_OF_URI: Final = {
    "http://json-schema.org/draft-04/schema": Draft.DRAFT4,
    "http://json-schema.org/draft-06/schema": Draft.DRAFT6,
    "http://json-schema.org/draft-07/schema": Draft.DRAFT7,
    "https://json-schema.org/draft/2019-09/schema": Draft.DRAFT2019,
    "https://json-schema.org/draft/2020-12/schema": Draft.DRAFT2020,
}

# Applied to the same place of the document as the schema that holds them.
_IN_PLACE_LISTS: Final = ("allOf", "anyOf", "oneOf")
_IN_PLACE_SINGLES: Final = ("not", "if", "then", "else")
_IN_PLACE_MAPS: Final = ("dependentSchemas", "dependencies")
# Applied to members or items: the first may all meet on one child, of the others at most one does.
_CHILD_SINGLES: Final = (
    "additionalProperties",
    "unevaluatedProperties",
    "propertyNames",
    "items",
    "additionalItems",
    "unevaluatedItems",
    "contains",
)
_CHILD_MAPS: Final = ("patternProperties",)
_EXCLUSIVE_MAPS: Final = ("properties",)
_EXCLUSIVE_LISTS: Final = ("items", "prefixItems")
# Hold schemas that are evaluated only where something refers to them.
_SHELF_MAPS: Final = ("$defs", "definitions")
_SHELF_SINGLES: Final = ("contentSchema",)

REFERENCE_KEYWORDS: Final = ("$ref", "$dynamicRef", "$recursiveRef")
NOT_EVALUATED_KEYWORDS: Final = frozenset(
    {*_SHELF_MAPS, *_SHELF_SINGLES, "$schema", "$id", "id", "$comment", "title", "description", "default"}
)
"""Those that assert nothing: they may stand beside a reference in any draft."""

_CHOICES: Final = ("anyOf", "oneOf", "propertyNames")

_PATTERN_TOKEN: Final = re.compile(
    r"\\(?:[pP]\{[^}]*\}|.)|\[\^?\]?(?:\\.|[^\]\\])*\]|\{(\d{1,9})(,?)(\d{0,9})\}|.", re.DOTALL
)


class Node:
    """One subschema.

    Attributes:
        failures: failures that its own keywords can report of one value.
        steps: cost of its own keywords on one value, in units of about 20 ns.
        states: automaton states that its patterns may keep busy for each byte of a string.
        inline: nodes written inside of it and evaluated on the same value.
        references: nodes that it refers to, evaluated on the same value.
        summed: nodes that may all be evaluated on one child.
        exclusive: nodes of which each child meets at most one.
        repeats: how often the in-place nodes run: ``unevaluated…`` runs them again.
        chooses: it has alternatives, so that a failure drags all their reasons along.
        names: it judges names, and each failure drags a copy of the whole object along.
    """

    __slots__ = (
        "chooses",
        "exclusive",
        "failures",
        "inline",
        "names",
        "references",
        "repeats",
        "states",
        "steps",
        "summed",
    )

    def __init__(self) -> None:
        self.failures = 1
        self.steps = 1
        self.states = 0
        self.inline: list[int] = []
        self.references: list[int] = []
        self.summed: list[int] = []
        self.exclusive: list[int] = []
        self.repeats = 1
        self.chooses = False
        self.names = False

    def in_place(self) -> list[int]:
        """Every node evaluated on the same value."""
        return self.inline + self.references


class SchemaGraph(NamedTuple):
    """A schema's nodes, the root first, and where in the decoded schema each object among them stands.

    ``index_of`` names the schema's own objects by identity: it holds while the schema lives. ``targets``
    has the schema that a reference leads to, by the identity of what holds it and the keyword; those
    that are chosen while validating are not there.
    """

    draft: Draft
    nodes: list[Node]
    index_of: dict[int, int]
    targets: dict[tuple[int, str], object]


def draft_of(schema: object) -> Draft:
    """Tell the draft from ``$schema``; 2020-12 without one.

    Raises:
        Invalid: ``invalid_schema``: an unknown draft.
    """
    if not isinstance(schema, dict) or "$schema" not in schema:
        return Draft.DRAFT2020
    uri = schema["$schema"]
    draft = _DRAFT_OF_URI.get(uri.removesuffix("#")) if isinstance(uri, str) else None
    if draft is None:
        raise refusal("$schema must name draft 4, 6, 7, 2019-09 or 2020-12")
    return draft


def read_graph(schema: object) -> SchemaGraph:
    """Read a decoded schema.

    Raises:
        Invalid: ``invalid_schema``: an unknown draft, a reference out of the text or to nothing in
            it, one name for two subschemas, or more subschemas or patterns than the limits allow.
    """
    return _Reader(draft_of(schema)).read(schema)


def refusal(detail: str) -> Invalid:
    """Make the error for a schema that is out of bounds."""
    return Invalid(detail, code="invalid_schema")


class _Reader:
    """Walks a schema keyword by keyword, then follows its references until none is new."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._id_keyword = "id" if draft is Draft.DRAFT4 else "$id"
        self._nodes: list[Node] = []
        self._schemas: list[object] = []
        self._targets_of: dict[tuple[int, str], object] = {}
        self._index_of: dict[int, int] = {}
        self._resources: dict[str, object] = {}
        self._anchors: dict[tuple[str, str], int] = {}
        self._dynamic: dict[str, list[int]] = {}
        self._references: list[tuple[int, str, str, str]] = []
        self._pending: list[tuple[int, dict[str, object], str]] = []
        self._patterns: set[str] = set()
        self._named_allowed = True

    def read(self, schema: object) -> SchemaGraph:
        self._resources[""] = schema
        self._add(schema, "")
        self._walk()
        # A reference may point into text that no keyword makes a schema. Names are not looked
        # for there: nothing says whether they count.
        self._named_allowed = False
        while self._references:
            index, keyword, reference, base = self._references.pop()
            targets = self._targets(keyword, reference, base)
            self._nodes[index].references += targets
            if len(targets) == 1:
                self._targets_of[id(self._schemas[index]), keyword] = self._schemas[targets[0]]
            self._walk()
        return SchemaGraph(self._draft, self._nodes, self._index_of, self._targets_of)

    def _add(self, value: object, base: str) -> int:
        """Give a schema's index, queueing it when it is new."""
        if isinstance(value, dict) and id(value) in self._index_of:
            return self._index_of[id(value)]
        index = len(self._nodes)
        if index >= limits.SCHEMA_NODES_MAX:
            raise refusal(f"the schema has too many subschemas max={limits.SCHEMA_NODES_MAX}")
        self._nodes.append(Node())
        self._schemas.append(value)
        if isinstance(value, dict):
            self._index_of[id(value)] = index
            self._pending.append((index, value, base))
        return index

    def _add_all(self, values: Iterable[object], base: str) -> list[int]:
        return [self._add(value, base) for value in values if isinstance(value, (dict, bool))]

    def _walk(self) -> None:
        while self._pending:
            index, schema, base = self._pending.pop()
            base = self._enter(index, schema, base)
            self._link(self._nodes[index], schema, base)
            for keyword in REFERENCE_KEYWORDS:
                reference = schema.get(keyword)
                if isinstance(reference, str):
                    self._nodes[index].steps += 5
                    self._references.append((index, keyword, reference, base))
            self._weigh(self._nodes[index], schema)

    def _enter(self, index: int, schema: dict[str, object], base: str) -> str:
        """Register the names that a schema gives itself; return the base for what is inside."""
        names = [schema.get(word) for word in (self._id_keyword, "$anchor", "$dynamicAnchor")]
        if not self._named_allowed and any(isinstance(name, str) for name in names):
            raise refusal("a $ref points to a named schema in a place that holds no schemas")
        if index and "$schema" in schema and draft_of(schema) is not self._draft:
            raise refusal("an embedded schema names another draft than the whole")
        name, anchor, dynamic = names
        if isinstance(name, str) and not (index and self._draft <= Draft.DRAFT7 and "$ref" in schema):
            uri, fragment = urldefrag(_joined(base, name))
            if not name.startswith("#"):
                base = uri
                if self._resources.setdefault(base, schema) is not schema:
                    raise refusal("two subschemas have one id")
            if fragment:
                self._name(base, fragment, index)
        if isinstance(anchor, str):
            self._name(base, anchor, index)
        if isinstance(dynamic, str):
            self._name(base, dynamic, index)
            self._dynamic.setdefault(dynamic, []).append(index)
        if schema.get("$recursiveAnchor") is True:
            self._dynamic.setdefault("", []).append(index)
        return base

    def _name(self, base: str, anchor: str, index: int) -> None:
        if self._anchors.setdefault((base, anchor), index) != index:
            raise refusal("two subschemas have one anchor")

    def _link(self, node: Node, schema: dict[str, object], base: str) -> None:
        for keyword, value in schema.items():
            if isinstance(value, dict):
                if keyword in _IN_PLACE_MAPS:
                    node.inline += self._add_all(value.values(), base)
                elif keyword in _CHILD_MAPS:
                    node.summed += self._add_all(value.values(), base)
                elif keyword in _EXCLUSIVE_MAPS:
                    node.exclusive += self._add_all(value.values(), base)
                elif keyword in _SHELF_MAPS:
                    self._add_all(value.values(), base)
            elif isinstance(value, list):
                if keyword in _IN_PLACE_LISTS:
                    node.inline += self._add_all(value, base)
                elif keyword in _EXCLUSIVE_LISTS:
                    node.exclusive += self._add_all(value, base)
            if isinstance(value, (dict, bool)):
                if keyword in _IN_PLACE_SINGLES:
                    node.inline.append(self._add(value, base))
                elif keyword in _CHILD_SINGLES:
                    node.summed.append(self._add(value, base))
                elif keyword in _SHELF_SINGLES:
                    self._add(value, base)
        node.names = "propertyNames" in schema
        node.chooses = any(keyword in schema for keyword in _CHOICES)
        if "unevaluatedProperties" in schema or "unevaluatedItems" in schema:
            node.repeats = 2

    def _targets(self, keyword: str, reference: str, base: str) -> list[int]:
        """Every node that a reference may lead to: the dynamic ones choose while validating."""
        uri, fragment = base, reference.removeprefix("#")
        if reference and not reference.startswith("#"):
            uri, fragment = urldefrag(_joined(base, reference))
        if uri not in self._resources:
            raise refusal(f"a {keyword} leads out of the schema; only references inside of it are followed")
        fragment = unquote(fragment)
        if fragment and not fragment.startswith("/"):
            target = self._anchors.get((uri, fragment))
            if target is None:
                raise refusal(f"a {keyword} names an anchor that does not exist")
        else:
            target = self._at_pointer(keyword, uri, fragment)
        if keyword == "$ref":
            return [target]
        return [target, *(index for index in self._dynamic.get(fragment, ()) if index != target)]

    def _at_pointer(self, keyword: str, uri: str, pointer: str) -> int:
        value = self._resources[uri]
        named_between = False
        for position, part in enumerate(pointer.split("/")[1:]):
            if isinstance(value, dict):
                named_between |= position > 0 and isinstance(value.get(self._id_keyword), str)
                value = value.get(part.replace("~1", "/").replace("~0", "~"))
            elif isinstance(value, list) and re.fullmatch("[0-9]{1,6}", part) and int(part) < len(value):
                value = value[int(part)]
            else:
                value = None
        if not isinstance(value, (dict, bool)):
            raise refusal(f"a {keyword} points to nothing that is a schema")
        if named_between and id(value) not in self._index_of:
            raise refusal(f"a {keyword} points through a named schema to a place that holds no schemas")
        return self._add(value, uri)

    def _weigh(self, node: Node, schema: dict[str, object]) -> None:
        """Estimate the cost of a schema's own keywords: measured, rounded up."""
        required, options = schema.get("required"), schema.get("enum")
        if isinstance(required, list):
            node.steps += 8 * len(required)
            node.failures += len(required)
        if isinstance(options, list):
            node.steps += _enum_steps(options)
        if "const" in schema:
            node.steps += 8
        if "multipleOf" in schema:
            node.steps += 40
        if "uniqueItems" in schema:
            node.steps += 10
        if "format" in schema:
            node.steps += 10
        for keyword in ("dependentRequired", "dependencies"):
            names = schema.get(keyword)
            if isinstance(names, dict):
                dependent = sum(1 + len(value) for value in names.values() if isinstance(value, list))
                node.steps += 8 * dependent
                node.failures += dependent
        named = schema.get("patternProperties")
        for pattern in (schema.get("pattern"), *(named if isinstance(named, dict) else ())):
            if isinstance(pattern, str):
                self._patterns.add(pattern)
                node.steps += 3
                node.states += pattern_states(pattern)
        if len(self._patterns) > limits.SCHEMA_PATTERNS_MAX:
            raise refusal(f"the schema has too many different patterns max={limits.SCHEMA_PATTERNS_MAX}")


def pattern_states(pattern: str) -> int:
    """Bound how many states of a pattern's automaton can be alive at once; 1 for the plain ones.

    A counted repetition multiplies what it repeats. A pattern that is anchored and has one
    element of variable length at most follows a single path, whatever its size.
    """
    open_groups, last, variable = [0], 0, 0
    for token in _PATTERN_TOKEN.finditer(pattern):
        text = token[0]
        if token[1]:
            count = max(int(token[1]), int(token[3] or 0))
            variable += bool(token[2]) and token[1] != token[3]
            open_groups[-1] += last * (count - 1) if count else 0
            last *= max(count, 1)
        elif text == "(":
            open_groups.append(0)
        elif text == ")" and len(open_groups) > 1:
            last = open_groups.pop()
            open_groups[-1] += last
        elif text in "*+?":
            variable += 1
        elif text == "|":
            variable += 2  # An anchor before it holds for one side only.
        elif text not in "^$":
            last = 1
            open_groups[-1] += 1
    return 1 if pattern.startswith("^") and variable <= 1 else max(1, sum(open_groups))


def _enum_steps(options: list[object]) -> int:
    """Options of one plain kind are looked up in a table, all others compared one by one."""
    if all(isinstance(option, str) for option in options) or all(type(option) is int for option in options):
        return 1
    return sum(100 if isinstance(option, (float, dict, list)) else 10 for option in options)


def _joined(base: str, reference: str) -> str:
    try:
        return urljoin(base, reference)
    except ValueError:
        raise refusal("an id or a reference is not a URI") from None
