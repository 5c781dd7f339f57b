from __future__ import annotations

import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltadatabase.auth.join import (
    JoinContext,
    JoinToken,
    link_proof,
    main_proof,
    verify_link,
    verify_main,
    verify_worker,
    worker_proof,
    wrap_info,
)
from deltadatabase.errors import StartupError

TOKEN = JoinToken.from_text("correct horse battery staple")
OTHER_TOKEN = JoinToken.from_text("another token entirely")
CONTEXT = JoinContext(
    server_nonce=b"s" * 32,
    worker_nonce=b"w" * 32,
    worker_id="proc-1",
    instance_id="ab12",
    public_key=b"p" * 32,
    grpc_addr="127.0.0.1:50052",
)
OTHER_CONTEXTS = [
    msgspec.structs.replace(CONTEXT, **change)
    for change in (
        {"server_nonce": b"S" * 32},
        {"worker_nonce": b"W" * 32},
        {"worker_id": "proc-2"},
        {"instance_id": "cd34"},
        {"public_key": b"P" * 32},
        {"grpc_addr": "127.0.0.1:50053"},
        {"worker_id": "proc-1a", "instance_id": "b12"},
    )
]
CONTEXTS = st.builds(
    JoinContext,
    server_nonce=st.binary(max_size=4),
    worker_nonce=st.binary(max_size=4),
    worker_id=st.text("ab", max_size=4),
    instance_id=st.text("ab", max_size=4),
    public_key=st.binary(max_size=4),
    grpc_addr=st.text("ab", max_size=4),
)


def test_the_workers_proof_holds_for_its_token_and_admission_alone() -> None:
    proof = worker_proof(TOKEN, CONTEXT)
    assert verify_worker(TOKEN, CONTEXT, proof)
    assert not verify_worker(OTHER_TOKEN, CONTEXT, proof)
    assert not any(verify_worker(TOKEN, other, proof) for other in OTHER_CONTEXTS)
    assert not verify_worker(TOKEN, CONTEXT, b"")
    assert not verify_worker(TOKEN, CONTEXT, proof[:-1])


def test_the_main_workers_proof_also_covers_what_it_wrapped() -> None:
    proof = main_proof(TOKEN, CONTEXT, b"wrapped")
    assert verify_main(TOKEN, CONTEXT, b"wrapped", proof)
    assert not verify_main(TOKEN, CONTEXT, b"Wrapped", proof)
    assert not verify_main(OTHER_TOKEN, CONTEXT, b"wrapped", proof)
    assert not any(verify_main(TOKEN, other, b"wrapped", proof) for other in OTHER_CONTEXTS)


def test_a_proof_cannot_be_sent_back() -> None:
    assert not verify_main(TOKEN, CONTEXT, b"", worker_proof(TOKEN, CONTEXT))
    assert not verify_worker(TOKEN, CONTEXT, main_proof(TOKEN, CONTEXT, b""))
    proof = link_proof(b"k" * 32, "main", b"m", b"w")
    assert not verify_link(b"k" * 32, "worker", b"m", b"w", proof)


def test_the_link_proof_holds_for_its_key_role_and_nonces_alone() -> None:
    proof = link_proof(b"k" * 32, "worker", b"m1", b"w1")
    assert verify_link(b"k" * 32, "worker", b"m1", b"w1", proof)
    assert not verify_link(b"K" * 32, "worker", b"m1", b"w1", proof)
    assert not verify_link(b"k" * 32, "worker", b"m2", b"w1", proof)
    assert not verify_link(b"k" * 32, "worker", b"m1", b"w2", proof)
    assert not verify_link(b"k" * 32, "worker", b"m1w", b"1", proof)


def test_the_wrap_info_differs_by_admission_and_key() -> None:
    infos = [wrap_info(context, b"i" * 8) for context in (CONTEXT, *OTHER_CONTEXTS)]
    infos.append(wrap_info(CONTEXT, b"j" * 8))
    assert len(set(infos)) == len(infos)


@given(CONTEXTS, CONTEXTS)
def test_two_contexts_never_encode_alike(first: JoinContext, second: JoinContext) -> None:
    assert (first.encode() == second.encode()) is (first == second)


def test_tokens_round_trip_through_their_text() -> None:
    made = JoinToken.generate(lambda size: b"\xa5" * size)
    again = JoinToken.from_text(f" {made.text()}\n")
    assert again.text() == made.text()
    assert verify_worker(again, CONTEXT, worker_proof(made, CONTEXT))


def test_both_sides_derive_the_same_token_from_s3() -> None:
    tokens = [JoinToken.derive_from_s3(secret) for secret in ("minioadmin", "minioadmin", "x")]
    assert tokens[0].text() == tokens[1].text() != tokens[2].text()
    assert "minioadmin" not in tokens[0].text()
    with pytest.raises(StartupError):
        JoinToken.derive_from_s3("")


@pytest.mark.parametrize("text", ["", "s3cr3t", "fifteen-charact", "   fifteen-charact   "])
def test_short_tokens_are_refused_without_showing_them(text: str) -> None:
    with pytest.raises(StartupError) as caught:
        JoinToken.from_text(text)
    assert caught.value.code == "bad_flag"
    assert not text or text.strip() not in caught.value.detail


def test_sixteen_bytes_are_enough() -> None:
    assert JoinToken.from_text("sixteen-characte").text() == "sixteen-characte"


def test_text_forms_hide_the_token() -> None:
    for text in (repr(TOKEN), str(TOKEN), f"{TOKEN}"):
        assert "horse" not in text


def test_no_two_uses_share_a_proof() -> None:
    key = TOKEN.text().encode()
    uses = [
        worker_proof(TOKEN, CONTEXT),
        main_proof(TOKEN, CONTEXT, b""),
        link_proof(key, "main", b"", b""),
        link_proof(key, "worker", b"", b""),
    ]
    assert all(first != second for first, second in itertools.combinations(uses, 2))
