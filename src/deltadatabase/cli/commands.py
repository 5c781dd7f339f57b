"""The commands that work on a running server: what each is for, and where it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from deltadatabase.settings import (
    CheckSettings,
    CommandFlags,
    CompletionSettings,
    DeleteSettings,
    ExportSettings,
    GetSettings,
    ImportSettings,
    KeyCreateSettings,
    ListingSettings,
    NamedSettings,
    PatchSettings,
    PlainSettings,
    PutSettings,
    SchemaPutSettings,
    WatchSettings,
)

EXITS: Final = (
    "Exit code 0: done; 1: there is no such thing, or it was refused; 2: wrong use, or no server; "
    "3: the present state contradicts it (a condition failed); 4: it may have been done."
)


@dataclass(frozen=True)
class Command:
    """A command of ``deltadb``.

    Attributes:
        name: its words.
        brief: what it does, in a few words.
        purpose: what it does, in its help.
        settings: its flags and arguments.
        examples: command lines.
        module, function: what runs it; imported only then.
    """

    name: str
    brief: str
    purpose: str
    settings: type[CommandFlags]
    examples: tuple[str, ...]
    module: str
    function: str


COMMANDS: Final = (
    Command(
        "get",
        "read a document",
        ("Print a document, byte for byte; with -json one line with version and ETag beside it. " + EXITS),
        GetSettings,
        (
            "deltadb get notes first",
            "deltadb get notes first | jq .text",
            "deltadb get -json notes first",
        ),
        "documents",
        "get",
    ),
    Command(
        "put",
        "store a document",
        (
            "Store a document of a file, of stdin, or of -document. Prints version and ETag as a line of "
            "JSON. " + EXITS
        ),
        PutSettings,
        (
            "deltadb put notes first note.json",
            'echo \'{"text": "hello"}\' | deltadb put notes first',
            'deltadb put notes first -document \'{"text": "hello"}\' -create',
            "deltadb put notes first note.json -if-match '\"3-1f2e3d4c\"'",
        ),
        "documents",
        "put",
    ),
    Command(
        "patch",
        "change a part of a document",
        (
            "Change a document by a merge patch, or by the operations of a JSON patch, of a file, of stdin, "
            "or of -document. Prints version and ETag as a line of JSON. " + EXITS
        ),
        PatchSettings,
        (
            "deltadb patch notes first -document '{\"done\": true}'",
            'deltadb patch notes first -document \'[{"op": "remove", "path": "/draft"}]\'',
        ),
        "documents",
        "patch",
    ),
    Command(
        "delete",
        "remove entities",
        "Remove entities. Those that are not there are told on stderr. " + EXITS,
        DeleteSettings,
        ("deltadb delete notes first", "deltadb ls notes -prefix old: | xargs -d '\\n' deltadb delete notes"),
        "documents",
        "delete",
    ),
    Command(
        "ls",
        "list schema ids, or the keys of one",
        (
            "List the schema ids that are in use, or the keys of one, in the order of their stored names, "
            "one a line; with -json, -include or -counts a line of JSON for each. " + EXITS
        ),
        ListingSettings,
        (
            "deltadb ls",
            "deltadb ls -counts",
            "deltadb ls notes",
            "deltadb ls notes -prefix user:42: -json",
            "deltadb ls notes -include document -limit 10",
        ),
        "documents",
        "ls",
    ),
    Command(
        "schema ls",
        "list the schema ids that have a schema",
        "List the schema ids that have a schema, one a line.",
        PlainSettings,
        ("deltadb schema ls",),
        "administration",
        "schema_ls",
    ),
    Command(
        "schema get",
        "print a schema",
        "Print a schema, byte for byte. " + EXITS,
        NamedSettings,
        ("deltadb schema get notes > notes.schema.json",),
        "administration",
        "schema_get",
    ),
    Command(
        "schema put",
        "put a schema in force",
        (
            "Put a schema in force, of a file, of stdin, or of -document. It counts for every write that "
            "begins after this command has ended. " + EXITS
        ),
        SchemaPutSettings,
        (
            "deltadb schema put notes notes.schema.json",
            'deltadb schema put notes -document \'{"type": "object", "required": ["text"]}\'',
        ),
        "administration",
        "schema_put",
    ),
    Command(
        "schema check",
        "check a schema, and what is stored, without a change",
        (
            "Check a schema and change nothing; with -scan also find out which stored entities it would "
            "refuse: a line of JSON for each of the first thousand, then the counts. Exit code 0: fine; 1: "
            "the schema is refused, or it would refuse what is stored; 2: wrong use, or no server."
        ),
        CheckSettings,
        (
            "deltadb schema check notes new.schema.json",
            "deltadb schema check notes new.schema.json -scan",
        ),
        "administration",
        "schema_check",
    ),
    Command(
        "schema delete",
        "remove a schema",
        "Remove a schema. The entities stay, and new ones are not validated any more. " + EXITS,
        NamedSettings,
        ("deltadb schema delete notes",),
        "administration",
        "schema_delete",
    ),
    Command(
        "keys ls",
        "list API keys",
        "List the API keys, a line of JSON for each. Needs the right admin.",
        PlainSettings,
        ("deltadb keys ls", "deltadb keys ls | jq -r .name"),
        "administration",
        "keys_ls",
    ),
    Command(
        "keys create",
        "make an API key",
        (
            "Make an API key and print it as a line of JSON. Its secret is shown this once. Needs the right "
            "admin. " + EXITS
        ),
        KeyCreateSettings,
        (
            "deltadb keys create reporting",
            "deltadb keys create chat -permissions read,write -schemas 'chat.*' -expires-in 30d",
        ),
        "administration",
        "keys_create",
    ),
    Command(
        "keys delete",
        "end an API key",
        "End an API key and every session that began with it. Needs the right admin. " + EXITS,
        NamedSettings,
        ("deltadb keys delete 6f1c…",),
        "administration",
        "keys_delete",
    ),
    Command(
        "workers",
        "list the proc workers",
        "List the proc workers, a line of JSON for each. Needs the right admin.",
        PlainSettings,
        ("deltadb workers", "deltadb workers | jq -r 'select(.status != \"Available\") | .worker_id'"),
        "administration",
        "workers",
    ),
    Command(
        "import",
        "store the documents of an NDJSON file",
        (
            'Store documents of a file or of stdin, a line {"key": …, "document": …} each. Lines that are '
            "refused are told on stderr, the counts as a line of JSON on stdout. If it breaks off, it says "
            "how many lines are done: go on with -skip-lines, or with -skip-existing. Exit code 0: all lines "
            "are stored; 1: some were refused; 2: wrong use, or no server; 4: the last ones may have been "
            "stored."
        ),
        ImportSettings,
        (
            "deltadb import notes notes.ndjson",
            "deltadb import notes notes.ndjson -skip-existing",
            "deltadb export notes | deltadb import -url https://other.example:8080 notes",
        ),
        "transfer",
        "import_",
    ),
    Command(
        "export",
        "write all documents as NDJSON",
        (
            'Write all documents of a schema id, a line {"key": …, "document": …} each, in the order of '
            "their stored names. A stream that breaks is taken up again. " + EXITS
        ),
        ExportSettings,
        (
            "deltadb export notes -o notes.ndjson",
            "deltadb export notes -prefix user:42: | gzip > notes.ndjson.gz",
        ),
        "transfer",
        "export",
    ),
    Command(
        "watch",
        "follow what changes",
        (
            "Print a line of JSON for each change, until it is ended; broken connections and restarts of the "
            "server are waited for. Go on later with -since and the token of the last line; it is good for "
            "an hour. Exit code 1: it was refused, or the token is too old; 2: wrong use, or no server."
        ),
        WatchSettings,
        (
            "deltadb watch notes",
            "deltadb watch notes -include document | jq .document.text",
            "deltadb watch notes -since TOKEN",
        ),
        "transfer",
        "watch",
    ),
    Command(
        "completion",
        "print a script that lets a shell complete commands",
        "Print a script that lets the shell complete commands and flags.",
        CompletionSettings,
        (
            "source <(deltadb completion bash)",
            "deltadb completion zsh > ~/.zfunc/_deltadb",
            "deltadb completion fish > ~/.config/fish/completions/deltadb.fish",
        ),
        "completion",
        "run",
    ),
)
GROUPS: Final = {"schema": "schemas: ls get put check delete", "keys": "API keys: ls create delete"}


def find(words: Sequence[str]) -> tuple[Command, list[str]] | None:
    """The command that the words begin with, and the words behind it."""
    for length in (2, 1):
        for command in COMMANDS:
            if command.name.split() == [*words[:length]]:
                return command, [*words[length:]]
    return None


def group_text(group: str) -> str:
    """What a group's ``-h`` prints."""
    lines = [f"usage: deltadb {group} COMMAND …", "", "commands (each explains itself with -h):"]
    lines += [f"  {it.name:<14} {it.brief}" for it in COMMANDS if it.name.startswith(f"{group} ")]
    return "\n".join(lines) + "\n"
