"""Documents as lines of JSON: how an import is cut into lines and read, and how an export writes them. Pure.

A line is ``{"key": …, "document": …}``. A stored document may hold line breaks, which stand for
themselves between the tokens of its text, or white space around it; a line can hold neither. Such
a document is written with a space for each line break and without what is around it, and
``"text"`` beside it spells the exact text as a JSON string. Who reads ``text`` gets the document
byte for byte, and who doesn't gets the same value. An import believes ``text`` only while it fits
``document``, so that whoever edits ``document`` needs to know nothing of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import msgspec

from deltadatabase import limits
from deltadatabase.errors import Invalid, TooLarge
from deltadatabase.storage.paths import check_key

_WHITE: Final = b" \t\r\n"
_BREAKS_AS_SPACES: Final = bytes.maketrans(b"\r\n", b"  ")
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_NAMES_BYTES_MAX: Final = 4 * limits.KIB
"""More than a line has beside its document and text: names, and a key with every byte escaped."""


class Line(NamedTuple):
    """One line that is not blank.

    Attributes:
        number: counts all lines from 1, blank ones too.
        text: without its end; None when it was longer than allowed, and so was not kept.
    """

    number: int
    text: bytes | None


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    key: str
    document: msgspec.Raw
    text: str | None = None


_decode_entry: Final = msgspec.json.Decoder(_Entry).decode


def line_bytes_max(document_bytes_max: int) -> int:
    """The longest line that may hold a document of this size, with its text beside it.

    Of a text of valid JSON no byte takes more than two in a JSON string.
    """
    return 3 * document_bytes_max + _NAMES_BYTES_MAX


class LineSplitter:
    """Cuts a stream into lines, whatever pieces it comes in, and holds no more than one line.

    Lines end with LF or CR LF; a byte order mark before the first is no part of it.

    Args:
        line_bytes_max: what is longer is passed over.
    """

    def __init__(self, line_bytes_max: int) -> None:
        self._line_bytes_max = line_bytes_max
        self._begun = bytearray()
        self._passing = False
        self._number = 0

    def feed(self, chunk: bytes) -> Iterator[Line]:
        """Give the lines that end in the next piece."""
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            self._add(chunk[start:end])
            yield from self._finished()
            start = end + 1
        self._add(chunk[start:] if start else chunk)

    def end(self) -> Iterator[Line]:
        """Give the last line, if it has no end of its own. Only where the stream is known to be whole."""
        if self._begun or self._passing:
            yield from self._finished()

    def _add(self, piece: bytes) -> None:
        if not self._passing:
            self._begun += piece
            if len(self._begun) > self._line_bytes_max:
                self._passing = True
                self._begun = bytearray()

    def _finished(self) -> Iterator[Line]:
        self._number += 1
        text = bytes(self._begun)
        self._begun.clear()
        if self._passing:
            self._passing = False
            yield Line(self._number, None)
            return
        if self._number == 1:
            text = text.removeprefix(_BYTE_ORDER_MARK)
        if text.strip(_WHITE):
            yield Line(self._number, text.removesuffix(b"\r"))


def parse_line(text: bytes, document_bytes_max: int) -> tuple[str, bytes]:
    """Read one line: the key, checked, and the document's exact bytes, unchecked.

    Raises:
        Invalid: ``malformed_line`` or ``invalid_key``.
        TooLarge: the document is larger than ``document_bytes_max``.
    """
    try:
        entry = _decode_entry(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # The parser's own words may quote names of the line.
        raise Invalid(
            'the line is not a json object {"key": …, "document": …}', code="malformed_line"
        ) from None
    key = check_key(entry.key)
    # A Raw is a view that would keep the whole line alive.
    document = bytes(entry.document)
    if entry.text is not None:
        document = _exact(entry.text, document)
    if len(document) > document_bytes_max:
        raise TooLarge(f"the document is larger than {document_bytes_max} bytes")
    return key, document


def render_line(key: str, document: bytes) -> bytes:
    """Write one line, with its end, from which ``parse_line`` gets back the same document."""
    shown = _on_a_line(document)
    name = msgspec.json.encode(key)
    if shown == document:
        return b'{"key":%b,"document":%b}\n' % (name, document)
    return b'{"key":%b,"document":%b,"text":%b}\n' % (name, shown, msgspec.json.encode(document.decode()))


def _on_a_line(document: bytes) -> bytes:
    return document.translate(_BREAKS_AS_SPACES).strip(_WHITE)


def _exact(text: str, document: bytes) -> bytes:
    """``text`` where it is another spelling of the same document, else ``document``."""
    try:
        spelled = text.encode()
    except UnicodeEncodeError:
        return document
    return spelled if _on_a_line(spelled) == document else document
