"""Fuzzing: what a network or a store may hand to us, and that nothing but an answer comes out.

In process: ``engine`` runs the targets of ``targets``; ``just fuzz``. Over sockets: ``sockets``,
``grpc_main``, ``grpc_proc`` and ``openapi``; ``just fuzz-sockets``.
"""
