# mypy: ignore-errors
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Op(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OP_UNSPECIFIED: _ClassVar[Op]
    OP_GET: _ClassVar[Op]
    OP_PUT: _ClassVar[Op]
    OP_DELETE: _ClassVar[Op]
    OP_RESOLVE: _ClassVar[Op]
    OP_VALIDATE: _ClassVar[Op]
    OP_KEY_OF: _ClassVar[Op]
    OP_RESEAL: _ClassVar[Op]
    OP_PATCH: _ClassVar[Op]
    OP_SCHEMA_GET: _ClassVar[Op]
    OP_SCHEMA_PUT: _ClassVar[Op]
    OP_SCHEMA_DELETE: _ClassVar[Op]
    OP_SCHEMA_LIST: _ClassVar[Op]
    OP_NAMESPACES: _ClassVar[Op]
    OP_LIST: _ClassVar[Op]
    OP_RESERVE_EPOCHS: _ClassVar[Op]
    OP_OBJECT_NAMES: _ClassVar[Op]
    OP_RETIRE_KEY: _ClassVar[Op]

class ErrorKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ERROR_KIND_UNSPECIFIED: _ClassVar[ErrorKind]
    ERROR_KIND_INVALID: _ClassVar[ErrorKind]
    ERROR_KIND_TOO_LARGE: _ClassVar[ErrorKind]
    ERROR_KIND_UNAUTHENTICATED: _ClassVar[ErrorKind]
    ERROR_KIND_DENIED: _ClassVar[ErrorKind]
    ERROR_KIND_NOT_FOUND: _ClassVar[ErrorKind]
    ERROR_KIND_CONFLICT: _ClassVar[ErrorKind]
    ERROR_KIND_ALREADY_EXISTS: _ClassVar[ErrorKind]
    ERROR_KIND_VERSION_MISMATCH: _ClassVar[ErrorKind]
    ERROR_KIND_RATE_LIMITED: _ClassVar[ErrorKind]
    ERROR_KIND_OVERLOADED: _ClassVar[ErrorKind]
    ERROR_KIND_UNAVAILABLE: _ClassVar[ErrorKind]
    ERROR_KIND_NOT_OWNER: _ClassVar[ErrorKind]
    ERROR_KIND_STORE_FULL: _ClassVar[ErrorKind]
    ERROR_KIND_OUTCOME_UNKNOWN: _ClassVar[ErrorKind]
    ERROR_KIND_LINK_LOST: _ClassVar[ErrorKind]
    ERROR_KIND_CORRUPT: _ClassVar[ErrorKind]
    ERROR_KIND_INTERNAL: _ClassVar[ErrorKind]
    ERROR_KIND_UNPROCESSABLE: _ClassVar[ErrorKind]
    ERROR_KIND_PRECONDITION_REQUIRED: _ClassVar[ErrorKind]
    ERROR_KIND_GONE: _ClassVar[ErrorKind]
OP_UNSPECIFIED: Op
OP_GET: Op
OP_PUT: Op
OP_DELETE: Op
OP_RESOLVE: Op
OP_VALIDATE: Op
OP_KEY_OF: Op
OP_RESEAL: Op
OP_PATCH: Op
OP_SCHEMA_GET: Op
OP_SCHEMA_PUT: Op
OP_SCHEMA_DELETE: Op
OP_SCHEMA_LIST: Op
OP_NAMESPACES: Op
OP_LIST: Op
OP_RESERVE_EPOCHS: Op
OP_OBJECT_NAMES: Op
OP_RETIRE_KEY: Op
ERROR_KIND_UNSPECIFIED: ErrorKind
ERROR_KIND_INVALID: ErrorKind
ERROR_KIND_TOO_LARGE: ErrorKind
ERROR_KIND_UNAUTHENTICATED: ErrorKind
ERROR_KIND_DENIED: ErrorKind
ERROR_KIND_NOT_FOUND: ErrorKind
ERROR_KIND_CONFLICT: ErrorKind
ERROR_KIND_ALREADY_EXISTS: ErrorKind
ERROR_KIND_VERSION_MISMATCH: ErrorKind
ERROR_KIND_RATE_LIMITED: ErrorKind
ERROR_KIND_OVERLOADED: ErrorKind
ERROR_KIND_UNAVAILABLE: ErrorKind
ERROR_KIND_NOT_OWNER: ErrorKind
ERROR_KIND_STORE_FULL: ErrorKind
ERROR_KIND_OUTCOME_UNKNOWN: ErrorKind
ERROR_KIND_LINK_LOST: ErrorKind
ERROR_KIND_CORRUPT: ErrorKind
ERROR_KIND_INTERNAL: ErrorKind
ERROR_KIND_UNPROCESSABLE: ErrorKind
ERROR_KIND_PRECONDITION_REQUIRED: ErrorKind
ERROR_KIND_GONE: ErrorKind

class ETags(_message.Message):
    __slots__ = ("etag",)
    ETAG_FIELD_NUMBER: _ClassVar[int]
    etag: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, etag: _Optional[_Iterable[str]] = ...) -> None: ...

