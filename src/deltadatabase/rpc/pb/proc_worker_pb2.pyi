# mypy: ignore-errors
from deltadatabase.rpc.pb import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Hello(_message.Message):
    __slots__ = ("nonce_main", "proof", "main_instance_id")
    NONCE_MAIN_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    MAIN_INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    nonce_main: bytes
    proof: bytes
    main_instance_id: str
    def __init__(self, nonce_main: _Optional[bytes] = ..., proof: _Optional[bytes] = ..., main_instance_id: _Optional[str] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("nonce_worker", "proof", "worker_instance_id", "takes_reads")
    NONCE_WORKER_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    WORKER_INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    TAKES_READS_FIELD_NUMBER: _ClassVar[int]
    nonce_worker: bytes
    proof: bytes
    worker_instance_id: str
    takes_reads: bool
    def __init__(self, nonce_worker: _Optional[bytes] = ..., proof: _Optional[bytes] = ..., worker_instance_id: _Optional[str] = ..., takes_reads: _Optional[bool] = ...) -> None: ...

class RequestBatch(_message.Message):
    __slots__ = ("requests", "cancelled", "hello", "reads")
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    CANCELLED_FIELD_NUMBER: _ClassVar[int]
    HELLO_FIELD_NUMBER: _ClassVar[int]
    READS_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[Request]
    cancelled: _containers.RepeatedScalarFieldContainer[int]
    hello: Hello
    reads: Reads
    def __init__(self, requests: _Optional[_Iterable[_Union[Request, _Mapping]]] = ..., cancelled: _Optional[_Iterable[int]] = ..., hello: _Optional[_Union[Hello, _Mapping]] = ..., reads: _Optional[_Union[Reads, _Mapping]] = ...) -> None: ...

class Reads(_message.Message):
    __slots__ = ("id", "schema_id", "key", "shard", "term", "timeout_ms", "request_id")
    ID_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_ID_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    SHARD_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    id: _containers.RepeatedScalarFieldContainer[int]
    schema_id: _containers.RepeatedScalarFieldContainer[bytes]
    key: _containers.RepeatedScalarFieldContainer[bytes]
    shard: _containers.RepeatedScalarFieldContainer[int]
    term: _containers.RepeatedScalarFieldContainer[int]
    timeout_ms: _containers.RepeatedScalarFieldContainer[int]
    request_id: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, id: _Optional[_Iterable[int]] = ..., schema_id: _Optional[_Iterable[bytes]] = ..., key: _Optional[_Iterable[bytes]] = ..., shard: _Optional[_Iterable[int]] = ..., term: _Optional[_Iterable[int]] = ..., timeout_ms: _Optional[_Iterable[int]] = ..., request_id: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Request(_message.Message):
    __slots__ = ("id", "op", "schema_id", "key", "shard", "term", "write_id", "document", "if_match", "if_none_match", "revision", "schema_hash", "validated", "number", "timeout_ms", "request_id", "traceparent", "prefix", "terms", "deleted", "document_bytes_max")
    ID_FIELD_NUMBER: _ClassVar[int]
    OP_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_ID_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    SHARD_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    WRITE_ID_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    IF_MATCH_FIELD_NUMBER: _ClassVar[int]
    IF_NONE_MATCH_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_HASH_FIELD_NUMBER: _ClassVar[int]
    VALIDATED_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    TERMS_FIELD_NUMBER: _ClassVar[int]
    DELETED_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_BYTES_MAX_FIELD_NUMBER: _ClassVar[int]
    id: int
    op: _types_pb2.Op
    schema_id: str
    key: str
    shard: int
    term: int
    write_id: bytes
    document: bytes
    if_match: _types_pb2.ETags
    if_none_match: _types_pb2.ETags
    revision: int
    schema_hash: str
    validated: bool
    number: int
    timeout_ms: int
    request_id: str
    traceparent: str
    prefix: str
    terms: _containers.RepeatedScalarFieldContainer[int]
    deleted: bool
    document_bytes_max: int
    def __init__(self, id: _Optional[int] = ..., op: _Optional[_Union[_types_pb2.Op, str]] = ..., schema_id: _Optional[str] = ..., key: _Optional[str] = ..., shard: _Optional[int] = ..., term: _Optional[int] = ..., write_id: _Optional[bytes] = ..., document: _Optional[bytes] = ..., if_match: _Optional[_Union[_types_pb2.ETags, _Mapping]] = ..., if_none_match: _Optional[_Union[_types_pb2.ETags, _Mapping]] = ..., revision: _Optional[int] = ..., schema_hash: _Optional[str] = ..., validated: _Optional[bool] = ..., number: _Optional[int] = ..., timeout_ms: _Optional[int] = ..., request_id: _Optional[str] = ..., traceparent: _Optional[str] = ..., prefix: _Optional[str] = ..., terms: _Optional[_Iterable[int]] = ..., deleted: _Optional[bool] = ..., document_bytes_max: _Optional[int] = ...) -> None: ...

class ReplyBatch(_message.Message):
    __slots__ = ("replies", "welcome", "documents")
    REPLIES_FIELD_NUMBER: _ClassVar[int]
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    replies: _containers.RepeatedCompositeFieldContainer[Reply]
    welcome: Welcome
    documents: Documents
    def __init__(self, replies: _Optional[_Iterable[_Union[Reply, _Mapping]]] = ..., welcome: _Optional[_Union[Welcome, _Mapping]] = ..., documents: _Optional[_Union[Documents, _Mapping]] = ...) -> None: ...

class Documents(_message.Message):
    __slots__ = ("id", "version", "etag", "updated_ms", "document")
    ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    UPDATED_MS_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    id: _containers.RepeatedScalarFieldContainer[int]
    version: _containers.RepeatedScalarFieldContainer[int]
    etag: _containers.RepeatedScalarFieldContainer[str]
    updated_ms: _containers.RepeatedScalarFieldContainer[int]
    document: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, id: _Optional[_Iterable[int]] = ..., version: _Optional[_Iterable[int]] = ..., etag: _Optional[_Iterable[str]] = ..., updated_ms: _Optional[_Iterable[int]] = ..., document: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Reply(_message.Message):
    __slots__ = ("id", "error", "version", "etag", "updated_ms", "document", "created", "not_modified", "found", "schema_hash", "names", "number", "queue_us", "validate_us", "seal_us", "store_us", "key_id", "entities", "next", "repeated_write")
    ID_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    UPDATED_MS_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    NOT_MODIFIED_FIELD_NUMBER: _ClassVar[int]
    FOUND_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_HASH_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    QUEUE_US_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_US_FIELD_NUMBER: _ClassVar[int]
    SEAL_US_FIELD_NUMBER: _ClassVar[int]
    STORE_US_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    ENTITIES_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    REPEATED_WRITE_FIELD_NUMBER: _ClassVar[int]
    id: int
    error: _types_pb2.Error
    version: int
    etag: str
    updated_ms: int
    document: bytes
    created: bool
    not_modified: bool
    found: bool
    schema_hash: str
    names: _containers.RepeatedScalarFieldContainer[str]
    number: int
    queue_us: int
    validate_us: int
    seal_us: int
    store_us: int
    key_id: bytes
    entities: _containers.RepeatedCompositeFieldContainer[ListedEntity]
    next: str
    repeated_write: bool
    def __init__(self, id: _Optional[int] = ..., error: _Optional[_Union[_types_pb2.Error, _Mapping]] = ..., version: _Optional[int] = ..., etag: _Optional[str] = ..., updated_ms: _Optional[int] = ..., document: _Optional[bytes] = ..., created: _Optional[bool] = ..., not_modified: _Optional[bool] = ..., found: _Optional[bool] = ..., schema_hash: _Optional[str] = ..., names: _Optional[_Iterable[str]] = ..., number: _Optional[int] = ..., queue_us: _Optional[int] = ..., validate_us: _Optional[int] = ..., seal_us: _Optional[int] = ..., store_us: _Optional[int] = ..., key_id: _Optional[bytes] = ..., entities: _Optional[_Iterable[_Union[ListedEntity, _Mapping]]] = ..., next: _Optional[str] = ..., repeated_write: _Optional[bool] = ...) -> None: ...

class ListedEntity(_message.Message):
    __slots__ = ("name", "size_bytes", "updated_ms", "deleted")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    UPDATED_MS_FIELD_NUMBER: _ClassVar[int]
    DELETED_FIELD_NUMBER: _ClassVar[int]
    name: str
    size_bytes: int
    updated_ms: int
    deleted: bool
    def __init__(self, name: _Optional[str] = ..., size_bytes: _Optional[int] = ..., updated_ms: _Optional[int] = ..., deleted: _Optional[bool] = ...) -> None: ...

class EncodedRequestBatch(_message.Message):
    __slots__ = ("requests", "cancelled", "hello", "reads")
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    CANCELLED_FIELD_NUMBER: _ClassVar[int]
    HELLO_FIELD_NUMBER: _ClassVar[int]
    READS_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedScalarFieldContainer[bytes]
    cancelled: _containers.RepeatedScalarFieldContainer[int]
    hello: Hello
    reads: Reads
    def __init__(self, requests: _Optional[_Iterable[bytes]] = ..., cancelled: _Optional[_Iterable[int]] = ..., hello: _Optional[_Union[Hello, _Mapping]] = ..., reads: _Optional[_Union[Reads, _Mapping]] = ...) -> None: ...

class EncodedReplyBatch(_message.Message):
    __slots__ = ("replies", "welcome", "documents")
    REPLIES_FIELD_NUMBER: _ClassVar[int]
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    replies: _containers.RepeatedScalarFieldContainer[bytes]
    welcome: Welcome
    documents: Documents
    def __init__(self, replies: _Optional[_Iterable[bytes]] = ..., welcome: _Optional[_Union[Welcome, _Mapping]] = ..., documents: _Optional[_Union[Documents, _Mapping]] = ...) -> None: ...

class RequestId(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: int
    def __init__(self, id: _Optional[int] = ...) -> None: ...
