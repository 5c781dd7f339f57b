"""Every parser that faces a network or a stored object, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from fuzz.engine import Target
from fuzz.targets import control, documents, http, options, patches, stored, transfers, wire

Make = Callable[[Path], Target]
"""Makes a target that may keep files in an empty folder."""

TARGETS: Final[Mapping[str, Make]] = {
    "request-head": http.request_head,
    "conditions": http.request_conditions,
    "rest": http.rest,
    "documents": documents.documents,
    "schema": documents.schema,
    "template": documents.template,
    "patch": patches.patches,
    "import-lines": transfers.lines,
    "batch": transfers.batches,
    "envelope-format": stored.envelope_format,
    "envelope": stored.envelope,
    "envelope-unsigned": stored.unsigned,
    "paths": stored.object_names,
    "database.json": stored.database_json,
    "scrub.json": stored.scrub_position,
    "epochs.json": stored.epochs,
    "secret-file": stored.secret_file,
    "accounts-rows": stored.accounts,
    "accounts-file": stored.accounts_file,
    "stream-request": wire.request,
    "stream-reply": wire.reply,
    "exchange": wire.exchange,
    "greeting": wire.greeting,
    "answers": wire.answers,
    "join": control.join,
    "membership": control.membership,
    "wrapped-keys": control.keys,
    "process": control.process,
    "values": options.values,
    "flags": options.flags,
}
