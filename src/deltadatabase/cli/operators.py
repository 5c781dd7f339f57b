"""The programs and the commands that operate them: what each is for, its settings, examples."""

from __future__ import annotations

from typing import Final

from deltadatabase.settings import (
    AdminKeySettings,
    DoctorSettings,
    HealthSettings,
    MainSettings,
    RotateSettings,
    ScrubSettings,
    ServeSettings,
    WorkerSettings,
)

HELP: Final[dict[str, tuple[str, type, tuple[str, ...]]]] = {
    "deltadb serve": (
        (
            "Run the database in one process: REST API on -rest-addr, entities in -data. On a loopback "
            "address without an admin key it is in dev mode: every program of this machine has full rights."
        ),
        ServeSettings,
        (
            "deltadb serve",
            "deltadb serve -rest-addr :8080 -data /var/lib/deltadb",
            "deltadb serve -workers 2",
            "deltadb serve -memory",
        ),
    ),
    "deltadb admin-key": (
        "Print the admin key that was made at the first start and is kept in the state directory.",
        AdminKeySettings,
        ("deltadb admin-key", 'curl -H "Authorization: Bearer $(deltadb admin-key)" …'),
    ),
    "deltadb scrub": (
        (
            "Verify every stored entity, and rebuild meta files that are missing or wrong. Safe while the "
            "service runs. Damaged entities, orphans and foreign files are listed with schema id and key. "
            "Exit code 0: all is well, or was repaired; 1: something remains to be done, the summary says "
            "what; 2: it could not run or was interrupted. What -remove-tombstones does is for a stopped "
            "service only: it refuses while a worker is there, and no worker starts until it has ended."
        ),
        ScrubSettings,
        (
            "deltadb scrub -data /var/lib/deltadb",
            "deltadb scrub -dry-run -json",
            "deltadb scrub -quarantine -remove-orphans",
            "deltadb scrub -resume",
            "deltadb scrub -s3-endpoint=http://rustfs:9000 -s3-bucket=delta-db -state-dir=/var/lib/main",
        ),
    ),
    "deltadb doctor": (
        (
            "Examine a store and say in words what it guarantees: conditional writes, durability and speed, "
            "which master keys fit, clock, disk, state directory, join token. Makes no database and never "
            "prints a secret. Exit code 0: all is well; 1: something needs attention; 2: it could not run."
        ),
        DoctorSettings,
        (
            "deltadb doctor",
            "deltadb doctor -data /var/lib/deltadb -json",
            "deltadb doctor -s3-endpoint=http://rustfs:9000 -s3-bucket=delta-db",
        ),
    ),
    "deltadb rotate": (
        (
            "Exchange the master key while the service runs: a running main worker makes the new key "
            "readable on every worker, then primary, and seals every object anew; versions, ETags and "
            "times stay. This command begins it, or goes on with it, and shows how far it is; ending it "
            "changes nothing. A key that the state directory keeps is made there. A key that you give: "
            "first give the new one as MASTER_KEY and the one in use as MASTER_KEY_PREVIOUS, in their "
            "files or with a restart of the main worker. Exit code 0: done, it says which keys can be "
            "retired now; 1: objects were met that no key opens; 2: it could not run, or was interrupted."
        ),
        RotateSettings,
        (
            "deltadb rotate",
            "deltadb rotate -dry-run",
            "DELTADB_KEY=… deltadb rotate -url https://db.example:8080 -tls-ca ca.pem",
            "deltadb rotate -pause",
        ),
    ),
    "deltadb health": (
        (
            "Ask a running program whether it is alive, or with -ready whether it serves data: the REST API "
            "of a main worker or of deltadb serve, or with -grpc-addr a proc worker. Exit code 0: yes; 1: "
            "no, a line on stderr says why; 2: it could not ask. For container health checks and scripts."
        ),
        HealthSettings,
        (
            "deltadb health",
            "deltadb health -ready -url https://db.example:8080 -tls-ca ca.pem",
            "deltadb health -grpc-addr 127.0.0.1:50052 -ready",
        ),
    ),
    "main-worker": (
        "Take REST requests and route each entity to the proc worker that owns it.",
        MainSettings,
        (
            "main-worker -rest-addr=:8080 -grpc-addr=:50051 -shared-fs=/shared/db",
            "MASTER_KEY=$(openssl rand -hex 32) ADMIN_KEY=… main-worker -rest-addr=:8080",
        ),
    ),
    "proc-worker": (
        "Validate, encrypt and store the entities that the main worker routes here.",
        WorkerSettings,
        (
            "proc-worker -main-addr=main-worker:50051 -shared-fs=/shared/db",
            "proc-worker -main-addr=main-worker:50051 -grpc-addr=0.0.0.0:50052 \\",
            "    -s3-endpoint=http://rustfs:9000 -s3-bucket=delta-db",
        ),
    ),
}

OPERATORS: Final = {name: settings for name, (_, settings, _) in HELP.items() if name.startswith("deltadb ")}
