"""Every bound of the system in one place, with the relations between them asserted."""

from __future__ import annotations

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB

# Names
SCHEMA_ID_BYTES_MAX: Final = 100
KEY_ESCAPED_BYTES_MAX: Final = 240
FILE_NAME_BYTES_MAX: Final = 255
OBJECT_SUFFIX_BYTES_MAX: Final = len(".meta.json")

# Documents and schemas
DOCUMENT_BYTES_MAX_DEFAULT: Final = 1 * MIB
JSON_DEPTH_MAX: Final = 128
BATCH_DOCUMENTS_MAX: Final = 10_000
ISSUES_MAX: Final = 20
SCHEMA_NODES_MAX: Final = 10_000
SCHEMA_EXPANSION_MAX: Final = 2048
SCHEMA_PATTERNS_MAX: Final = 128
PATTERN_COMPILED_BYTES_MAX: Final = 512 * KIB
VALIDATION_STEPS_MAX: Final = 50_000_000
PATTERN_STEPS_MAX: Final = 150_000_000
ISSUE_BYTES_MAX: Final = 16 * MIB
ISSUE_STEPS_MAX: Final = 100_000
PATCH_OPERATIONS_MAX: Final = 1000
PATCH_WORK_BYTES_MAX: Final = 64 * MIB
PATCH_WORK_TIMES_MAX: Final = 8
"""A patch may read and write so many bytes, and these times its document: about a second."""
SCHEMAS_COMPILED_MAX: Final = 256
SCHEMA_REVISIONS_MAX: Final = 65_536

# Schemas that are tried, and scans by them
SCHEMA_TRIALS_MAX: Final = 2
"""Child processes at once that only check a schema."""
SCHEMA_TRIALS_WAITING_MAX: Final = 16
SCHEMA_TRIAL_BYTES_MAX: Final = 1024 * MIB
"""Address space of each such process."""
SCANS_MAX: Final = 2
SCAN_BATCH_MAX: Final = 64
SCAN_BATCH_BYTES_MAX: Final = 4 * MIB
SCAN_READS_MAX: Final = 16
SCAN_LISTED_MAX: Final = 1000

# Stored schemas in the description of the API
DESCRIBED_SCHEMAS_MAX: Final = 200
DESCRIBED_SCHEMAS_BYTES_MAX: Final = 1 * MIB
DESCRIBED_READS_MAX: Final = 16
DESCRIBED_AT_ONCE_MAX: Final = 2

# Envelope
RECENT_WRITES_MAX: Final = 16
WRITE_ID_BYTES: Final = 16
WRITE_GROUP_BYTES: Final = 8
"""The beginning of a write id that all writes under one Idempotency-Key have in common."""

# Requests
REQUEST_TIMEOUT_MS: Final = 10_000
REFUSED_BODY_DRAIN_BYTES_MAX: Final = 8 * MIB
REFUSED_BODY_DRAIN_S: Final = 5.0
BODY_RECEIVE_TIMEOUT_S: Final = 20.0
HEADER_RECEIVE_TIMEOUT_S: Final = 30.0
HEADER_BYTES_MAX: Final = 16 * KIB
API_BODY_BYTES_MAX: Final = 64 * KIB
REQUEST_ID_BYTES_MAX: Final = 128
LAST_USED_SAVED_S: Final = 60.0
CONDITION_TAGS_MAX: Final = 100
"""ETags in one If-Match or If-None-Match."""

# Idempotency-Key
IDEMPOTENCY_KEY_BYTES_MAX: Final = 255
IDEMPOTENCY_KEPT_S: Final = 24 * 3600.0
IDEMPOTENCY_ROWS_MAX: Final = 1_000_000
"""About 100 bytes each, in a file of the state directory."""
IDEMPOTENCY_ROWS_IN_MEMORY_MAX: Final = 100_000
IDEMPOTENCY_SURE_S: Final = 1800.0
"""For so long after its first use, an entity's stored history may show that a write was not applied."""
IDEMPOTENCY_TRIES_MAX: Final = 5

