"""A JSON Schema of any draft as one of 2020-12 that can stand inside of another document.

For descriptions of an API: names and references of a schema's own would be taken for those of the
document around it, and older drafts say some things in other words. So every reference is
resolved (``schema.graph``) and written as a pointer into that document, what is referred to
moves to ``$defs``, and only keywords remain that the draft at hand knows. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from deltadatabase import limits
from deltadatabase.schema.document import check_document
from deltadatabase.schema.graph import REFERENCE_KEYWORDS, Draft, SchemaGraph, read_graph, refusal

_ANNOTATIONS: Final = ("title", "description")
_DRAFT4: Final = (
    "type enum multipleOf maximum minimum exclusiveMaximum exclusiveMinimum maxLength minLength pattern "
    "maxItems minItems uniqueItems maxProperties minProperties required format title description "
    "properties patternProperties additionalProperties items allOf anyOf oneOf not"
)
_SINCE: Final[dict[str, Draft]] = {
    word: draft
    for draft, words in {
        Draft.DRAFT4: _DRAFT4,
        Draft.DRAFT6: "const contains propertyNames examples",
        Draft.DRAFT7: "if then else contentEncoding contentMediaType readOnly writeOnly $comment",
        Draft.DRAFT2019: (
            "maxContains minContains dependentRequired dependentSchemas unevaluatedProperties deprecated"
        ),
        # Before 2020-12 items that `contains` had matched counted as unevaluated.
        Draft.DRAFT2020: "prefixItems unevaluatedItems",
    }.items()
    for word in words.split()
}
"""What is copied, and the first draft that knows it: elsewhere the word has no meaning."""
_SINGLES: Final = frozenset(
    {
        *("not", "if", "then", "else", "contains", "propertyNames", "items"),
        *("additionalProperties", "unevaluatedProperties", "unevaluatedItems"),
    }
)
_LISTS: Final = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_MAPS: Final = frozenset({"properties", "patternProperties", "dependentSchemas"})
_DATA: Final = frozenset({"const", "enum", "examples"})

_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9._-]+")


def embed(text: bytes, at: str) -> dict[str, Any]:
    """Give a schema for the place ``at`` of a document, such as ``#/components/schemas/chat.v1``.

    It allows the same documents, but for references that are chosen while validating, data that
    look like references, and 2019-09's ``unevaluatedItems``: these are left out. So is ``default``:
    nothing says that a default is allowed, and readers of descriptions check that.

    Raises:
        Invalid: ``invalid_schema``: not a schema that is served here.
    """
    if len(text) > limits.DOCUMENT_BYTES_MAX_DEFAULT:
        raise refusal(f"the schema is too large bytes_max={limits.DOCUMENT_BYTES_MAX_DEFAULT}")
    schema = check_document(text)
    if isinstance(schema, bool):
        return {} if schema else {"not": {}}
    if not isinstance(schema, dict):
        raise refusal("a schema is an object or a boolean")
    graph = read_graph(schema)
    if not _is_schema(schema):
        raise refusal("this is not a valid schema of its draft")
    return _Embedding(schema, graph, at).whole()


def _is_schema(schema: dict[str, Any]) -> bool:
    # Three megabytes that a main worker needs for this alone.
    import jsonschema_rs

    try:
        return jsonschema_rs.meta.is_valid(schema)
    except (ValueError, jsonschema_rs.ReferencingError):
        return False


class _Embedding:
    """One schema on its way into a document."""

    def __init__(self, schema: dict[str, Any], graph: SchemaGraph, at: str) -> None:
        self._schema = schema
        self._graph = graph
        self._at = at
        self._names: dict[int, str] = {}
        self._shelf: list[dict[str, Any]] = []
        for target in graph.targets.values():
            if isinstance(target, dict) and target is not schema and id(target) not in self._names:
                self._names[id(target)] = ""
                self._shelf.append(target)
        self._name(schema)

    def _name(self, schema: Any) -> None:
        """Give what is referred to the names that it has on a shelf, others a number."""
        taken = set[str]()
        for part, name in [*_shelved(schema), *((part, "") for part in self._shelf)]:
            if self._names.get(id(part)) == "":
                plain = _NOT_IN_NAMES.sub("_", name)
                name, number = plain, 1
                while not name or name in taken:
                    number += 1
                    name = f"{plain or 'part'}_{number}"
                taken.add(name)
                self._names[id(part)] = name

    def whole(self) -> dict[str, Any]:
        """The schema, with what it refers to in ``$defs``."""
        shelf = {self._names[id(part)]: self._copied(part) for part in self._shelf}
        whole = self._copied(self._schema)
        return whole | {"$defs": shelf} if shelf else whole

    def _placed(self, value: Any) -> Any:
        """A subschema where it stands: what is referred to stands in ``$defs`` alone."""
        if not isinstance(value, dict):
            return value
        return self._reference(value) if id(value) in self._names else self._copied(value)

    def _reference(self, target: dict[str, Any]) -> dict[str, Any]:
        return {"$ref": self._at if target is self._schema else f"{self._at}/$defs/{self._names[id(target)]}"}

    def _copied(self, schema: dict[str, Any]) -> dict[str, Any]:
        silent = self._graph.draft <= Draft.DRAFT7 and isinstance(schema.get("$ref"), str)
        # There a reference silences what stands beside it.
        words = _ANNOTATIONS if silent else tuple(schema)
        copy = {
            word: self._value(word, schema[word])
            for word in words
            if word in schema
            and word in _SINCE
            and _SINCE[word] <= self._graph.draft
            and not (word in _DATA and _refers(schema[word]))
        }
        if not silent:
            self._modernise(schema, copy)
        references = [self._followed(schema, word) for word in REFERENCE_KEYWORDS if word in schema]
        references = [reference for reference in references if reference is not True]
        if len(references) == 1 and isinstance(references[0], dict):
            copy.update(references[0])
        elif references:
            copy["allOf"] = [*copy.get("allOf", ()), *references]
        return copy

    def _followed(self, schema: dict[str, Any], word: str) -> dict[str, Any] | bool:
        target = self._graph.targets.get((id(schema), word), True)
        return self._reference(target) if isinstance(target, dict) else bool(target)

    def _value(self, word: str, value: Any) -> Any:
        if word in _MAPS and isinstance(value, dict):
            return {name: self._placed(item) for name, item in value.items()}
        if (word in _LISTS or word == "items") and isinstance(value, list):
            return [self._placed(item) for item in value]
        return self._placed(value) if word in _SINGLES else value

    def _modernise(self, schema: dict[str, Any], copy: dict[str, Any]) -> None:
        """Say in today's words what older drafts said in others."""
        draft = self._graph.draft
        if draft is Draft.DRAFT4:
            for exclusive, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
                if copy.pop(exclusive, False) is True and bound in copy:
                    copy[exclusive] = copy.pop(bound)
        if draft <= Draft.DRAFT2019 and isinstance(copy.get("items"), list):
            items = copy.pop("items")
            if items:
                copy["prefixItems"] = items
            if "additionalItems" in schema:
                copy["items"] = self._placed(schema["additionalItems"])
        if draft <= Draft.DRAFT7 and isinstance(schema.get("dependencies"), dict):
            wanted = schema["dependencies"].items()
            copy["dependentRequired"] = {name: item for name, item in wanted if isinstance(item, list)}
            copy["dependentSchemas"] = {
                name: self._placed(item) for name, item in wanted if not isinstance(item, list)
            }


def _shelved(value: Any) -> Iterator[tuple[Any, str]]:
    """Everything that stands in a ``$defs`` or ``definitions``, with its name there."""
    if isinstance(value, dict):
        for word, item in value.items():
            if word in ("$defs", "definitions") and isinstance(item, dict):
                yield from ((part, name) for name, part in item.items())
            yield from _shelved(item)
    elif isinstance(value, list):
        for item in value:
            yield from _shelved(item)


def _refers(value: Any) -> bool:
    """Tell whether data look like a reference somewhere: many readers follow it wherever it stands."""
    if isinstance(value, dict):
        return "$ref" in value or any(map(_refers, value.values()))
    return isinstance(value, list) and any(map(_refers, value))
