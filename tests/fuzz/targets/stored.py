"""What lies in the store and in the state directory, where others may write, or a disk may fail."""

from __future__ import annotations

import contextlib
import sqlite3
import struct
from pathlib import Path
from random import Random

import msgspec
from support.clocks import SeededRandom
from support.tampering import NAME, few_forgeries, seal, signed_anew

from deltadatabase.auth.account_file import AccountFile
from deltadatabase.auth.accounts import Accounts
from deltadatabase.cli import keyfiles
from deltadatabase.clock import SystemClock
from deltadatabase.crypto import format as layout
from deltadatabase.crypto.envelope import Sealer
from deltadatabase.crypto.keyring import check_database
from deltadatabase.errors import Corrupt, Invalid, StartupError, Unavailable
from deltadatabase.gateway.state import FILE as EPOCHS_FILE
from deltadatabase.gateway.state import ClusterState
from deltadatabase.maintenance import verdict
from deltadatabase.maintenance.findings import Ledger
from deltadatabase.maintenance.position import FILE as POSITION_FILE
from deltadatabase.maintenance.position import Position, Positions
from deltadatabase.model import Command, Header, Op
from deltadatabase.rpc import convert
from deltadatabase.rpc.convert import decode_store_report, encode_store_report
from deltadatabase.storage import paths
from deltadatabase.storage.database import parse_database
from fuzz.engine import Target, Wrong
from fuzz.mutate import bytes_changed, framed, json_change, unframed
from fuzz.targets.stack import KEYRING, database, report

# Envelopes

FIELDS = (
    (4, 1),
    (5, 1),
    (6, 1),
    (7, 4),
    (11, 8),
    (19, 32),
    (51, 12),
    (63, 8),
    (71, 8),
    (79, 8),
    (87, 16),
    (103, 1),
)


def sealed_seeds() -> list[bytes]:
    whole = [
        seal(),
        seal(document=b""),
        seal(document=b"x" * 3000),
        seal(document=b"", tombstone=True),
        seal(("schema.with-long-name", "ключ/" * 9), b"[]", seed=4),
    ]
    return [*whole, *(forgery.data for forgery in few_forgeries(whole[0]) if len(forgery.data) < 5000)]