# Connections and bodies of clients
CONNECTIONS_MAX: Final = 16_384
"""About 15 KiB each while they say nothing."""
DESCRIPTORS_KEPT: Final = 1024
"""For everything that is not a client's connection."""
BODIES_BYTES_MAX: Final = 256 * MIB
"""All bodies of documents and schemas together that have arrived in part or are being served."""
SMALL_BODIES_BYTES_MAX: Final = 64 * MIB
"""The same of all others, which strangers may send, too."""
SMALL_BODIES_OF_ONE_BYTES_MAX: Final = SMALL_BODIES_BYTES_MAX // 4

# The stream between main worker and proc worker
STREAM_BATCH_COUNT_MAX: Final = 256
STREAM_BATCH_BYTES_MAX: Final = 2 * MIB
STREAM_IN_FLIGHT_MAX: Final = 4096
STREAM_IN_FLIGHT_BYTES_MAX: Final = 256 * MIB
GRPC_MESSAGE_BYTES_MAX_DEFAULT: Final = 32 * MIB
GRPC_MESSAGE_BYTES_MAX: Final = 1024 * MIB

HANDSHAKE_BYTES_MAX: Final = 4 * KIB
CLIENT_MESSAGE_OVERHEAD_BYTES: Final = 64 * KIB
CONTROL_MESSAGE_BYTES_MIN: Final = 1 * MIB
TEMPLATES_MESSAGE_BYTES_MAX: Final = 256 * KIB

# Strangers: callers who have proven nothing yet
STRANGERS_BYTES_MAX: Final = 256 * MIB
STRANGERS_MIN: Final = 8
STRANGERS_MAX: Final = 64
STRANGER_SOURCES_MIN: Final = 4
WATCHERS_MAX: Final = 1024
WATCHERS_OF_ONE_MAX: Final = 64
WORKER_WATCHERS_MAX: Final = 16
WORKER_WATCHERS_OF_ONE_MAX: Final = 4
CLIENT_STREAMS_MAX: Final = 256
DATA_STREAMS_MAX: Final = 32

# Placement
SHARD_COUNT_DEFAULT: Final = 1024
SHARD_COUNT_MAX: Final = 65_536
EPOCH_BLOCK: Final = 10_000
EPOCH_MAX: Final = 2**63 - 1
HEARTBEAT_INTERVAL_S: Final = 0.5
MEMBERSHIP_TIMEOUT_S: Final = 2.5
MOVE_HOLD_S: Final = 2.0
HELD_REQUESTS_MAX: Final = 4096
REJOIN_DELAY_S: Final = 0.5
TEMPLATE_POLL_S: Final = 2.0
HANDSHAKE_TIMEOUT_S: Final = 5.0
WORKER_TTL_S: Final = 3600.0
STORE_WAIT_MAX_S: Final = 600.0

BATCH_IN_FLIGHT_MAX: Final = 256
BATCH_ISSUES_MAX: Final = 100
SCHEMA_ROUNDS_MAX: Final = 5

# Transfers of many documents
BATCH_REQUESTS_MAX: Final = 100
BATCH_BODY_BYTES_MAX: Final = 16 * MIB
BATCH_ANSWER_BYTES_MAX: Final = 32 * MIB
"""Bodies of a batch's answers together; those of what would be more are left out."""
BATCH_AT_ONCE_MAX: Final = 16
"""Requests of one batch that are under way at once."""
BATCHES_MAX: Final = 16
"""Batches that are under way at once; further ones wait."""
IMPORTS_MAX: Final = 8
IMPORT_IN_FLIGHT_MAX: Final = 128
"""Lines of one import that are being written at once."""
IMPORT_IN_FLIGHT_BYTES_MAX: Final = 8 * MIB
IMPORT_TURN_LINES: Final = 64
"""After so many lines of an import others get their turn: about a millisecond."""
IMPORT_ERRORS_MAX: Final = 1000
IMPORT_PATIENCE_S: Final = 30.0
"""How long lines are tried again while none at all can be written."""
IMPORT_TRIES_MAX: Final = 64
RETRY_PAUSE_FIRST_S: Final = 0.05
RETRY_PAUSE_LAST_S: Final = 1.0
EXPORTS_MAX: Final = 8
EXPORT_AHEAD_MAX: Final = 64
"""Documents of one export that are read before the client has taken those before them."""
EXPORT_AHEAD_BYTES_MAX: Final = 4 * MIB
EXPORT_CHUNK_BYTES: Final = 64 * KIB

