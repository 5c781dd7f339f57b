"""The main worker's end of the batched stream to a proc worker.

A unary gRPC call costs far more than the work that it asks for. So one bidirectional stream
carries all requests of a worker, multiplexed by id; those that wait together leave in one
message. ``exchange`` is the other end.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Final, Self

import grpc
import grpc.aio
import msgspec

from deltadatabase import limits
from deltadatabase.clock import Random
from deltadatabase.deadlines import Deadlines
from deltadatabase.errors import TooLarge, Unauthenticated
from deltadatabase.model import Command, Op, Result
from deltadatabase.rpc import channels, columns, convert, handshake, link
from deltadatabase.rpc.channels import Tls
from deltadatabase.rpc.columns import ReadRow
from deltadatabase.rpc.handshake import ClientCall, LinkSecret, Prove, Verify
from deltadatabase.rpc.outbox import Outbox
from deltadatabase.rpc.pb.proc_worker_pb2 import EncodedReplyBatch, EncodedRequestBatch, Reply

_log = logging.getLogger(__name__)

_METHOD: Final = f"/{channels.PROC_WORKER_SERVICE}/Exchange"


class _Pending(msgspec.Struct, frozen=True):
    """A call that waits for its answer."""

    answer: asyncio.Future[Reply | Result]
    op: Op


class WorkerStream:
    """A ``Link`` to a worker in another process. Made by ``open``."""

    local = False

    def __init__(
        self,
        channel: grpc.aio.Channel,
        call: ClientCall,
        message_bytes_max: int,
        on_batch: Callable[[int], None] | None = None,
        *,
        as_columns: bool = True,
    ) -> None:
        self._as_columns = as_columns
        self.lost = asyncio.Event()
        self._channel = channel
        self._call = call
        self._loop = asyncio.get_running_loop()
        self._outbox: Outbox[bytes | ReadRow] = Outbox(message_bytes_max, on_batch)
        self._pending: dict[int, _Pending] = {}
        self._deadlines = Deadlines()
        self._pending_bytes = 0
        self._cancelled: list[int] = []
        self._last_id = 0
        self._running = self._loop.create_task(self._run())

    @classmethod
    async def open(
        cls,
        address: str,
        *,
        prove: Prove,
        verify: Verify,
        random: Random,
        main_instance_id: str,
        expected_worker_instance_id: str,
        tls: Tls | None = None,
        message_bytes_max: int = limits.GRPC_MESSAGE_BYTES_MAX_DEFAULT,
        on_batch: Callable[[int], None] | None = None,
    ) -> Self:
        """Connect to a worker's data address; both ends prove the link key to each other.

        ``on_batch`` is told how many requests each message takes along.

        Raises:
            Unavailable: ``link_down``, nobody answers there in time.
            Unauthenticated: ``wrong_peer``, who answers is not this instance or does not hold
                the link key; ``unauthenticated``, it says so of us.
        """
        channel = channels.open_channel(address, tls=tls, message_bytes_max=message_bytes_max)
        try:
            call: ClientCall = channel.stream_stream(_METHOD, bytes, bytes)()  # type: ignore[call-arg]
            async with asyncio.timeout(handshake.HANDSHAKE_TIMEOUT_S):
                as_columns = await handshake.greet(
                    call,
                    LinkSecret(prove, verify, random),
                    main_instance_id,
                    expected_worker_instance_id,
                )
            return cls(channel, call, message_bytes_max, on_batch, as_columns=as_columns)
        except BaseException as exc:
            await channel.close(None)
            if isinstance(exc, grpc.aio.AioRpcError) and exc.code() is grpc.StatusCode.UNAUTHENTICATED:
                raise Unauthenticated("the worker refuses this link key") from None
            if isinstance(exc, grpc.RpcError | TimeoutError | asyncio.InvalidStateError) or (
                isinstance(exc, asyncio.CancelledError) and not _is_cancelling()
            ):
                raise link.link_down() from None
            raise

    @property
    def in_flight(self) -> int:
        return len(self._pending)

    @property
    def queued(self) -> int:
        return len(self._outbox)

    def cached(self, command: Command) -> Result | None:
        return None

    async def call(self, command: Command) -> Result:
        if self.lost.is_set():
            raise link.link_down()
        if command.timeout_ms <= 0:
            raise link.timed_out(command.op, sent=False)
        self._last_id = request_id = self._last_id + 1
        row = columns.read_row(request_id, command) if self._as_columns else None
        if row is not None:
            item: bytes | ReadRow = row
            size = columns.read_bytes(row)
        else:
            item = convert.encode_request(request_id, command).SerializeToString()
            size = len(item)
        if size > self._outbox.item_bytes_max:
            raise TooLarge("the request does not fit one message to the worker")
        if (
            len(self._pending) >= limits.STREAM_IN_FLIGHT_MAX
            or self._pending_bytes + size > limits.STREAM_IN_FLIGHT_BYTES_MAX
        ):
            raise link.overloaded()
        answer: asyncio.Future[Reply | Result] = self._loop.create_future()
        self._pending[request_id] = _Pending(answer, command.op)
        self._pending_bytes += size
        self._outbox.put(request_id, item, size)
        limit = self._deadlines.add(command.timeout_ms / 1000, partial(self._run_out, request_id))
        try:
            reply = await answer
            return reply if isinstance(reply, Result) else convert.decode_reply(reply, command.op)
        finally:
            self._deadlines.remove(limit)
            self._pending_bytes -= size
            # Still there: the caller was cancelled.
            if self._pending.pop(request_id, None) is not None:
                self._withdraw(request_id)

    async def close(self) -> None:
        if not self.lost.is_set():
            self._lose()
            self._running.cancel()
        await asyncio.wait([self._running])

    def _run_out(self, request_id: int) -> None:
        """Fail a call whose time has run out, if it is still waiting."""
        one = self._pending.pop(request_id, None)
        if one is not None:
            sent = self._withdraw(request_id)
            if not one.answer.done():
                one.answer.set_exception(link.timed_out(one.op, sent=sent))

    def _withdraw(self, request_id: int) -> bool:
        """Forget a request; one that may have been sent is cancelled at the worker, and True."""
        if self._outbox.discard(request_id):
            return False
        self._cancelled.append(request_id)
        self._outbox.wake()
        return True

    async def _run(self) -> None:
        """Read and write until either ends, then fail what is pending."""
        tasks = [self._loop.create_task(self._read()), self._loop.create_task(self._write())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._lose()
            for task in tasks:
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            reasons = sorted({type(outcome).__name__ for outcome in outcomes if outcome is not None})
            _log.info("the stream to a worker ended reasons=%s", ",".join(reasons))
            self._call.cancel()
            await self._channel.close(None)

    async def _read(self) -> None:
        while isinstance(data := await self._call.read(), bytes):
            batch = EncodedReplyBatch.FromString(data)
            if batch.HasField("documents"):
                for request_id, result in columns.unpack_documents(batch.documents):
                    self._deliver(request_id, result)
            for encoded in batch.replies:
                reply = Reply.FromString(encoded)
                self._deliver(reply.id, reply)

    def _deliver(self, request_id: int, reply: Reply | Result) -> None:
        one = self._pending.pop(request_id, None)
        if one is not None and not one.answer.done():
            one.answer.set_result(reply)

    async def _write(self) -> None:
        while True:
            await self._outbox.wait()
            # What the loop has ready now goes along.
            await asyncio.sleep(0)
            cancelled, self._cancelled = self._cancelled, []
            batch = self._outbox.take()
            if batch or cancelled:
                rows = [item for item in batch if not isinstance(item, bytes)]
                message = EncodedRequestBatch(
                    requests=[item for item in batch if isinstance(item, bytes)],
                    cancelled=cancelled,
                    reads=columns.pack_reads(rows) if rows else None,
                )
                await self._call.write(message.SerializeToString())

    def _lose(self) -> None:
        self.lost.set()
        for request_id, one in self._pending.items():
            # Taken out, not only looked for: the writing task may have its turn before it is
            # cancelled, and what is called unsent must never reach the worker.
            unsent = self._outbox.discard(request_id)
            if not one.answer.done():
                one.answer.set_exception(link.link_down() if unsent else link.link_lost())
        self._pending.clear()


def _is_cancelling() -> bool:
    """Whether our task is being cancelled; gRPC reports a cancelled stream the same way."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