def sealed_changed(random: Random, data: bytes, other: bytes) -> bytes:
    """Change a field, the names, the length; half of the time with a MAC that fits."""
    changed = bytearray(data)
    if random.random() < 0.6 and len(data) > 104:
        at, size = random.choice(FIELDS)
        limit = 256**size
        number = random.choice((0, 1, limit - 1, limit // 2, random.randrange(limit)))
        if random.random() < 0.5:
            number = (
                int.from_bytes(changed[at : at + size], "big") + random.choice((-1, 1, 24, 256))
            ) % limit
        changed[at : at + size] = number.to_bytes(size, "big")
    else:
        changed[:] = bytes_changed(random, data, other)
    if random.random() < 0.1 and len(changed) > 140:
        offset = struct.unpack_from(">I", changed, 7)[0]
        insert = random.randbytes(random.choice((1, 2, 24)))
        at = random.randrange(104, min(len(changed), max(105, offset)))
        changed[at:at] = insert
        changed[7:11] = struct.pack(">I", (offset + len(insert)) % 2**32)
    if random.random() < 0.5 and len(changed) > 64:
        with contextlib.suppress(ValueError, IndexError):
            return signed_anew(bytes(changed))
    return bytes(changed)


def check_format(data: bytes) -> None:
    """What is parsed is exactly what packing writes."""
    layout.is_cut_short(data)
    for header_only in (False, True):
        try:
            parsed = layout.parse(data, header_only=header_only)
        except Corrupt:
            continue
        if not 0 < parsed.mac_offset < parsed.body_offset <= len(data):
            raise Wrong("offsets outside of the object")
        body = len(data) - parsed.body_offset - layout.TAG_BYTES
        if header_only and (body < 0 or (parsed.header.tombstone and body)):
            continue
        packed = layout.pack(
            parsed.header,
            key_id=parsed.header.key_id,
            salt=parsed.salt,
            nonce=parsed.nonce,
            document_bytes=body,
        )
        if not header_only and packed != data[: parsed.mac_offset]:
            raise Wrong("a header that packing would not write was accepted")


def envelope_format(_folder: Path) -> Target:
    return Target("envelope-format", check_format, sealed_seeds(), sealed_changed)


def envelope(_folder: Path) -> Target:
    """Opening what was changed: it is refused, or nothing was changed."""
    sealer = Sealer(KEYRING, SeededRandom(0))
    genuine = sealed_seeds()[:5]
    names: set[tuple[str, str]] = set()
    for data in genuine:
        opened = sealer.surviving_header(data)
        names.add((opened.schema_id, opened.key))
    known = {bytes(data) for data in genuine}

    def check(data: bytes) -> None:
        surviving: Header | None = None
        try:
            surviving = sealer.surviving_header(data)
            # Re-signed ones get here too: they are what somebody with the master key can write.
            msgspec.json.decode(sealer.meta_json(data))
        except (Corrupt, Unavailable):
            pass
        for name in names:
            try:
                found, document = sealer.open(data, *name)
            except (Corrupt, Unavailable):
                continue
            if data not in known:
                raise Wrong(f"opened what nobody sealed: {len(document)} bytes, version={found.version}")
            if found != surviving:
                raise Wrong("two readings of one header differ")
        judged = verdict.judge(sealer, data, NAME, ())
        if (judged.kind is None) != (data in known and judged.header is not None):
            raise Wrong(f"a scrub takes it for {judged.kind}")
        verdict.next_version(judged.header, data, NAME)

    return Target("envelope", check, genuine, sealed_changed)


def unsigned(_folder: Path) -> Target:
    """The same without a MAC that fits: not even the header may be believed then."""
    sealer = Sealer(KEYRING, SeededRandom(0))
    genuine = sealed_seeds()[:5]
    headers = {data[: int.from_bytes(data[7:11], "big")] for data in genuine}

    def check(data: bytes) -> None:
        try:
            sealer.surviving_header(data)
        except (Corrupt, Unavailable):
            return
        if data[: int.from_bytes(data[7:11], "big")] not in headers:
            raise Wrong("believed a header that nobody signed")

    return Target("envelope-unsigned", check, genuine, bytes_changed)


# Names

PATHS = tuple(
    text.encode()
    for text in (
        "files/notes/first.json.enc", "files/notes/first.meta.json", "templates/notes.json",
        "files/a/=2Eb.json.enc", "files/chat.v1/=C3=BC.json.enc", "cluster/presence/proc-1", "ü/😀", "key",
        "cluster/database.json", "files/a/..json.enc", "quarantine/notes/first.json.enc/0123abcd",
        "files//a.json.enc", "files/a/b/c.json.enc", ".hidden", "a=b", "_meta",
    )
)  # fmt: skip


def check_path(data: bytes) -> None:
    """A name of the store says one entity, and that entity has one name; a key is as it was."""
    text = data.decode("utf-8", "surrogateescape")
    for parse, build in (
        (paths.parse_entity_path, lambda name: paths.entity_path(*name)),
        (paths.parse_meta_path, lambda name: paths.meta_path(*name)),
        (paths.parse_template_path, paths.template_path),
        (paths.parse_presence_path, paths.presence_path),
    ):
        name = parse(text)  # type: ignore[operator]
        if name is not None and build(name) != text:  # type: ignore[operator]
            raise Wrong("two names of one thing")
    if (quarantined := paths.parse_quarantine_path(text)) is not None:
        digest = text.rpartition("/")[2]
        if paths.quarantine_path(*quarantined, digest) != text:
            raise Wrong("two names of one quarantined object")
    paths.is_leaf_folder(text)
    for part in (text, text.rpartition("/")[2], text.partition("/")[0]):
        try:
            key = paths.check_key(part)
        except Invalid:
            continue
        path = paths.entity_path("notes", key)
        if paths.parse_entity_path(path) != ("notes", key):
            raise Wrong("a key does not come back")
        name = path.removeprefix("files/notes/")
        if "/" in name or name.startswith(".") or len(name.encode()) > 255 or not name.isascii():
            raise Wrong("a name that leaves its folder or does not fit")


def object_names(_folder: Path) -> Target:
    return Target("paths", check_path, PATHS, bytes_changed)


# Small files

DATABASE_WORDS = (
    "database_id",
    "format",
    "shards",
    "highest_epoch",
    "keys",
    "reservation",
    "maintenance",
    "d1",
)


def check_database_json(data: bytes) -> None:
    """``cluster/database.json``, up to what the main worker hears of it."""
    try:
        info = parse_database(data)
        check_database(KEYRING, info)
    except StartupError:
        return
    if parse_database(msgspec.json.encode(info)) != info:
        raise Wrong("the description does not survive its own notation")
    told = encode_store_report(msgspec.structs.replace(report(), database=info))
    heard = decode_store_report(type(told).FromString(told.SerializeToString())).database
    if (heard.shards, heard.highest_epoch, heard.keys) != (info.shards, info.highest_epoch, info.keys):
        raise Wrong("the main worker hears of another database")


def database_json(_folder: Path) -> Target:
    seed = msgspec.json.encode(database())
    return Target(
        "database.json", check_database_json, [seed, seed + b"\n", b"{}"], json_change(DATABASE_WORDS)
    )


def scrub_position(folder: Path) -> Target:
    positions = Positions(folder)
    position = Position(
        format=1,
        database_id="d1",
        tasks={"quarantine": True},
        token="t",
        after="files/a",
        ledger=Ledger(),
    )

    def check(data: bytes) -> None:
        (folder / POSITION_FILE).write_bytes(data)
        try:
            loaded = positions.load()
        except StartupError:
            return
        if msgspec.json.decode(msgspec.json.encode(loaded), type=Position) != loaded:
            raise Wrong("the position does not survive its own notation")

    words = (*Position.__struct_fields__, *Ledger.__struct_fields__, "quarantine", "integrity", "kind")
    return Target("scrub.json", check, [msgspec.json.encode(position)], json_change(words), positions.close)


def epochs(folder: Path) -> Target:
    count = 0

    def check(data: bytes) -> None:
        nonlocal count
        (folder / EPOCHS_FILE).write_bytes(data)
        try:
            state = ClusterState(folder)
        except StartupError:
            return
        count += 1
        try:
            limit = state.epoch_limit("d1")
            convert.encode_request(1, Command(op=Op.RESERVE_EPOCHS, term=limit, number=limit + 10_000))
            if count % 16 == 0:  # It waits for the disk.
                state.set_epoch_limit("d1", limit + 1)
                if state.epoch_limit("d1") <= limit:
                    raise Wrong("a reservation was not kept")
        except Unavailable:
            pass
        finally:
            state.close()

    return Target("epochs.json", check, [b'{"d1":10000,"d2":5}', b"{}"], json_change(("d1", "d2")))


def secret_file(folder: Path) -> Target:
    path = folder / "admin-key"

    def check(data: bytes) -> None:
        path.write_bytes(data)
        try:
            text = keyfiles.load(path)
        except StartupError:
            return
        if not (text and text.isascii() and text.isprintable()):
            raise Wrong("a secret that no header can carry")

    return Target("secret-file", check, [b"5d" * 32 + b"\n", b"admin", b""], bytes_changed)


# Accounts


def accounts(folder: Path) -> Target:
    """The file's rows, whatever types SQLite lets them have."""
    path = folder / "accounts.db"
    AccountFile(path).close()
    columns = {"keys": 7, "sessions": 5}

    def check(data: bytes) -> None:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA synchronous = OFF")
            for table in columns:
                connection.execute(f"DELETE FROM {table}")
            for line in unframed(data)[:8]:
                values = [_sql(value) for value in unframed(line)]
                table = "keys" if len(values) > 5 else "sessions"
                values = (values + [None] * 7)[: columns[table]]
                with contextlib.suppress(sqlite3.Error, UnicodeError):
                    marks = ",".join("?" * len(values))
                    connection.execute(f"INSERT INTO {table} VALUES ({marks})", values)
            connection.commit()
        _open_accounts(path)

    good = framed((b"tid", b"tci", b"b" + b"\1" * 32, b"tread,write", b"tchat.*", b"i1700000000000", b"n"))
    session = framed((b"b" + b"\2" * 32, b"tid", b"b", b"tme", b"i99999999999999"))
    admin = framed((b"b" + b"\3" * 32, b"tadmin", b"b" + b"\0" * 32, b"tme", b"i99999999999999"))

    def changed(random: Random, data: bytes, other: bytes) -> bytes:
        lines = unframed(data) or [good]
        at = random.randrange(len(lines))
        values = unframed(lines[at]) or [b"n"]
        place = random.randrange(len(values))
        values[place] = random.choice(
            (
                b"n", b"i-1", b"i9223372036854775807", b"t", b"b", b"f1e300", b"t\xff", b"tadmin", b"tread",
                b"t,",
                b"i253402300800000", bytes_changed(random, values[place], b"x"),
            )
        )  # fmt: skip
        lines[at] = framed(values)
        if random.random() < 0.2:
            lines.append(random.choice((good, session, admin)))
        return framed(lines)

    return Target("accounts-rows", check, [framed((good, session)), framed((good, admin))], changed)


def _sql(value: bytes) -> object:
    kind, rest = value[:1], value[1:]
    if kind == b"n":
        return None
    if kind == b"b":
        return rest
    with contextlib.suppress(ValueError):
        if kind == b"i":
            return max(-(2**63), min(2**63 - 1, int(rest)))
        if kind == b"f":
            return float(rest)
    return rest.decode("utf-8", "replace")


def _open_accounts(path: Path) -> None:
    try:
        opened = Accounts(
            path,
            clock=SystemClock(),
            random=SeededRandom(0),
            admin_key="an-admin-key-for-this",
            client_ttl_s=60.0,
            dev_mode=False,
        )
    except StartupError:
        return
    try:
        msgspec.json.encode(opened.list_keys())
    finally:
        opened.close()


def accounts_file(folder: Path) -> Target:
    """The file's bytes."""
    path = folder / "accounts.db"
    AccountFile(path).close()
    seed = path.read_bytes()

    def check(data: bytes) -> None:
        for suffix in ("-wal", "-shm", "-journal"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        path.write_bytes(data)
        _open_accounts(path)

    return Target("accounts-file", check, [seed, seed[:4096], b"", b"SQLite format 3\0"], bytes_changed)
