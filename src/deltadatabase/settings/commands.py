"""The settings of the commands that work on a running server, and the plain arguments that they take."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from deltadatabase.settings.flags import BOOL, DURATION, INT, PATH, TEXT, choice, flag
from deltadatabase.settings.programs import ClientFlags

PATIENT = "5m"


@dataclass(frozen=True, kw_only=True)
class CommandFlags(ClientFlags):
    """What all of these commands have.

    Attributes:
        ARGUMENTS: names of the plain arguments; ``[…]`` may be left out, a last ``…`` takes many.
        arguments: the plain arguments as given.
    """

    ARGUMENTS: ClassVar[tuple[str, ...]] = ()
    arguments: tuple[str, ...] = ()
    retry: float = flag(
        "retry", DURATION, "10s", "how long a request that fails for a while is tried again; 0s: once"
    )


@dataclass(frozen=True, kw_only=True)
class PlainSettings(CommandFlags):
    """Settings of commands without plain arguments."""


@dataclass(frozen=True, kw_only=True)
class NamedSettings(CommandFlags):
    """Settings of commands that take the name of one thing."""

    ARGUMENTS: ClassVar[tuple[str, ...]] = ("ID",)


@dataclass(frozen=True, kw_only=True)
class GetSettings(CommandFlags):
    """Settings of ``deltadb get``."""

    ARGUMENTS: ClassVar[tuple[str, ...]] = ("SCHEMA", "KEY")


@dataclass(frozen=True, kw_only=True)
class _Conditional(CommandFlags):
    if_match: str = flag(
        "if-match", TEXT, "", "only if this is the current ETag, as get -json and ls -include=meta show it"
    )
    idempotency_key: str = flag(
        "idempotency-key", TEXT, "", "names this write, to be repeated safely", default_note="a random one"
    )


@dataclass(frozen=True, kw_only=True)
class PutSettings(_Conditional):
    """Settings of ``deltadb put``."""

    ARGUMENTS: ClassVar[tuple[str, ...]] = ("SCHEMA", "KEY", "[FILE]")
    document: str = flag("document", TEXT, "", "the document itself, instead of FILE or stdin")
    create: bool = flag("create", BOOL, "false", "only if there is no such entity")


@dataclass(frozen=True, kw_only=True)
class PatchSettings(_Conditional):
    """Settings of ``deltadb patch``."""

    ARGUMENTS: ClassVar[tuple[str, ...]] = ("SCHEMA", "KEY", "[FILE]")
    document: str = flag("document", TEXT, "", "the patch itself, instead of FILE or stdin")
    kind: str = flag(
        "kind",
        choice("merge", "json"),
        "",
        "merge patch (RFC 7396) or JSON patch (RFC 6902)",
        default_note="json for a list, else merge",
    )


@dataclass(frozen=True, kw_only=True)
class DeleteSettings(_Conditional):
    """Settings of ``deltadb delete``."""

    ARGUMENTS: ClassVar[tuple[str, ...]] = ("SCHEMA", "KEY", "[KEY …]")


@dataclass(frozen=True, kw_only=True)
class ListingSettings(CommandFlags):
    """Settings of ``deltadb ls``."""

    ARGUMENTS: ClassVar[tuple[str, ...]] = ("[SCHEMA]",)
    prefix: str = flag("prefix", TEXT, "", "only keys that begin with it")
    limit: int = flag("limit", INT, "0", "at most so many; 0 is all")
    include: str = flag(
        "include", choice("meta", "document"), "", "add version and ETag, or the document, too; as JSON"
    )
    counts: bool = flag("counts", BOOL, "false", "without SCHEMA: how many entities each holds; as JSON")


@dataclass(frozen=True, kw_only=True)
class SchemaPutSettings(CommandFlags):
    """Settings of ``deltadb schema put``."""

    ARGUMENTS: ClassVar[tuple[str, ...]] = ("ID", "[FILE]")
    document: str = flag("document", TEXT, "", "the schema itself, instead of FILE or stdin")


@dataclass(frozen=True, kw_only=True)
class CheckSettings(SchemaPutSettings):
    """Settings of ``deltadb schema check``."""

    scan: bool = flag("scan", BOOL, "false", "check the stored entities, too: which would be refused")


@dataclass(frozen=True, kw_only=True)
class KeyCreateSettings(CommandFlags):
    """Settings of ``deltadb keys create``."""

    ARGUMENTS: ClassVar[tuple[str, ...]] = ("NAME",)
    permissions: str = flag("permissions", TEXT, "read", "some of read, write, admin, with commas between")
    expires_in: str = flag("expires-in", TEXT, "", "end of the key, such as 24h or 7d", default_note="none")
    schemas: str = flag("schemas", TEXT, "", "schema ids it is limited to, such as chat.*,notes")
    rate: int = flag("rate", INT, "0", "requests a second it is limited to; 0 is no limit")


@dataclass(frozen=True, kw_only=True)
class _Patient(CommandFlags):
    retry: float = flag(
        "retry", DURATION, PATIENT, "how long a server that is away is waited for; 0s: not at all"
    )


@dataclass(frozen=True, kw_only=True)
class ImportSettings(_Patient):
    """Settings of ``deltadb import``."""

    ARGUMENTS: ClassVar[tuple[str, ...]] = ("SCHEMA", "[FILE]")
    skip_existing: bool = flag("skip-existing", BOOL, "false", "leave entities alone that exist")
    skip_lines: int = flag("skip-lines", INT, "0", "leave out so many lines, which an earlier run has done")
    on_error: str = flag(
        "on-error", choice("continue", "stop"), "continue", "what a line that is refused leads to"
    )


@dataclass(frozen=True, kw_only=True)
class ExportSettings(_Patient):
    """Settings of ``deltadb export``."""

    ARGUMENTS: ClassVar[tuple[str, ...]] = ("SCHEMA",)
    output: Path | None = flag(
        "o", PATH, "", "file to write, which appears when it is complete", default_note="stdout"
    )
    prefix: str = flag("prefix", TEXT, "", "only keys that begin with it")
    after: str = flag("after", TEXT, "", "begin behind this key, as the last line of an earlier run has it")


@dataclass(frozen=True, kw_only=True)
class WatchSettings(_Patient):
    """Settings of ``deltadb watch``."""

    ARGUMENTS: ClassVar[tuple[str, ...]] = ("SCHEMA",)
    since: str = flag("since", TEXT, "", "token of the last line that was dealt with", default_note="now")
    include: str = flag("include", choice("document"), "", "add the document")


@dataclass(frozen=True, kw_only=True)
class CompletionSettings(CommandFlags):
    """Settings of ``deltadb completion``."""

    ARGUMENTS: ClassVar[tuple[str, ...]] = ("bash|zsh|fish",)
