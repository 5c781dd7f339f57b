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
SCHEMAS_COMPILED_MAX: Final = 256
SCHEMA_REVISIONS_MAX: Final = 65_536

# Envelope
RECENT_WRITES_MAX: Final = 8
WRITE_ID_BYTES: Final = 16

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

# Store
STORE_TIMEOUT_S: Final = 5.0
STORE_CONNECT_TIMEOUT_S: Final = 2.0
COMMIT_ATTEMPTS_MAX: Final = 8
SETTLED_AFTER_MS: Final = 60_000
LIST_PAGE_MAX: Final = 1000
SEALED_OVERHEAD_BYTES_MAX: Final = 64 * KIB
"""More than an envelope adds to its document, with the longest names and most recent writes."""
OBJECT_BYTES_MAX: Final = GRPC_MESSAGE_BYTES_MAX + SEALED_OVERHEAD_BYTES_MAX
"""No sealed entity is larger: its document came in one message."""

# The journal of a directory, and who may work on it
JOURNAL_SEGMENT_BYTES: Final = 32 * MIB
"""At this size a segment takes nothing more. There are two at most, so this bounds memory and disk."""
JOURNAL_RECORD_BYTES_MAX: Final = 2 * MIB
"""A larger object is written to its file at once."""
JOURNAL_PERIOD_S: Final = 2.0
"""So old is a segment when its objects are written to their files."""
JOURNAL_RETRY_S: Final = 1.0
JOURNAL_CLOSE_S: Final = 4.0
"""What is not in its file by then, at the end of a server, is written by its next start."""
DIRECTORY_WANTED_POLL_S: Final = 0.25
DIRECTORY_SHARED_S: Final = 2.0
"""So long a server that let others in lets them be, before it asks for the directory again."""
DIRECTORY_WAIT_S: Final = 15.0

# Worker
ENTITY_WAITERS_MAX: Final = 1024
PRESENCE_INTERVAL_S: Final = 600.0
PRESENCE_RETRY_S: Final = 10.0
PRESENCE_VALID_S: Final = 1200.0
MERGED_WRITES_MAX: Final = 64
TOMBSTONE_AGE_S: Final = 3600.0
TOMBSTONES_NOTED_MAX: Final = 65_536

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
META_DELAY_S: Final = 2.0
"""Writes of one entity within this time become one meta file."""
META_PENDING_MAX: Final = 65_536
META_PENDING_BYTES_MAX: Final = 64 * MIB
META_CONCURRENCY: Final = 32

# Worker cache
CACHE_BYTES_DEFAULT: Final = 256 * MIB

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
assert PRESENCE_INTERVAL_S + 3 * PRESENCE_RETRY_S < PRESENCE_VALID_S < TOMBSTONE_AGE_S
assert JOURNAL_CLOSE_S < DRAIN_TIMEOUT_S / 2
assert DIRECTORY_WANTED_POLL_S < DIRECTORY_SHARED_S < DIRECTORY_WAIT_S
assert JOURNAL_RECORD_BYTES_MAX * 4 < JOURNAL_SEGMENT_BYTES
assert RECENT_WRITES_MAX < MERGED_WRITES_MAX <= 255, "a header counts recent writes in one byte"
assert TOMBSTONE_AGE_S > 60 * (REQUEST_TIMEOUT_MS / 1000 + STORE_TIMEOUT_S), "no late put outlives it"
