"""Many calls in few requests, in the form of Kinto's batches."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec

from deltadatabase import limits
from deltadatabase.client.calls import Call
from deltadatabase.client.problems import error_of, not_ours
from deltadatabase.client.requests import Request, Response
from deltadatabase.client.retrying import final
from deltadatabase.client.steps import Means, Steps, Trying, respond_trying
from deltadatabase.errors import DeltaError, Invalid


class _Part(msgspec.Struct, frozen=True, omit_defaults=True):
    method: str
    path: str
    headers: dict[str, str]
    body: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Answered(msgspec.Struct, frozen=True):
    status: int
    headers: dict[str, str] = {}
    body: msgspec.Raw = msgspec.Raw(b"null")


class _Batch(msgspec.Struct, frozen=True):
    responses: tuple[_Answered, ...]


def batch(asked: Sequence[Call[Any]], means: Means) -> Steps[list[Any]]:
    """Do the calls in order; give each one's result, or the ``DeltaError`` that it failed with.

    Raises:
        DeltaError: of a request that carries some of them; those before it are done.
    """
    named = [call.named(means.name()) for call in asked]
    results: list[Any] = []
    for part in portions(named):
        request = _request(part)
        trying = Trying(request, means)
        response = yield from respond_trying(trying, request)
        try:
            answered = msgspec.json.decode(response.body, type=_Batch).responses
        except msgspec.MsgspecError:
            raise not_ours() from None
        if len(answered) != len(part):
            raise not_ours()
        results += [
            _result(call, each, unknown=trying.unknown) for call, each in zip(part, answered, strict=True)
        ]
    return results


def portions(asked: Sequence[Call[Any]]) -> list[list[Call[Any]]]:
    """Divide calls into as many as one request may carry."""
    parts: list[list[Call[Any]]] = []
    size = 0
    for call in asked:
        bytes_more = len(call.request.body) + len(call.request.path)
        if (
            not parts
            or len(parts[-1]) == limits.CLIENT_BATCH_REQUESTS_MAX
            or size + bytes_more > limits.CLIENT_BATCH_BYTES_MAX
        ):
            parts.append([])
            size = 0
        parts[-1].append(call)
        size += bytes_more
    return parts


def _request(part: Sequence[Call[Any]]) -> Request:
    requests = [
        _Part(
            method=call.request.method,
            path=call.request.path,
            headers=dict(call.request.headers),
            body=_embedded(call.request.body) if call.request.body else msgspec.UNSET,
        )
        for call in part
    ]
    return Request(
        "POST",
        "/batch",
        {"content-type": "application/json"},
        msgspec.json.encode({"requests": requests}),
        repeatable=all(call.request.may_repeat for call in part),
    )


def _embedded(body: bytes) -> msgspec.Raw:
    """A body inside the batch's own; what is no JSON would spoil the other requests."""
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        raise Invalid("the document is no JSON", code="not_json") from None
    return msgspec.Raw(body)


def _result(call: Call[Any], answered: _Answered, *, unknown: bool) -> Any:
    headers = {name.lower(): value for name, value in answered.headers.items()}
    response = Response(answered.status, headers, bytes(answered.body))
    try:
        error = error_of(replace(call.request), response)
        if error is not None:
            # What a try before this one has done, the answer to this one need not say.
            return final(call.request, error, unknown=unknown)
        return call.parse(response)
    except DeltaError as exc:
        return exc
