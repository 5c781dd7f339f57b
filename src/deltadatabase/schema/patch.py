"""Patches of documents: JSON Merge Patch (RFC 7396) and JSON Patch (RFC 6902). Pure.

What a patch does not touch keeps its very bytes: numbers of any precision, spellings of strings,
the order of members. A document is opened one level at a time, and only along the paths that the
patch takes; all else stays a piece of the text. Members added to an object come last. Of names
that occur twice in an object that is opened, the last value stays.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Final, NamedTuple, NoReturn, Protocol, TypeAlias

import msgspec

from deltadatabase import limits
from deltadatabase.errors import Conflict, DeltaError, Invalid, TooLarge
from deltadatabase.model import PatchKind
from deltadatabase.schema.document import check_document, depth_within

Node: TypeAlias = "dict[str, Node] | list[Node] | msgspec.Raw"
"""A value: opened, or a piece of text."""

_encode: Final = msgspec.json.encode
_decode_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_items: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_operations: Final = msgspec.json.Decoder(list[dict[str, msgspec.Raw]]).decode
_decode_text: Final = msgspec.json.Decoder(str).decode


def _number(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        # Some 10^18 digits behind the point: valid JSON, and as good as nothing.
        raise Invalid("the patch compares a number that is out of range", code="too_complex") from None


_decode_exactly: Final = msgspec.json.Decoder(float_hook=_number).decode

_SPACE: Final = b" \t\r\n"
_COMPARISON_WORK: Final = 8
_ARRAY_INDEX_DIGITS_MAX: Final = 9


class Patch(Protocol):
    """A well-formed patch."""

    def apply(self, document: bytes, bytes_max: int) -> bytes:
        """Return the document as patched; it is strict JSON as that was.

        Args:
            document: strict JSON, as ``check_document`` accepts it.
            bytes_max: the result may not be larger, unless the document was.

        Raises:
            Conflict: ``patch_conflict``: a path does not exist in this document;
                ``patch_test_failed``.
            TooLarge: the result would be, or more is copied than a document may hold.
            Invalid: ``too_complex``: it would take too long; ``too_deep``.
        """
        ...


def parse_patch(text: bytes, kind: int) -> Patch:
    """Read a patch of a ``PatchKind``.

    Raises:
        Invalid: ``bad_patch``.
        TooLarge: too many operations.
    """
    try:
        check_document(text)
    except Invalid as exc:
        raise Invalid(f"the patch is not json: {exc.detail}", code="bad_patch") from None
    if kind == PatchKind.MERGE:
        return _MergePatch(text)
    if kind == PatchKind.JSON:
        return _JsonPatch(_operations(text))
    raise Invalid("this kind of patch is not known", code="bad_patch")


class _Work:
    """Counts the bytes that are read and written for one patch."""

    def __init__(self, document: bytes) -> None:
        self._left = limits.PATCH_WORK_BYTES_MAX + limits.PATCH_WORK_TIMES_MAX * len(document)

    def spend(self, work_bytes: int) -> None:
        self._left -= work_bytes
        if self._left < 0:
            raise Invalid("the patch takes too long on this document", code="too_complex")

    def opened(self, node: Node) -> Node:
        """Open an object or array by one level; any other value stays as it is."""
        if isinstance(node, msgspec.Raw):
            text = memoryview(node)
            if text[0] == ord("{"):
                self.spend(len(text))
                return _decode_members(text)  # type: ignore[return-value]
            if text[0] == ord("["):
                self.spend(len(text))
                return _decode_items(text)  # type: ignore[return-value]
        return node

    def text(self, node: Node) -> bytes:
        text = bytes(node) if isinstance(node, msgspec.Raw) else _encode(node)
        self.spend(len(text))
        return text


def _whole(text: bytes) -> msgspec.Raw:
    return msgspec.Raw(text.strip(_SPACE))


def _finished(node: Node, document: bytes, bytes_max: int) -> bytes:
    text = _encode(node)
    if len(text) > max(bytes_max, len(document)):
        raise TooLarge(f"the patched document is too large bytes_max={bytes_max}")
    return text


# -- RFC 7396 --------------------------------------------------------------------------


class _MergePatch:
    def __init__(self, text: bytes) -> None:
        self._patch = _whole(text)

    def apply(self, document: bytes, bytes_max: int) -> bytes:
        merged = _merged(_whole(document), self._patch, _Work(document))
        return _finished(merged, document, bytes_max)


def _merged(target: Node | None, patch: msgspec.Raw, work: _Work) -> Node:
    members = work.opened(patch)
    if not isinstance(members, dict):
        return patch
    base = None if target is None else work.opened(target)
    if not isinstance(base, dict):
        base = {}
    for name, value in members.items():
        assert isinstance(value, msgspec.Raw)
        if bytes(value) == b"null":
            base.pop(name, None)
        else:
            base[name] = _merged(base.get(name), value, work)
    return base


# -- RFC 6902 --------------------------------------------------------------------------


class _Operation(NamedTuple):
    """One operation; ``source`` is its ``from``. Paths are the unescaped names and indexes of RFC 6901."""

    op: str
    path: tuple[str, ...]
    source: tuple[str, ...] = ()
    value: msgspec.Raw = msgspec.Raw(b"null")


def _operations(text: bytes) -> tuple[_Operation, ...]:
    try:
        items = _decode_operations(text)
    except msgspec.DecodeError:
        raise Invalid("a json patch is an array of objects", code="bad_patch") from None
    if len(items) > limits.PATCH_OPERATIONS_MAX:
        raise TooLarge(f"the patch has too many operations max={limits.PATCH_OPERATIONS_MAX}")
    return tuple(_operation(number, item) for number, item in enumerate(items))


def _operation(number: int, members: dict[str, msgspec.Raw]) -> _Operation:
    def refuse(what: str) -> NoReturn:
        raise Invalid(f"{what} operation={number}", code="bad_patch")

    def text(name: str) -> str:
        if name not in members:
            refuse(f"{name} is missing in an operation of the patch")
        try:
            return _decode_text(members[name])
        except msgspec.DecodeError:
            refuse(f"{name} of an operation of the patch is not a string")

    def pointer(name: str) -> tuple[str, ...]:
        steps = text(name).split("/")
        if steps.pop(0) or any("~" in step.replace("~0", "").replace("~1", "") for step in steps):
            refuse(f"{name} of an operation of the patch is not a json pointer")
        return tuple(step.replace("~1", "/").replace("~0", "~") for step in steps)

    op, path = text("op"), pointer("path")
    if op in ("add", "replace", "test"):
        if "value" not in members:
            refuse("value is missing in an operation of the patch")
        return _Operation(op, path, value=members["value"])
    if op in ("move", "copy"):
        source = pointer("from")
        if op == "move" and len(source) < len(path) and path[: len(source)] == source:
            refuse("a value cannot be moved into itself")
        return _Operation(op, path, source)
    if op != "remove":
        refuse("an operation of the patch is not known")
    if not path:
        refuse("a patch cannot remove the whole document")
    return _Operation(op, path)


class _JsonPatch:
    def __init__(self, operations: tuple[_Operation, ...]) -> None:
        self._operations = operations

    def apply(self, document: bytes, bytes_max: int) -> bytes:
        tree = _Tree(document, bytes_max)
        for number, operation in enumerate(self._operations):
            try:
                tree.perform(operation)
            except DeltaError as exc:
                raise type(exc)(f"{exc.detail} operation={number}", code=exc.code) from None
        return _finished(tree.root[0], document, bytes_max)


class _Tree:
    """A document under a sequence of operations.

    Attributes:
        root: holds the document as its one item, so that it is a place like any other.
    """

    def __init__(self, document: bytes, bytes_max: int) -> None:
        self.root: list[Node] = [_whole(document)]
        self._work = _Work(document)
        self._copies_left = bytes_max

    def perform(self, operation: _Operation) -> None:
        op, path, source, value = operation
        if op == "add":
            self._add(path, value)
        elif op == "replace":
            parent, name = self._place(path)
            self._check_depth(path, value)
            _set(parent, _present(parent, name), value)
        elif op == "test":
            self._test(path, value)
        elif op == "remove":
            self._remove(path)
        elif op == "copy":
            text = self._text(source)
            self._copies_left -= len(text)
            if self._copies_left < 0:
                raise TooLarge("the patch copies more than a document may hold")
            self._add(path, msgspec.Raw(text))
        else:
            text = self._text(source)
            if path != source:
                self._remove(source)
                self._add(path, msgspec.Raw(text))

    def _add(self, path: tuple[str, ...], value: msgspec.Raw) -> None:
        parent, name = self._place(path)
        self._check_depth(path, value)
        if parent is self.root:
            self.root[0] = value
        elif isinstance(parent, list):
            index = len(parent) if name == "-" else _index(name)
            if index > len(parent):
                raise _missing()
            parent.insert(index, value)
        else:
            parent[name] = value

    def _remove(self, path: tuple[str, ...]) -> None:
        parent, name = self._place(path)
        present = _present(parent, name)
        del parent[present]  # type: ignore[arg-type]

    def _test(self, path: tuple[str, ...], value: msgspec.Raw) -> None:
        failed = Conflict("the patch tests for another value than there is", code="patch_test_failed")
        try:
            found = self._text(path)
        except Conflict:
            raise failed from None
        wanted = bytes(value)
        if found == wanted:
            return
        self._work.spend(_COMPARISON_WORK * (len(found) + len(wanted)))
        if not _equal(_decode_exactly(found), _decode_exactly(wanted)):
            raise failed

    def _text(self, path: tuple[str, ...]) -> bytes:
        parent, name = self._place(path)
        return self._work.text(_get(parent, _present(parent, name)))

    def _place(self, path: tuple[str, ...]) -> tuple[dict[str, Node] | list[Node], str]:
        """Open the way to a value's parent, which exists; the value itself may not."""
        parent: dict[str, Node] | list[Node] = self.root
        last = "0"
        for name in path:
            present = _present(parent, last)
            opened = self._work.opened(_get(parent, present))
            if isinstance(opened, msgspec.Raw):
                raise _missing()
            _set(parent, present, opened)
            parent, last = opened, name
        return parent, last

    def _check_depth(self, path: tuple[str, ...], value: msgspec.Raw) -> None:
        if not depth_within(bytes(value), limits.JSON_DEPTH_MAX - len(path)):
            raise Invalid(
                f"the patch nests the document too deeply levels_max={limits.JSON_DEPTH_MAX}", code="too_deep"
            )


def _present(parent: dict[str, Node] | list[Node], name: str) -> str | int:
    """Where in ``parent`` the value is that a path calls ``name``."""
    if isinstance(parent, dict):
        if name not in parent:
            raise _missing()
        return name
    index = _index(name)
    if index >= len(parent):
        raise _missing()
    return index


def _index(name: str) -> int:
    if not (name.isascii() and name.isdigit() and len(name) <= _ARRAY_INDEX_DIGITS_MAX):
        raise _missing()
    if name[0] == "0" and name != "0":
        raise _missing()
    return int(name)


def _get(parent: dict[str, Node] | list[Node], present: str | int) -> Node:
    return parent[present]  # type: ignore[index]


def _set(parent: dict[str, Node] | list[Node], present: str | int, value: Node) -> None:
    parent[present] = value  # type: ignore[index]


def _missing() -> Conflict:
    return Conflict("a path of the patch does not exist in the document", code="patch_conflict")


def _equal(one: object, other: object) -> bool:
    """Equality of RFC 6902, section 4.6: of numbers by value. To Python ``true`` is 1."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(value, other[name]) for name, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    return isinstance(one, bool) is isinstance(other, bool) and one == other
