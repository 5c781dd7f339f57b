#!/bin/sh
# Whether the program of this container lives; arguments go to `deltadb health`.
set -eu

# Process 1 tells which program it is. A proc worker has no REST API.
if tr '\0' '\n' < /proc/1/cmdline | grep -q '\(^\|/\)proc-worker$'; then
    export DELTADB_HEALTH_GRPC_ADDR="${DELTADB_HEALTH_GRPC_ADDR:-127.0.0.1:50052}"
fi
exec deltadb health "$@"
