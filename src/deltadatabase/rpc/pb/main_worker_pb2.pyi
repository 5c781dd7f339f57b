# mypy: ignore-errors
from deltadatabase.rpc.pb import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class StoreSight(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STORE_SIGHT_UNSPECIFIED: _ClassVar[StoreSight]
    STORE_SIGHT_HELD: _ClassVar[StoreSight]
    STORE_SIGHT_GONE: _ClassVar[StoreSight]
STORE_SIGHT_UNSPECIFIED: StoreSight
STORE_SIGHT_HELD: StoreSight
STORE_SIGHT_GONE: StoreSight

class WorkerMessage(_message.Message):
    __slots__ = ("join", "proof", "ready", "heartbeat", "templates", "drain", "start_failed", "renew")
    JOIN_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    TEMPLATES_FIELD_NUMBER: _ClassVar[int]
    DRAIN_FIELD_NUMBER: _ClassVar[int]
    START_FAILED_FIELD_NUMBER: _ClassVar[int]
    RENEW_FIELD_NUMBER: _ClassVar[int]
    join: Join
    proof: Proof
    ready: Ready
    heartbeat: WorkerHeartbeat
    templates: TemplateSnapshot
    drain: Drain
    start_failed: StartFailed
    renew: Renew
    def __init__(self, join: _Optional[_Union[Join, _Mapping]] = ..., proof: _Optional[_Union[Proof, _Mapping]] = ..., ready: _Optional[_Union[Ready, _Mapping]] = ..., heartbeat: _Optional[_Union[WorkerHeartbeat, _Mapping]] = ..., templates: _Optional[_Union[TemplateSnapshot, _Mapping]] = ..., drain: _Optional[_Union[Drain, _Mapping]] = ..., start_failed: _Optional[_Union[StartFailed, _Mapping]] = ..., renew: _Optional[_Union[Renew, _Mapping]] = ...) -> None: ...

class MainMessage(_message.Message):
    __slots__ = ("challenge", "admitted", "member", "heartbeat", "refused", "drained", "replaced")
    CHALLENGE_FIELD_NUMBER: _ClassVar[int]
    ADMITTED_FIELD_NUMBER: _ClassVar[int]
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    DRAINED_FIELD_NUMBER: _ClassVar[int]
    REPLACED_FIELD_NUMBER: _ClassVar[int]
    challenge: Challenge
    admitted: Admitted
    member: Member
    heartbeat: MainHeartbeat
    refused: Refused
    drained: Drained
    replaced: Replaced
    def __init__(self, challenge: _Optional[_Union[Challenge, _Mapping]] = ..., admitted: _Optional[_Union[Admitted, _Mapping]] = ..., member: _Optional[_Union[Member, _Mapping]] = ..., heartbeat: _Optional[_Union[MainHeartbeat, _Mapping]] = ..., refused: _Optional[_Union[Refused, _Mapping]] = ..., drained: _Optional[_Union[Drained, _Mapping]] = ..., replaced: _Optional[_Union[Replaced, _Mapping]] = ...) -> None: ...

class Join(_message.Message):
    __slots__ = ("worker_id", "instance_id", "public_key", "nonce", "grpc_addr", "backend", "version", "message_bytes_max")
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    GRPC_ADDR_FIELD_NUMBER: _ClassVar[int]
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_BYTES_MAX_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    instance_id: str
    public_key: bytes
    nonce: bytes
    grpc_addr: str
    backend: str
    version: str
    message_bytes_max: int
    def __init__(self, worker_id: _Optional[str] = ..., instance_id: _Optional[str] = ..., public_key: _Optional[bytes] = ..., nonce: _Optional[bytes] = ..., grpc_addr: _Optional[str] = ..., backend: _Optional[str] = ..., version: _Optional[str] = ..., message_bytes_max: _Optional[int] = ...) -> None: ...

class Renew(_message.Message):
    __slots__ = ("public_key", "nonce")
    PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    public_key: bytes
    nonce: bytes
    def __init__(self, public_key: _Optional[bytes] = ..., nonce: _Optional[bytes] = ...) -> None: ...

class Challenge(_message.Message):
    __slots__ = ("nonce", "proof_required", "worker_nonce")
    NONCE_FIELD_NUMBER: _ClassVar[int]
    PROOF_REQUIRED_FIELD_NUMBER: _ClassVar[int]
    WORKER_NONCE_FIELD_NUMBER: _ClassVar[int]
    nonce: bytes
    proof_required: bool
    worker_nonce: bytes
    def __init__(self, nonce: _Optional[bytes] = ..., proof_required: _Optional[bool] = ..., worker_nonce: _Optional[bytes] = ...) -> None: ...

class Proof(_message.Message):
    __slots__ = ("proof",)
    PROOF_FIELD_NUMBER: _ClassVar[int]
    proof: bytes
    def __init__(self, proof: _Optional[bytes] = ...) -> None: ...

class Admitted(_message.Message):
    __slots__ = ("wrapped", "proof", "key_id", "main_instance_id", "ttl_ms", "worker_nonce")
    WRAPPED_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    MAIN_INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    TTL_MS_FIELD_NUMBER: _ClassVar[int]
    WORKER_NONCE_FIELD_NUMBER: _ClassVar[int]
    wrapped: bytes
    proof: bytes
    key_id: str
    main_instance_id: str
    ttl_ms: int
    worker_nonce: bytes
    def __init__(self, wrapped: _Optional[bytes] = ..., proof: _Optional[bytes] = ..., key_id: _Optional[str] = ..., main_instance_id: _Optional[str] = ..., ttl_ms: _Optional[int] = ..., worker_nonce: _Optional[bytes] = ...) -> None: ...

class Ready(_message.Message):
    __slots__ = ("store",)
    STORE_FIELD_NUMBER: _ClassVar[int]
    store: _types_pb2.StoreReport
    def __init__(self, store: _Optional[_Union[_types_pb2.StoreReport, _Mapping]] = ...) -> None: ...

class StartFailed(_message.Message):
    __slots__ = ("code", "detail")
    CODE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    code: str
    detail: str
    def __init__(self, code: _Optional[str] = ..., detail: _Optional[str] = ...) -> None: ...

class Member(_message.Message):
    __slots__ = ("epoch",)
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    def __init__(self, epoch: _Optional[int] = ...) -> None: ...

class WorkerHeartbeat(_message.Message):
    __slots__ = ("sequence", "highest_epoch_stored", "store", "keyring")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    HIGHEST_EPOCH_STORED_FIELD_NUMBER: _ClassVar[int]
    STORE_FIELD_NUMBER: _ClassVar[int]
    KEYRING_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    highest_epoch_stored: int
    store: StoreSight
    keyring: bytes
    def __init__(self, sequence: _Optional[int] = ..., highest_epoch_stored: _Optional[int] = ..., store: _Optional[_Union[StoreSight, str]] = ..., keyring: _Optional[bytes] = ...) -> None: ...

class MainHeartbeat(_message.Message):
    __slots__ = ("sequence", "epoch", "poll_templates", "keyring")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    POLL_TEMPLATES_FIELD_NUMBER: _ClassVar[int]
    KEYRING_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    epoch: int
    poll_templates: bool
    keyring: bytes
    def __init__(self, sequence: _Optional[int] = ..., epoch: _Optional[int] = ..., poll_templates: _Optional[bool] = ..., keyring: _Optional[bytes] = ...) -> None: ...

class TemplateSnapshot(_message.Message):
    __slots__ = ("etags", "more")
    class EtagsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ETAGS_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    etags: _containers.ScalarMap[str, str]
    more: bool
    def __init__(self, etags: _Optional[_Mapping[str, str]] = ..., more: _Optional[bool] = ...) -> None: ...

class Drain(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Drained(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Replaced(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Refused(_message.Message):
    __slots__ = ("code", "detail", "retry")
    CODE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    RETRY_FIELD_NUMBER: _ClassVar[int]
    code: str
    detail: str
    retry: bool
    def __init__(self, code: _Optional[str] = ..., detail: _Optional[str] = ..., retry: _Optional[bool] = ...) -> None: ...

class ProcessRequest(_message.Message):
    __slots__ = ("op", "schema_id", "key", "document", "if_match", "if_none_match")
    OP_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_ID_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    IF_MATCH_FIELD_NUMBER: _ClassVar[int]
    IF_NONE_MATCH_FIELD_NUMBER: _ClassVar[int]
    op: _types_pb2.Op
    schema_id: str
    key: str
    document: bytes
    if_match: _types_pb2.ETags
    if_none_match: _types_pb2.ETags
    def __init__(self, op: _Optional[_Union[_types_pb2.Op, str]] = ..., schema_id: _Optional[str] = ..., key: _Optional[str] = ..., document: _Optional[bytes] = ..., if_match: _Optional[_Union[_types_pb2.ETags, _Mapping]] = ..., if_none_match: _Optional[_Union[_types_pb2.ETags, _Mapping]] = ...) -> None: ...

class ProcessResponse(_message.Message):
    __slots__ = ("version", "etag", "updated_ms", "document", "created", "names")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    UPDATED_MS_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    version: int
    etag: str
    updated_ms: int
    document: bytes
    created: bool
    names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, version: _Optional[int] = ..., etag: _Optional[str] = ..., updated_ms: _Optional[int] = ..., document: _Optional[bytes] = ..., created: _Optional[bool] = ..., names: _Optional[_Iterable[str]] = ...) -> None: ...
