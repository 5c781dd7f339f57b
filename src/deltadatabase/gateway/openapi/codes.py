"""The codes that clients meet, by status; a test holds them against those that the code raises."""

from __future__ import annotations

from typing import Final

CODES: Final[dict[int, tuple[str, ...]]] = {
    400: (
        "bad_batch", "bad_framing", "bad_header", "bad_log_level", "bad_patch", "bad_path", "bad_query",
        "bad_token", "incomplete_body", "invalid", "invalid_key", "invalid_schema", "invalid_schema_id",
        "malformed_json", "malformed_line", "missing_key", "no_documents", "not_an_object",
        "repeated_key", "schema_violation", "too_complex", "too_deep", "wrong_shape"
    ),
    401: ("unauthenticated",),
    403: ("denied", "foreign_host", "foreign_origin"),
    404: ("entity_not_found", "no_route", "not_found", "schema_not_found"),
    405: ("method_not_allowed",),
    408: ("request_timeout",),
    409: (
        "idempotency_key_forgotten", "idempotency_key_in_use", "patch_conflict", "patch_test_failed",
        "schema_changed", "template_invalid"
    ),
    410: ("changes_gone", "gone"),
    412: ("version_mismatch",),
    413: ("too_large",),
    415: ("unsupported_media_type",),
    422: ("idempotency_key_reused",),
    428: ("precondition_required",),
    429: ("rate_limited", "too_many_feeds"),
    431: ("headers_too_large",),
    500: ("integrity", "internal"),
    503: (
        "broken_answer", "contended", "ending", "entity_busy", "foreign_writer", "key_unavailable",
        "keys_changed", "locked", "moving", "no_worker", "overloaded", "scans_busy", "schema_trial_ended",
        "schema_trials", "schemas_busy", "state_unavailable", "store_bucket_missing", "store_denied",
        "store_gone", "store_refused", "timeout", "too_many_exports", "too_many_feeds", "too_many_imports",
        "unavailable"
    ),
    504: ("outcome_unknown", "timeout"),
    507: ("store_full",),
}  # fmt: skip
"""A code says why, and is for programs; the detail beside it is for people."""
