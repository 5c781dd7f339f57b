"""Compiled schemas: from the text of a JSON Schema to a fast check that keeps documents private.

``format`` is asserted in every draft, patterns run on an engine without backtracking, and
nothing outside the schema's own text is ever loaded. No I/O.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, Final

import jsonschema_rs

from deltadatabase import limits
from deltadatabase.errors import Invalid, Issue
from deltadatabase.schema.bounds import SchemaCost, measure
from deltadatabase.schema.document import check_document
from deltadatabase.schema.graph import Draft, SchemaGraph, read_graph, refusal
from deltadatabase.schema.metered import METER_KEYWORD, Meter, metered_schema

METADATA_PREFIX: Final = "_"
"""Keys that begin with it name metadata documents, which schemas leave alone unless they ask for them."""

_METADATA_KEYWORD: Final = "x-validate-metadata"
_CONDITIONS_KEYWORD: Final = "x-require-if-match"

_VALIDATORS: Final[dict[Draft, type[jsonschema_rs.Validator]]] = {
    Draft.DRAFT4: jsonschema_rs.Draft4Validator,
    Draft.DRAFT6: jsonschema_rs.Draft6Validator,
    Draft.DRAFT7: jsonschema_rs.Draft7Validator,
    Draft.DRAFT2019: jsonschema_rs.Draft201909Validator,
    Draft.DRAFT2020: jsonschema_rs.Draft202012Validator,
}

_PATTERN_OPTIONS: Final = jsonschema_rs.RegexOptions(
    size_limit=limits.PATTERN_COMPILED_BYTES_MAX, dfa_size_limit=limits.PATTERN_COMPILED_BYTES_MAX
)

# What may be said of a failure without quoting the document: {limit} comes from the schema.
_DETAILS: Final = {
    "additionalItems": "there are more items than the schema allows",
    "additionalProperties": "there are members that the schema does not allow",
    "anyOf": "none of the alternatives matches",
    "const": "the value is not the one that the schema asks for",
    "contains": "too few or too many items match what the array must contain",
    "contentEncoding": "the string is not in the encoding that the schema asks for",
    "contentMediaType": "the string is not of the media type that the schema asks for",
    "dependencies": "a member that another one depends on is missing",
    "dependentRequired": "a member that another one depends on is missing",
    "enum": "the value is not one of those that the schema lists",
    "exclusiveMaximum": "the number is not below limit={limit}",
    "exclusiveMinimum": "the number is not above limit={limit}",
    "falseSchema": "nothing is allowed here",
    "format": "the string does not have format={format}",
    "maxItems": "there are more items than limit={limit}",
    "maxLength": "the string is longer than limit={limit}",
    "maxProperties": "there are more members than limit={limit}",
    "maximum": "the number is above limit={limit}",
    "minItems": "there are fewer items than limit={limit}",
    "minLength": "the string is shorter than limit={limit}",
    "minProperties": "there are fewer members than limit={limit}",
    "minimum": "the number is below limit={limit}",
    "multipleOf": "the number is not a multiple of factor={multiple_of}",
    "not": "the value matches what the schema excludes",
    "oneOf": "not exactly one of the alternatives matches",
    "pattern": "the string does not match pattern={pattern}",
    "propertyNames": "a member's name does not match",
    "required": "a required member is missing name={property}",
    "type": "the value's type is none of types={types}",
    "unevaluatedItems": "there are items that the schema does not allow",
    "unevaluatedProperties": "there are members that the schema does not allow",
    "uniqueItems": "the items are not all different",
}
_DETAIL_OTHERWISE: Final = "the value does not match"
_DETAIL_UNEXPLAINED: Final = (
    "the document does not match its schema; there are too many combinations to list why"
)
# Where ``false`` and a missing member come from, when it is not the keyword of that name itself.
_REFUSING_KEYWORDS: Final = frozenset(
    {"additionalItems", "additionalProperties", "propertyNames", "unevaluatedItems", "unevaluatedProperties"}
)
_REQUIRING_KEYWORDS: Final = frozenset({"dependencies", "dependentRequired", "required"})
_SHOWN: Final = ("limit", "format", "multiple_of", "pattern", "property", "types")
_SCHEMA_TEXT_SHOWN_MAX: Final = 200


class CompiledSchema:
    """A schema in its checking form.

    Attributes:
        hash: the schema's version: lowercase hex SHA-256 of its exact bytes; "" without a schema.
    """

    __slots__ = (
        "_checks_metadata",
        "_cost",
        "_demands_conditions",
        "_graph",
        "_is_valid",
        "_metered",
        "_schema",
        "_text_bytes",
        "_validator",
        "hash",
    )

    def __init__(
        self,
        hash: str,
        schema: dict[str, Any] | bool,
        graph: SchemaGraph,
        cost: SchemaCost,
        text_bytes: int,
    ) -> None:
        self.hash = hash
        self._text_bytes = text_bytes
        self._schema = schema
        self._graph = graph
        self._cost = cost
        self._validator = _build(graph.draft, schema)
        self._is_valid = self._validator.is_valid
        self._metered: tuple[Meter, Callable[[Any], bool]] | None = None
        self._checks_metadata = isinstance(schema, dict) and schema.get(_METADATA_KEYWORD) is True
        self._demands_conditions = isinstance(schema, dict) and schema.get(_CONDITIONS_KEYWORD) is True

    def check(self, key: str, document: bytes) -> None:
        """Check that ``document`` is strict JSON and, unless it is metadata, that the schema allows it.

        Raises:
            Invalid: ``malformed_json``; ``schema_violation`` with its issues; ``too_complex`` for a
                document on which this schema would run too long.
        """
        value = check_document(document)
        if not self._concerns(key):
            return
        count = _value_count_max(document)
        # The bound for the deepest document usually suffices and saves finding out this one's depth.
        affordable = self._cost.affordable(count, len(document), limits.JSON_DEPTH_MAX) or (
            self._cost.affordable(count, len(document), _depth(value))
        )
        if not (self._is_valid(value) if affordable else self._is_valid_metered(value)):
            issues = self._issues(value, count)
            raise Invalid("the document does not match its schema", code="schema_violation", issues=issues)

    def demands_conditions(self, key: str) -> bool:
        """Tell whether each write must say by ``If-Match`` or ``If-None-Match`` what it replaces.

        By ``"x-require-if-match": true`` at the top of the schema; of metadata documents as for ``check``.
        """
        return self._demands_conditions and self._concerns(key)

    def _concerns(self, key: str) -> bool:
        return self._checks_metadata or not key.startswith(METADATA_PREFIX)

    def _is_valid_metered(self, value: object) -> bool:
        if self._cost.steps.settled:
            raise Invalid("the document is too large for a schema as complex as its own", code="too_complex")
        if self._metered is None:
            meter = Meter()
            try:
                metered = _build(self._graph.draft, metered_schema(self._schema, self._graph), meter)
            except Invalid:
                # A pointer into what a reference silences; such a schema goes without metering.
                raise Invalid("the document is too complex for its schema", code="too_complex") from None
            self._metered = meter, metered.is_valid
        meter, is_valid = self._metered
        return meter.run(is_valid, value)

    def _issues(self, value: object, value_count: int) -> tuple[Issue, ...]:
        """Say why a document is refused, as far as the limits allow to find out."""
        # Each failure carries a copy of the keyword's value out of the library: a large `const` or
        # `enum` times a long array would be gigabytes.
        copied = value_count * self._text_bytes
        if copied <= limits.ISSUE_BYTES_MAX and self._cost.explainable(value_count, _depth(value)):
            # Several references to one subschema report the same failure several times.
            different = dict.fromkeys(map(_issue, self._validator.iter_errors(value)))
            return tuple(islice(different, limits.ISSUES_MAX))
        if self._cost.first_is_cheap:
            try:
                self._validator.validate(value)
            except jsonschema_rs.ValidationError as exc:
                return (_issue(exc),)
        return (Issue("", "", _DETAIL_UNEXPLAINED),)


class Unvalidated(CompiledSchema):
    """Stands for a schema id without a schema: checks only that a document is strict JSON."""

    __slots__ = ()

    def __init__(self) -> None:
        self.hash = ""

    def check(self, key: str, document: bytes) -> None:
        """Check that ``document`` is strict JSON."""
        check_document(document)

    def demands_conditions(self, key: str) -> bool:
        """Nobody demands any."""
        return False


UNVALIDATED: Final[CompiledSchema] = Unvalidated()


def compile_schema(text: bytes) -> CompiledSchema:
    """Compile a JSON Schema of draft 4, 6, 7, 2019-09 or 2020-12 (the default) from its exact bytes.

    Raises:
        Invalid: ``invalid_schema``: not JSON, not a schema, outside of the bounds, or with a
            reference that leads out of the text; with issues where the schema's own grammar refuses it.
    """
    # First: what an S3 client puts there may be of any size.
    if len(text) > limits.DOCUMENT_BYTES_MAX_DEFAULT:
        raise refusal(f"the schema is too large bytes_max={limits.DOCUMENT_BYTES_MAX_DEFAULT}")
    try:
        schema = check_document(text)
    except Invalid as exc:
        raise Invalid(f"the schema is not json: {exc.detail}", code="invalid_schema") from None
    if not isinstance(schema, (dict, bool)):
        raise refusal("a schema is an object or a boolean")
    if isinstance(schema, dict) and not isinstance(schema.get(_CONDITIONS_KEYWORD, False), bool):
        # Whoever writes "yes" expects to be protected.
        raise refusal(f"{_CONDITIONS_KEYWORD} is true or false")
    graph = read_graph(schema)
    return CompiledSchema(hashlib.sha256(text).hexdigest(), schema, graph, measure(graph), len(text))


def _build(
    draft: Draft, schema: dict[str, Any] | bool, meter: Meter | None = None
) -> jsonschema_rs.Validator:
    try:
        return _VALIDATORS[draft](
            schema,
            validate_formats=True,
            offline=True,
            mask="a value",
            pattern_options=_PATTERN_OPTIONS,
            keywords=None if meter is None else {METER_KEYWORD: meter.keyword()},
        )
    except jsonschema_rs.ValidationError as exc:
        raise Invalid(
            "this is not a valid schema of its draft", code="invalid_schema", issues=(_issue(exc),)
        ) from None
    except (ValueError, jsonschema_rs.ReferencingError):
        raise refusal("the schema cannot be compiled") from None


def _value_count_max(document: bytes) -> int:
    """Bound the number of values in a document by its punctuation."""
    return 1 + document.count(b",") + document.count(b"{") + document.count(b"[")


def _depth(value: object) -> int:
    """Count the levels of arrays and objects."""
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    return 0


def _issue(error: jsonschema_rs.ValidationError) -> Issue:
    """Tell a failure in words of ours: the library's name what the document holds."""
    keyword = _keyword(error.kind.name, error.schema_path)
    return Issue(_pointer(error.instance_path), keyword, _detail(keyword, error.kind))


def _keyword(kind: str, schema_path: list[str | int]) -> str:
    """Name the keyword that the schema's author wrote; the library names what it boils down to."""
    parent, last = ["", "", *schema_path][-2:]
    if kind == "falseSchema" and parent != "properties" and last in _REFUSING_KEYWORDS:
        return str(last)
    if kind == "required":
        return next((str(part) for part in reversed(schema_path) if part in _REQUIRING_KEYWORDS), kind)
    return kind


def _detail(keyword: str, kind: jsonschema_rs.ValidationErrorKind) -> str:
    template = _DETAILS.get(keyword, _DETAIL_OTHERWISE)
    if "{" not in template:
        return template
    return template.format(**{name: _shown(getattr(kind, name, "")) for name in _SHOWN})


def _shown(value: Any) -> str:
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= _SCHEMA_TEXT_SHOWN_MAX else text[:_SCHEMA_TEXT_SHOWN_MAX] + "…"


def _pointer(path: Iterable[str | int]) -> str:
    """Write a path as JSON Pointer (RFC 6901)."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)