# Store
STORE_TIMEOUT_S: Final = 5.0
STORE_CONNECT_TIMEOUT_S: Final = 2.0
COMMIT_ATTEMPTS_MAX: Final = 8
SETTLED_AFTER_MS: Final = 60_000
LIST_PAGE_MAX: Final = 1000
SCAN_SLICE: Final = 512
"""Names that a scan of a folder reads at once: about a millisecond for whoever takes them."""
SEALED_OVERHEAD_BYTES_MAX: Final = 64 * KIB
"""More than an envelope adds to its document, with the longest names and most recent writes."""
OBJECT_BYTES_MAX: Final = GRPC_MESSAGE_BYTES_MAX + SEALED_OVERHEAD_BYTES_MAX
"""No sealed entity is larger: its document came in one message."""

# The journal of a directory, and who may work on it
JOURNAL_SEGMENT_BYTES: Final = 64 * MIB
"""At this size a segment takes nothing more. There are two at most."""
JOURNAL_HELD_BYTES: Final = 32 * MIB
"""Nor when the newest states of its objects are so large, which are in memory until they are in files."""
JOURNAL_RECORD_BYTES_MAX: Final = 2 * MIB
"""A larger object is written to its file at once."""
JOURNAL_PERIOD_S: Final = 10.0
"""So old is a segment when its objects are written to their files."""
JOURNAL_IDLE_S: Final = 1.0
"""So long nothing came into it when they are written sooner."""
JOURNAL_RETRY_S: Final = 1.0
JOURNAL_CLOSE_S: Final = 4.0
"""What is not in its file by then, at the end of a server, is written by its next start."""
DIRECTORY_WANTED_POLL_S: Final = 0.25
DIRECTORY_SHARED_S: Final = 2.0
"""So long a server that let others in lets them be, before it asks for the directory again."""
DIRECTORY_WAIT_S: Final = 15.0

# Worker
ENTITY_WAITERS_MAX: Final = 1024
CREATE_UNSEEN_BYTES_MAX: Final = 64 * KIB
"""Larger documents are not sent before a look at whether the entity exists: it costs little beside them."""
CREATIONS_NOTED_MAX: Final = 4096
"""Schemas of which a worker remembers whether puts mostly create."""
PRESENCE_INTERVAL_S: Final = 600.0
PRESENCE_RETRY_S: Final = 10.0
PRESENCE_VALID_S: Final = 1200.0
MERGED_WRITES_MAX: Final = 64
PLANNING_S_MAX: Final = 0.005
"""After so long over the patches of one group, others in the worker get their turn."""
TOMBSTONE_AGE_S: Final = 7200.0
"""For so long an owner keeps them: late puts have come by then, and the change feed tells of them."""
TOMBSTONE_OFFLINE_AGE_S: Final = 3600.0
"""The same for a scrub, before which there was no worker for as long and ``PRESENCE_VALID_S`` more."""
TOMBSTONES_NOTED_MAX: Final = 65_536

