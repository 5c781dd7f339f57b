"""The proc worker's end of the batched stream: the ``ProcWorker`` service."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Final

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from deltadatabase import limits
from deltadatabase.clock import Random
from deltadatabase.errors import DeltaError, Invalid, Overloaded, TooLarge
from deltadatabase.model import Command, Result
from deltadatabase.rpc import channels, columns, convert, handshake, link, status
from deltadatabase.rpc.columns import DocumentRow, ReadRow
from deltadatabase.rpc.doorway import Doorway, places_for
from deltadatabase.rpc.handshake import LinkSecret, Prove, ServerContext, Verify
from deltadatabase.rpc.link import Handler
from deltadatabase.rpc.outbox import Outbox
from deltadatabase.rpc.pb.proc_worker_pb2 import EncodedReplyBatch, Reply, Request, RequestId

_log = logging.getLogger(__name__)

#: Past this many bytes of replies that the peer does not fetch, no more requests are read.
UNSENT_BYTES_MAX: Final = 64 * limits.MIB
CLOSE_TIMEOUT_S: Final = 1.0


class ExchangeService:
    """Serves ``handler`` to the main worker that holds the link key.

    So many strangers at once are heard, in all and from one source (``doorway``). A newer stream
    does not end the work of an older one. ``instance_id`` is asked at each
    handshake: it changes with every membership. ``on_refused`` is told the address of who proved
    nothing, as gRPC names it; ``on_batch`` how many replies each message takes along.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        prove: Prove,
        verify: Verify,
        random: Random,
        instance_id: Callable[[], str],
        message_bytes_max: int = limits.GRPC_MESSAGE_BYTES_MAX_DEFAULT,
        handshake_timeout_s: float = handshake.HANDSHAKE_TIMEOUT_S,
        on_refused: Callable[[str], None] = lambda peer: None,
        on_batch: Callable[[int], None] | None = None,
    ) -> None:
        self._on_batch = on_batch
        self._on_refused = on_refused
        self._handler = handler
        self._secret = LinkSecret(prove, verify, random)
        self._instance_id = instance_id
        self._message_bytes_max = message_bytes_max
        self._handshake_timeout_s = handshake_timeout_s
        self._doorway = Doorway(places_for(message_bytes_max))
        self._tasks: set[asyncio.Task[None]] = set()
        self._streams: set[asyncio.Task[object]] = set()

    @property
    def in_flight(self) -> int:
        """Number of commands being executed, also those whose stream has ended."""
        return len(self._tasks)

    def register(self, server: grpc.aio.Server) -> None:
        """Add the service to ``server``, which has not started yet."""
        # Not by the generated code: it would decode a batch as a whole and fail as a whole.
        method = grpc.stream_stream_rpc_method_handler(self._exchange)
        handlers = grpc.method_handlers_generic_handler(channels.PROC_WORKER_SERVICE, {"Exchange": method})
        server.add_generic_rpc_handlers((handlers,))

    async def settle(self, timeout_s: float) -> bool:
        """Wait for the commands being executed; False if some still are after ``timeout_s``."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)
        return not self._tasks

    async def close(self) -> None:
        """End every stream. Call it before the server stops, which ends them with a stack trace."""
        for stream in list(self._streams):
            stream.cancel()
        if self._streams:
            await asyncio.wait(self._streams, timeout=CLOSE_TIMEOUT_S)

    async def _exchange(self, _requests: object, context: ServerContext) -> None:
        stream = asyncio.current_task()
        assert stream is not None
        self._streams.add(stream)
        try:
            await self._serve(context)
        except asyncio.CancelledError:
            return  # Closed here, or by the server's end; nothing runs after this.
        finally:
            self._streams.discard(stream)

    async def _serve(self, context: ServerContext) -> None:
        peer: str | None = None
        try:
            with self._doorway.place(context.peer()):
                async with asyncio.timeout(self._handshake_timeout_s):
                    peer = await handshake.admit(context, self._secret, self._instance_id())
        except TimeoutError:
            pass
        except Overloaded as exc:
            await context.abort(status.status_code(exc), exc.detail)
        if peer is None:
            self._on_refused(context.peer())
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "no valid proof of the link key")
        _log.info("a main worker opened its stream main_instance_id=%s", peer)
        await _Exchange(self._handler, context, self._message_bytes_max, self._tasks, self._on_batch).run()


class _Exchange:
    """One stream whose peer has proved itself."""

    def __init__(
        self,
        handler: Handler,
        context: ServerContext,
        message_bytes_max: int,
        tasks: set[asyncio.Task[None]],
        on_batch: Callable[[int], None] | None,
    ) -> None:
        self._handler = handler
        self._context = context
        self._outbox: Outbox[bytes | DocumentRow] = Outbox(message_bytes_max, on_batch)
        self._loop = asyncio.get_running_loop()
        #: Of every stream: the event loop itself keeps no task alive.
        self._tasks = tasks
        self._executing: dict[int, tuple[asyncio.Task[None], Command]] = {}
        self._executing_bytes = 0
        self._room = asyncio.Event()

    async def run(self) -> None:
        """Serve until the peer ends the stream or it breaks."""
        writer = self._loop.create_task(self._write())
        try:
            while not writer.done() and (batch := await handshake.receive(self._context)) is not None:
                if batch.HasField("reads"):
                    self._read(columns.unpack_reads(batch.reads))
                for encoded in batch.requests:
                    self._accept(encoded)
                for request_id in batch.cancelled:
                    if request_id in self._executing:
                        self._executing[request_id][0].cancel()
                while self._outbox.size_bytes > UNSENT_BYTES_MAX and not writer.done():
                    self._room.clear()
                    await self._room.wait()
        except DecodeError:
            await self._context.abort(grpc.StatusCode.INVALID_ARGUMENT, "a message breaks the protocol")
        finally:
            # Nobody will see these answers. Writes run on: the peer will look for them.
            for task, command in self._executing.values():
                if command.op not in link.WRITES:
                    task.cancel()
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)

    async def _write(self) -> None:
        try:
            while True:
                await self._outbox.wait()
                batch = self._outbox.take()
                if batch:
                    rows = [item for item in batch if not isinstance(item, bytes)]
                    message = EncodedReplyBatch(
                        replies=[item for item in batch if isinstance(item, bytes)],
                        documents=columns.pack_documents(rows) if rows else None,
                    )
                    await self._context.write(message.SerializeToString())
                self._room.set()
        finally:
            self._room.set()

    def _read(self, rows: list[ReadRow]) -> None:
        """Answer plain reads: at once what can be, by tasks what cannot.

        Raises:
            DecodeError: an id is missing or in use.
        """
        fast, outbox = self._handler.fast, self._outbox
        for row in rows:
            request_id = row[0]
            self._check_id(request_id)
            command: Command | None = None
            try:
                command = columns.read_command(row)
                result = fast(command)
                if result is None:
                    self._start(request_id, command, columns.read_bytes(row))
                    continue
            except DeltaError as exc:
                self._answer(request_id, exc)
                continue
            except Exception as exc:  # noqa: BLE001  # a handler's mistake is an answer too
                self._answer(request_id, link.internal(exc, command.request_id if command else ""))
                continue
            document = columns.document_row(request_id, result)
            if document is not None and (size := columns.document_bytes(document)) <= outbox.item_bytes_max:
                outbox.put(request_id, document, size)
            else:
                self._answer(request_id, result)

    def _accept(self, encoded: bytes) -> None:
        """Answer one request at once, or start a task that does.

        Raises:
            DecodeError: it has no id, or one that is in use.
        """
        request: Request | None = None
        try:
            request = Request.FromString(encoded)
            request_id = request.id
        except DecodeError:
            request_id = RequestId.FromString(encoded).id
        self._check_id(request_id)
        try:
            if request is None:
                raise Invalid("the request cannot be decoded")
            command = convert.decode_request(request)
            result = self._handler.fast(command)
            if result is None:
                self._start(request_id, command, len(encoded))
            else:
                self._answer(request_id, result)
        except DeltaError as exc:
            self._answer(request_id, exc)
        except Exception as exc:  # noqa: BLE001  # a handler's mistake is an answer too
            self._answer(request_id, link.internal(exc, request.request_id if request else ""))

    def _check_id(self, request_id: int) -> None:
        if request_id == 0 or request_id in self._executing or request_id in self._outbox:
            raise DecodeError("a request id is missing or in use")

    def _start(self, request_id: int, command: Command, size: int) -> None:
        if (
            len(self._executing) >= limits.STREAM_IN_FLIGHT_MAX
            or self._executing_bytes + size > limits.STREAM_IN_FLIGHT_BYTES_MAX
        ):
            raise link.overloaded()
        task = self._loop.create_task(self._execute(request_id, command))
        self._executing[request_id] = (task, command)
        self._executing_bytes += size
        self._tasks.add(task)
        # A callback and no "finally": a task cancelled before its first step runs none.
        task.add_done_callback(partial(self._ended, request_id, size))

    def _ended(self, request_id: int, size: int, task: asyncio.Task[None]) -> None:
        del self._executing[request_id]
        self._executing_bytes -= size
        self._tasks.discard(task)

    async def _execute(self, request_id: int, command: Command) -> None:
        try:
            self._answer(request_id, await self._handler.execute(command))
        except DeltaError as exc:
            self._answer(request_id, exc)
        except Exception as exc:  # noqa: BLE001  # a handler's mistake is an answer too
            self._answer(request_id, link.internal(exc, command.request_id))

    def _answer(self, request_id: int, outcome: Result | DeltaError) -> None:
        if isinstance(outcome, DeltaError):
            reply = Reply(id=request_id, error=status.encode_error(outcome))
        else:
            reply = convert.encode_reply(request_id, outcome)
        data = reply.SerializeToString()
        if len(data) > self._outbox.item_bytes_max:
            large = TooLarge("the answer does not fit one message from the worker")
            data = Reply(id=request_id, error=status.encode_error(large)).SerializeToString()
        self._outbox.put(request_id, data, len(data))
