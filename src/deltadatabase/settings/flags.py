"""What a flag is: declared once as a dataclass field, read from arguments and environment.

The parser is our own: ``argparse`` cannot give Go's spelling exactly. It reads ``-help``
as ``-h elp``, refuses values that begin with a dash, and words its errors differently in
each Python version, with the refused value (perhaps a secret) in them.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from deltadatabase.errors import StartupError
from deltadatabase.settings.values import (
    Secret,
    format_duration,
    format_networks,
    format_size,
    parse_address,
    parse_bool,
    parse_duration,
    parse_networks,
    parse_size,
)

Settings = TypeVar("Settings")

_FLAG: Final = re.compile(r"--?([A-Za-z][^=]*)(?:=(.*))?", re.DOTALL)
_SECRET_FILE_BYTES_MAX: Final = 64 * 1024
_SHOWN_MAX: Final = 60


@dataclasses.dataclass(frozen=True)
class Kind:
    """A type of flag.

    Attributes:
        placeholder: stands for the value in the help text.
        parse: reads a text that is not empty; raises ValueError with words that fit after "is".
        show: writes a value for people.
        empty: the value of an empty text.
    """

    placeholder: str
    parse: Callable[[str], Any]
    show: Callable[[Any], str] = str
    empty: Any = None


def _parse_int(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,15}", text):
        raise ValueError("not a whole number")
    return int(text)


def _parse_path(text: str) -> Path:
    if "\0" in text:
        raise ValueError("not a path")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise ValueError("a path below an unknown home directory") from None


def choice(*words: str) -> Kind:
    """Make the kind of a flag that takes one of ``words``."""

    def parse(text: str) -> str:
        if text.lower() not in words:
            raise ValueError(f"none of {', '.join(words)}")
        return text.lower()

    return Kind("|".join(words), parse)


TEXT: Final = Kind("TEXT", str, empty="")
BOOL: Final = Kind("", parse_bool, lambda value: "true" if value else "false", empty=False)
INT: Final = Kind("N", _parse_int, empty=0)
DURATION: Final = Kind("DURATION", parse_duration, format_duration, empty=0.0)
SIZE: Final = Kind("SIZE", parse_size, format_size, empty=0)
ADDRESS: Final = Kind("HOST:PORT", parse_address)
NETWORKS: Final = Kind("CIDRS", parse_networks, format_networks, empty=())
PATH: Final = Kind("PATH", _parse_path)
SECRET: Final = Kind("SECRET", Secret)


@dataclasses.dataclass(frozen=True)
class Flag:
    """One flag as it was declared.

    Attributes:
        name: without dashes.
        kind: how its text is read and written.
        default: as text; "" is the kind's empty value.
        help: one line.
        env: environment variable.
        aliases: further names, each with its own ``DELTADB_…`` variable.
        default_note: says in words what an empty default leads to.
        at_least, at_most: bounds of a number.
        hidden: accepted, and noted as without effect: why.
    """

    name: str
    kind: Kind
    default: str
    help: str
    env: str
    aliases: tuple[str, ...] = ()
    default_note: str = ""
    at_least: float | None = None
    at_most: float | None = None
    hidden: str = ""

    @property
    def is_secret(self) -> bool:
        """Whether its value must never be shown; it then has a ``-…-file`` flag beside it."""
        return self.kind is SECRET

    @property
    def env_names(self) -> tuple[str, ...]:
        """Its environment variables, the one that counts first."""
        return (self.env, *(env_name(alias) for alias in self.aliases))

    def read(self, text: str, source: str) -> Any:
        """Read a value; ``source`` names where it stood.

        Raises:
            StartupError: ``bad_flag``, one line, without the value of a secret.
        """
        if not text:
            return self.kind.empty
        try:
            value = self.kind.parse(text)
            self._check_bounds(value)
        except ValueError as exc:
            shown = "the value" if self.is_secret else repr(text[:_SHOWN_MAX])
            raise StartupError(f"{source}: {shown} is {exc}", code="bad_flag") from None
        return value

    def _check_bounds(self, value: Any) -> None:
        if self.at_least is not None and value < self.at_least:
            raise ValueError(f"less than {self.kind.show(self.at_least)}")
        if self.at_most is not None and value > self.at_most:
            raise ValueError(f"more than {self.kind.show(self.at_most)}")


def env_name(name: str) -> str:
    """Return the environment variable of a flag that has no name of its own there."""
    return "DELTADB_" + name.upper().replace("-", "_")


def flag(
    name: str,
    kind: Kind,
    default: str,
    help: str,
    *,
    env: str = "",
    **more: Any,
) -> Any:
    """Declare a dataclass field that is set by a flag; see ``Flag`` for the arguments."""
    declared = Flag(name, kind, default, help, env or env_name(name), **more)
    return dataclasses.field(default=declared.read(default, f"-{name}"), metadata={"flag": declared})


def flags_of(program: type) -> Iterator[tuple[tuple[str, ...], Flag]]:
    """Yield (attribute path, flag) for each flag of a settings class, nested ones included."""
    for field in dataclasses.fields(program):
        if "flag" in field.metadata:
            yield (field.name,), field.metadata["flag"]
        elif dataclasses.is_dataclass(field.default):
            for path, nested in flags_of(type(field.default)):
                yield (field.name, *path), nested


def describe(settings: object, *, changed_only: bool = False) -> dict[str, str]:
    """Return flag name to effective value, for the start-up log; secrets are ``set`` or ``""``.

    Args:
        settings: a settings object.
        changed_only: leave out the flags that have their default value.
    """
    shown = {}
    for path, declared in flags_of(type(settings)):
        value: Any = settings
        for attribute in path:
            value = getattr(value, attribute)
        unchanged = value == declared.read(declared.default, declared.name)
        if declared.hidden or (changed_only and unchanged):
            continue
        if declared.is_secret:
            shown[declared.name] = "set" if value else ""
        else:
            shown[declared.name] = "" if value is None else declared.kind.show(value)
    return shown


class Asked(Exception):
    """The arguments ask for the help text or the version instead of a run."""

    def __init__(self, topic: Literal["help", "version"]) -> None:
        super().__init__(topic)
        self.topic = topic


class Given:
    """What the arguments and the environment say, before defaults.

    An empty value counts as not given, on the command line as in the environment, because
    manifests pass on variables that may be unset.
    """

    def __init__(self, program: type, arguments: Sequence[str], environ: Mapping[str, str]) -> None:
        self._placeholders: tuple[str, ...] = getattr(program, "ARGUMENTS", ())
        self.plain: tuple[str, ...] = ()
        """The arguments that are no flags, where the program takes some."""
        self._flags = dict(flags_of(program))
        self._names: dict[str, tuple[Flag, bool]] = {}
        for declared in self._flags.values():
            for name in (declared.name, *declared.aliases):
                self._names[name] = (declared, False)
            if declared.is_secret:
                self._names[f"{declared.name}-file"] = (declared, True)
        self._arguments = self._split(arguments)
        self._environ = environ

    def build(self, program: type[Settings]) -> tuple[Settings, frozenset[str]]:
        """Make the settings; also return the names of the flags that were given anywhere.

        Raises:
            StartupError: ``bad_flag``.
        """
        values: dict[tuple[str, ...], Any] = {}
        for path, declared in self._flags.items():
            found = self._find(declared)
            if found is not None:
                text, source, file = found
                value = declared.read(text, source)
                values[path] = Secret(text, file=file) if file else value
        given = frozenset(self._flags[path].name for path in values)
        return _construct(program, values, ()), given

    def _find(self, declared: Flag) -> tuple[str, str, str] | None:
        """Return (text, source, file of a secret) of a flag: the command line outranks the environment."""
        on_line = [
            (name, f"-{name}") for name in (declared.name, *declared.aliases) if self._arguments.get(name)
        ]
        in_env = [(name, name) for name in declared.env_names if self._environ.get(name)]
        for values, plain, file_name, dash in (
            (self._arguments, on_line, f"{declared.name}-file", "-"),
            (self._environ, in_env, f"{declared.env}_FILE", ""),
        ):
            file = values.get(file_name) if declared.is_secret else None
            if file and plain:
                raise StartupError(
                    f"{plain[0][1]} and {dash}{file_name} are both given: choose one", code="bad_flag"
                )
            if file:
                return _read_secret_file(file, dash + file_name), dash + file_name, file
            if plain:
                name, source = plain[0]
                return values[name], source, ""
        return None

    def _split(self, arguments: Sequence[str]) -> dict[str, str]:
        values: dict[str, str] = {}
        left = [*arguments]
        plain: list[str] = []
        previous = ""
        while left:
            argument = left.pop(0)
            if not argument:
                continue
            if argument == "--" and self._placeholders:
                plain += left
                break
            match = _FLAG.fullmatch(argument)
            if match is None and self._placeholders:
                plain.append(argument)
                continue
            if match is None:
                # The argument is not repeated: it may be a secret that lost its flag.
                where = f"after -{previous}" if previous else "at the start"
                raise StartupError(
                    f"unexpected argument {where}: settings are flags, spelled -name=value", code="bad_flag"
                )
            name, value = match[1], match[2]
            if name in {"h", "help"}:
                raise Asked("help")
            if name == "version":
                raise Asked("version")
            if name not in self._names:
                raise self._unknown(name)
            if value is None:
                value = self._next_value(name, left)
            values[name] = value
            previous = name
        self.plain = self._counted(plain)
        return values

    def _counted(self, plain: list[str]) -> tuple[str, ...]:
        """Check how many plain arguments there are; they are not repeated, as above."""
        needed = [name for name in self._placeholders if not name.startswith("[")]
        if len(plain) < len(needed):
            raise StartupError(f"{needed[len(plain)]} is missing (-h explains)", code="bad_flag")
        open_end = bool(self._placeholders) and self._placeholders[-1].rstrip("]").endswith("…")
        if len(plain) > len(self._placeholders) and not open_end:
            raise StartupError(
                f"more arguments than {' '.join(self._placeholders)} (-h explains)", code="bad_flag"
            )
        return tuple(plain)

    def _next_value(self, name: str, left: list[str]) -> str:
        declared, _ = self._names[name]
        if declared.kind is BOOL:
            if left and left[0].lower() in {"true", "false"}:
                return left.pop(0)
            return "true"
        following = _FLAG.fullmatch(left[0]) if left else None
        if not left or (following is not None and following[1] in self._names):
            raise StartupError(f"-{name}: a value is missing", code="bad_flag")
        return left.pop(0)

    def _unknown(self, name: str) -> StartupError:
        shown = name[:_SHOWN_MAX].encode("unicode_escape").decode()
        visible = [known for known, (declared, _) in self._names.items() if not declared.hidden]
        near = difflib.get_close_matches(name.replace("_", "-"), visible, 1)
        hint = f"did you mean -{near[0]}?" if near else "-h lists all"
        return StartupError(f"unknown flag -{shown} ({hint})", code="bad_flag")


def _construct(
    program: type[Settings], values: Mapping[tuple[str, ...], Any], prefix: tuple[str, ...]
) -> Settings:
    arguments: dict[str, Any] = {}
    for field in dataclasses.fields(program):  # type: ignore[arg-type]  # every settings class is a dataclass
        path = (*prefix, field.name)
        if path in values:
            arguments[field.name] = values[path]
        elif dataclasses.is_dataclass(field.default):
            arguments[field.name] = _construct(type(field.default), values, path)
    return program(**arguments)


def reread(secret: Secret) -> Secret:
    """Read a secret that was given as a file once more; one that was given itself is as it was.

    Raises:
        StartupError: ``bad_flag``: the file cannot be read.
    """
    if not secret.file:
        return secret
    return Secret(_read_secret_file(secret.file, "the file of a secret"), file=secret.file)


def _read_secret_file(path: str, source: str) -> str:
    try:
        with Path(path).expanduser().open("rb") as file:
            data = file.read(_SECRET_FILE_BYTES_MAX + 1)
        text = data.decode("utf-8").strip()
    except OSError as exc:
        raise StartupError(f"{source}: the file cannot be read: {exc.strerror}", code="bad_flag") from None
    except (ValueError, RuntimeError):
        raise StartupError(f"{source}: the file is not text", code="bad_flag") from None
    if not text or len(data) > _SECRET_FILE_BYTES_MAX:
        raise StartupError(f"{source}: the file holds no secret of a sensible size", code="bad_flag")
    return text