# Change feed
CHANGES_KEPT_S: Final = 3600.0
"""Positions in the feed are good for so long, also over a restart."""
CHANGES_MARGIN_S: Final = 180.0
"""A catch-up begins so much earlier: for differences of clocks, and for what was told of late."""
CHANGES_SETTLE_S: Final = 90.0
"""A put that was under way when the main worker began, or was lost, has landed by then if ever."""
CHANGES_NOTED_MAX: Final = 100_000
"""States remembered of all schemas together, about 0.5 KiB each."""
CHANGES_SCHEMAS_MAX: Final = 4096
"""Schemas that are followed at once."""
CHANGES_UNSURE_MAX: Final = 10_000
CHANGES_UNSURE_READS_MAX: Final = 16
CHANGES_CHECKS_S: Final = (0.0, 5.0, 20.0, 60.0)
"""When a write of unknown outcome is looked for, seconds after it was given up."""
CATCH_UP_EXTRA_S: Final = 600.0
"""A catch-up may end so much after the hour of the token that it began with."""
CATCH_UP_SLICE_S: Final = 5.0
CATCH_UPS_MAX: Final = 8
FEEDS_MAX: Final = 1024
FEEDS_OF_ONE_MAX: Final = 256
FEED_PAGE_DEFAULT: Final = 100
FEED_PAGE_MAX: Final = LIST_PAGE_MAX
FEED_WAIT_DEFAULT_S: Final = 25
FEED_WAIT_MAX_S: Final = 60
FEED_HEARTBEAT_S: Final = 15.0
FEED_RETRY_S: Final = 1.0
FEED_GATHER_S: Final = 0.02
"""Changes that follow each other so closely are sent together."""
FEED_COST_S: Final = 0.0002
"""Each open feed makes all gather for so much longer, so that many cannot take the whole processor."""
FEED_BATCH_BYTES_MAX: Final = 256 * KIB
"""Documents that one feed holds for its client, and one more: there are many, and some do not read."""
FEED_CHUNK_BYTES: Final = 64 * KIB
"""The server below takes some pieces of a stream ahead of the client."""
FEED_READS_MAX: Final = 16
FEED_DOCUMENT_READS_MAX: Final = 64
"""Documents that are being read for all feeds together."""
FEED_TAKE_S: Final = 60.0
"""A stream ends when its client has taken nothing for so long: heartbeats come four times as often."""
FEED_TOKEN_BYTES_MAX: Final = 512
# Listings
LISTING_REQUESTS_MAX: Final = 8
"""List requests to the store for one page, after which it is given short."""
LISTING_EXAMINED_MAX: Final = 8 * LIST_PAGE_MAX
"""The same for a page from a name index: names looked at, deleted entities among them."""
LISTING_ROUNDS_MAX: Final = 4
"""Pages of the workers that one page of a client is put together from."""
LISTING_FILL_S: Final = 2.0
NAME_INDEX_BYTES_MAX: Final = 128 * MIB
"""All name indexes of a worker together: about 5 million names of 20 letters."""
NAME_INDEX_IDLE_S: Final = 900.0
NAME_INDEX_REFRESH_S: Final = 300.0
NAME_INDEX_BUILDS_MAX: Final = 2
NAME_INDEX_BATCH: Final = 65_536
LISTED_DOCUMENTS_BYTES_MAX: Final = 8 * MIB
LISTED_READS_MAX: Final = 32
COUNTING_TIME_S: Final = 8.0
COUNTING_PAGES_MAX: Final = 4
"""Pages that are under way at once for one count."""

# Scrub and doctor
SCRUB_PAGE_DIRECTORY: Final = 50_000
SCRUB_PAGE: Final = LIST_PAGE_MAX
SCRUB_CHUNK: Final = 500
SCRUB_CONCURRENCY: Final = 16
SCRUB_OBJECT_BYTES_MAX: Final = OBJECT_BYTES_MAX
SCRUB_FINDINGS_MAX: Final = 10_000
SCRUB_SAVE_INTERVAL_S: Final = 2.0
CLOCK_SKEW_MAX_S: Final = 60.0
LATENCY_SAMPLES: Final = 50
FREE_SPACE_BYTES_MIN: Final = 1024 * MIB
FREE_SHARE_MIN: Final = 0.05

# Meta files
META_DELAY_S: Final = 5.0
"""Writes of one entity within this time become one meta file."""
META_IDLE_S: Final = 1.0
"""So long no entity was written when meta files are written sooner."""
META_PENDING_MAX: Final = 65_536
META_PENDING_BYTES_MAX: Final = 64 * MIB
META_CONCURRENCY: Final = 32

# Worker cache
CACHE_BYTES_DEFAULT: Final = 256 * MIB