class Issue(_message.Message):
    __slots__ = ("pointer", "keyword", "detail")
    POINTER_FIELD_NUMBER: _ClassVar[int]
    KEYWORD_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    pointer: str
    keyword: str
    detail: str
    def __init__(self, pointer: _Optional[str] = ..., keyword: _Optional[str] = ..., detail: _Optional[str] = ...) -> None: ...

class Error(_message.Message):
    __slots__ = ("kind", "code", "detail", "retry_after_ms", "etag", "issues", "term")
    KIND_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    ISSUES_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    kind: ErrorKind
    code: str
    detail: str
    retry_after_ms: int
    etag: str
    issues: _containers.RepeatedCompositeFieldContainer[Issue]
    term: int
    def __init__(self, kind: _Optional[_Union[ErrorKind, str]] = ..., code: _Optional[str] = ..., detail: _Optional[str] = ..., retry_after_ms: _Optional[int] = ..., etag: _Optional[str] = ..., issues: _Optional[_Iterable[_Union[Issue, _Mapping]]] = ..., term: _Optional[int] = ...) -> None: ...

class ProbeCheck(_message.Message):
    __slots__ = ("name", "passed", "detail")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PASSED_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    name: str
    passed: bool
    detail: str
    def __init__(self, name: _Optional[str] = ..., passed: _Optional[bool] = ..., detail: _Optional[str] = ...) -> None: ...

class DatabaseInfo(_message.Message):
    __slots__ = ("database_id", "format", "shards", "highest_epoch", "keys", "retired_keys")
    class KeysEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    DATABASE_ID_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    HIGHEST_EPOCH_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    RETIRED_KEYS_FIELD_NUMBER: _ClassVar[int]
    database_id: str
    format: int
    shards: int
    highest_epoch: int
    keys: _containers.ScalarMap[str, str]
    retired_keys: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, database_id: _Optional[str] = ..., format: _Optional[int] = ..., shards: _Optional[int] = ..., highest_epoch: _Optional[int] = ..., keys: _Optional[_Mapping[str, str]] = ..., retired_keys: _Optional[_Iterable[str]] = ...) -> None: ...

class StoreReport(_message.Message):
    __slots__ = ("backend", "checks", "database", "templates")
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    CHECKS_FIELD_NUMBER: _ClassVar[int]
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    TEMPLATES_FIELD_NUMBER: _ClassVar[int]
    backend: str
    checks: _containers.RepeatedCompositeFieldContainer[ProbeCheck]
    database: DatabaseInfo
    templates: int
    def __init__(self, backend: _Optional[str] = ..., checks: _Optional[_Iterable[_Union[ProbeCheck, _Mapping]]] = ..., database: _Optional[_Union[DatabaseInfo, _Mapping]] = ..., templates: _Optional[int] = ...) -> None: ...
