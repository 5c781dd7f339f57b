#!/bin/sh
# Start one of the three programs, with listeners that other containers reach.
# Flags and variables that are given outrank what is set here.
set -eu

case "${1:-}" in
    "" | -* | serve) [ "${1:-}" = serve ] && shift; set -- deltadb serve "$@" ;;
    admin-key | doctor | scrub | rotate | health) set -- deltadb "$@" ;;
esac
case "$1" in
    main-worker)
        export DELTADB_REST_ADDR="${DELTADB_REST_ADDR:-0.0.0.0:8080}"
        export DELTADB_GRPC_ADDR="${DELTADB_GRPC_ADDR:-0.0.0.0:50051}"
        ;;
    proc-worker)
        export DELTADB_GRPC_ADDR="${DELTADB_GRPC_ADDR:-0.0.0.0:50052}"
        ;;
    deltadb)
        export DELTADB_REST_ADDR="${DELTADB_REST_ADDR:-0.0.0.0:8080}"
        ;;
esac
# The program itself is process 1: it gets SIGTERM, and drains.
exec "$@"