# Python client and command line
CLIENT_IMPORT_REQUEST_BYTES: Final = 4 * MIB
"""An import sends a request once it holds this much: what a torn connection makes it send again."""
CLIENT_IMPORT_REQUEST_LINES: Final = 5000
CLIENT_IMPORT_TIMEOUT_S: Final = 300.0
CLIENT_IMPORT_ERRORS_MAX: Final = 1000
CLIENT_LINE_BYTES_MAX: Final = 64 * MIB
CLIENT_BATCH_REQUESTS_MAX: Final = 100
CLIENT_BATCH_BYTES_MAX: Final = 8 * MIB
"""Half of what the server takes, since bodies have headers and paths beside them."""
CLIENT_CONNECT_TIMEOUT_S: Final = 5.0
CLIENT_RETRY_FIRST_S: Final = 0.1
CLIENT_RETRY_LONGEST_S: Final = 5.0
CLIENT_RETRY_AFTER_MAX_S: Final = 3600.0
CLIENT_FEED_SILENCE_S: Final = 40.0
"""The server lets hear of itself every 15 s: who is silent for so long is gone."""

# Processes
TLS_POLL_S: Final = 2.0
DRAIN_TIMEOUT_S: Final = 10.0
STORE_WAIT_S: Final = 60.0
LOCAL_WORKERS_MAX: Final = 64

assert KEY_ESCAPED_BYTES_MAX + OBJECT_SUFFIX_BYTES_MAX <= FILE_NAME_BYTES_MAX
assert SCHEMA_ID_BYTES_MAX + OBJECT_SUFFIX_BYTES_MAX <= FILE_NAME_BYTES_MAX
assert STREAM_BATCH_BYTES_MAX + DOCUMENT_BYTES_MAX_DEFAULT < GRPC_MESSAGE_BYTES_MAX_DEFAULT
assert 2 * TEMPLATES_MESSAGE_BYTES_MAX < CONTROL_MESSAGE_BYTES_MIN
assert STRANGERS_MIN >= 2 * STRANGER_SOURCES_MIN, "one source's second call is not its last"
assert HEARTBEAT_INTERVAL_S * 4 < MEMBERSHIP_TIMEOUT_S
assert MOVE_HOLD_S * 1000 < REQUEST_TIMEOUT_MS
assert STORE_TIMEOUT_S * 1000 < REQUEST_TIMEOUT_MS
assert IMPORTS_MAX * IMPORT_IN_FLIGHT_MAX <= STREAM_IN_FLIGHT_MAX // 2, "imports leave room for others"
assert COUNTING_TIME_S * 1000 < REQUEST_TIMEOUT_MS
assert (
    PRESENCE_INTERVAL_S + 3 * PRESENCE_RETRY_S < PRESENCE_VALID_S < TOMBSTONE_OFFLINE_AGE_S <= TOMBSTONE_AGE_S
)
assert JOURNAL_CLOSE_S < DRAIN_TIMEOUT_S / 2
assert DIRECTORY_WANTED_POLL_S < DIRECTORY_SHARED_S < DIRECTORY_WAIT_S
assert JOURNAL_RECORD_BYTES_MAX * 4 < JOURNAL_HELD_BYTES <= JOURNAL_SEGMENT_BYTES
assert RECENT_WRITES_MAX < MERGED_WRITES_MAX <= 255, "a header counts recent writes in one byte"
assert WRITE_GROUP_BYTES < WRITE_ID_BYTES
assert 2 * IDEMPOTENCY_SURE_S <= TOMBSTONE_OFFLINE_AGE_S, "no entity's history begins again meanwhile"
assert TOMBSTONE_OFFLINE_AGE_S > 60 * (REQUEST_TIMEOUT_MS / 1000 + STORE_TIMEOUT_S), "no late put outlives it"
assert CHANGES_CHECKS_S[-1] + REQUEST_TIMEOUT_MS / 1000 < CHANGES_SETTLE_S
assert CLOCK_SKEW_MAX_S + CHANGES_CHECKS_S[-1] + 3 * REQUEST_TIMEOUT_MS / 1000 < CHANGES_MARGIN_S
assert (
    min(TOMBSTONE_AGE_S, TOMBSTONE_OFFLINE_AGE_S + PRESENCE_VALID_S)
    > CHANGES_KEPT_S + CATCH_UP_EXTRA_S + 2 * CHANGES_MARGIN_S
), "no delete is missed"
assert FEED_HEARTBEAT_S > CATCH_UP_SLICE_S
