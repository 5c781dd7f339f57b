"""A main worker that is none, and a listener who repeats what it heard."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent import futures

import grpc
import httpx
import pytest
from integration.cluster import JOIN_TOKEN
from support.programs import Programs, wait_for

from deltadatabase.auth import join as joining
from deltadatabase.auth.join import JoinToken
from deltadatabase.crypto.keyring import Keyring, MasterKey
from deltadatabase.crypto.wrap import wrap
from deltadatabase.rpc.pb import main_worker_pb2 as pb
from deltadatabase.rpc.pb import main_worker_pb2_grpc as pb_grpc
from security.attacker import ADMIN, context_of, heard, join_message, proof_for

pytestmark = pytest.mark.integration

NONCE = b"s" * joining.NONCE_BYTES
Answer = Callable[[pb.Join], pb.Admitted]


class RogueMain(pb_grpc.MainWorkerServicer):
    """Answers every join with an admission of its own making."""

    def __init__(self, answer: Answer, *, proof_required: bool) -> None:
        self.answer = answer
        self.proof_required = proof_required
        self.heard: list[str] = []

    def Subscribe(self, messages: Iterator[pb.WorkerMessage], _: object) -> Iterator[pb.MainMessage]:  # noqa: N802
        join = next(messages).join
        yield pb.MainMessage(challenge=pb.Challenge(nonce=NONCE, proof_required=self.proof_required))
        next(messages)
        yield pb.MainMessage(admitted=self.answer(join))
        for message in messages:
            self.heard.append(message.WhichOneof("message") or "")


@contextlib.contextmanager
def rogue_main(answer: Answer, *, proof_required: bool = True) -> Iterator[tuple[RogueMain, int]]:
    rogue = RogueMain(answer, proof_required=proof_required)
    server = grpc.server(futures.ThreadPoolExecutor(4))
    pb_grpc.add_MainWorkerServicer_to_server(rogue, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield rogue, port
    server.stop(None).wait()


def own_keys(join: pb.Join, token: str | None) -> pb.Admitted:
    """An admission with a link key and a master key that the rogue made."""
    keyring = Keyring(MasterKey(b"\x07" * 32))
    agreed = context_of(join, NONCE)
    key_id = keyring.primary.key_id
    wrapped = wrap(join.public_key, b"l" * 32 + keyring.to_payload(), joining.wrap_info(agreed, key_id))
    proof = b"" if token is None else joining.main_proof(JoinToken.from_text(token), agreed, wrapped)
    return pb.Admitted(wrapped=wrapped, proof=proof, key_id=key_id.hex(), main_instance_id="m")


def exit_code(started: Programs, tmp_path, port: int) -> tuple[int, str]:
    worker = started.start(
        "proc-worker",
        f"-main-addr=127.0.0.1:{port}",
        "-worker-id=one",
        f"-shared-fs={tmp_path / 'db'}",
        environ={"JOIN_TOKEN": JOIN_TOKEN},
    )
    return worker.wait(), worker.output


@pytest.mark.parametrize("proof_required", [True, False])
@pytest.mark.parametrize("token", [None, "another-token-of-a-rogue"], ids=["no proof", "wrong proof"])
def test_a_rogue_main_worker_cannot_hand_out_a_key_of_its_own(started, tmp_path, token, proof_required):
    with rogue_main(lambda join: own_keys(join, token), proof_required=proof_required) as (rogue, port):
        code, output = exit_code(started, tmp_path, port)
    assert code == 2
    assert "did not prove" in output
    assert rogue.heard == []
    assert not (tmp_path / "db" / "cluster" / "database.json").exists()


def test_the_rogue_would_succeed_with_the_join_token(started, tmp_path):
    """The test above could not fail if its admission were malformed."""
    with rogue_main(lambda join: own_keys(join, JOIN_TOKEN)) as (rogue, port):
        worker = started.start(
            "proc-worker",
            f"-main-addr=127.0.0.1:{port}",
            "-worker-id=one",
            f"-shared-fs={tmp_path / 'db'}",
            environ={"JOIN_TOKEN": JOIN_TOKEN},
        )
        wait_for(lambda: "ready" in rogue.heard, "the worker opened a database under the rogue's key")
        worker.stop()


def test_keys_wrapped_for_another_admission_are_of_no_use(guarded, started, tmp_path):
    with grpc.insecure_channel(f"127.0.0.1:{guarded.grpc_port}") as channel:
        asked = join_message(worker_id="one", backend="directory")
        said = heard(channel, asked, lambda nonce: proof_for(asked, nonce))
    captured = next(message.admitted for message in said if message.HasField("admitted"))
    with rogue_main(lambda _: captured) as (rogue, port):
        code, _ = exit_code(started, tmp_path, port)
    assert code == 2
    assert rogue.heard == []
    # Nobody but the key pair of that admission opens it, and the join token does not help.
    assert len(httpx.get(f"{guarded.url}/admin/workers", headers=ADMIN).json()) == 1
