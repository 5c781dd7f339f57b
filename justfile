# Every recipe runs in the environment in .venv, or in the one that `just` was installed in.
bin := if path_exists(".venv/bin/python") == "true" { ".venv/bin" } else { parent_directory(just_executable()) }

# List the recipes.
default:
    @"{{just_executable()}}" --list --unsorted

# Make .venv with everything that running, testing and developing need.
setup:
    python3 -m venv .venv
    .venv/bin/pip install -q -e '.[dev]'

# Run the database in one process; arguments are passed on: just serve -memory
serve *arguments:
    {{bin}}/deltadb serve {{arguments}}

# Everything that CI checks.
check: static test

# Everything that CI checks but the tests; the checks run beside each other.
[parallel]
static: fmt-check lint mypy pyright imports proto-check docs-check

# Format all sources.
fmt:
    {{bin}}/ruff format
    {{bin}}/ruff check --fix

# Check that all sources are formatted.
fmt-check:
    {{bin}}/ruff format --check

# Check style.
lint:
    {{bin}}/ruff check

# Check types.
[parallel]
types: mypy pyright

[private]
mypy:
    {{bin}}/mypy

[private]
pyright:
    {{bin}}/pyright --pythonpath {{bin}}/python

# Check the direction of imports.
imports:
    {{bin}}/lint-imports --no-logo

# Generate the protobuf modules.
proto:
    {{bin}}/python proto/generate.py

# Check that the generated protobuf modules fit the sources.
proto-check:
    {{bin}}/python proto/generate.py --check

# Write docs/configuration.md from the settings, and the tables of docs/monitoring.md.
docs:
    {{bin}}/python docs/generate.py

# Check that both fit the code.
docs-check:
    {{bin}}/python docs/generate.py --check

# Ask the package index's advisory service for known weaknesses of what is installed (not part of check).
audit-dependencies:
    mkdir -p build
    {{bin}}/pip install -q -e '.[audit]'
    {{bin}}/pip freeze --exclude-editable > build/installed.txt
    {{bin}}/pip-audit --strict --disable-pip --no-deps -r build/installed.txt

# Run all tests, whole files of them in each of three processes; arguments are passed on: just test tests/unit -k ring
test *arguments:
    {{bin}}/pytest -n 3 {{arguments}}

# Run the tests with real processes and a real S3 server.
test-integration:
    {{bin}}/pytest -m integration

# Search for broken promises in virtual time, under seeded faults: just sim -seeds 20000
sim *arguments:
    PYTHONPATH=tests {{bin}}/python -m sim {{arguments}}

# The same for 40 minutes; each further run goes on where the last one ended.
sim-long *arguments:
    mkdir -p build
    PYTHONPATH=tests {{bin}}/python -m sim -minutes 40 -resume build/sim.json {{arguments}}

# Hand changed inputs to every parser that faces a network or a stored object: just fuzz -minutes 20
fuzz *arguments:
    PYTHONPATH=tests {{bin}}/python -m fuzz {{arguments}}

# The same over sockets to real processes, and Schemathesis: just fuzz-sockets -requests 100000
fuzz-sockets *arguments:
    PYTHONPATH=tests {{bin}}/python -m fuzz.network {{arguments}}

# Measure GET and PUT beside their baselines, in about 3 minutes: just bench -h
bench *arguments:
    PYTHONPATH=tests {{bin}}/python -m bench {{arguments}}

# Measure everything, in about half an hour; report and pictures go to bench/results: just bench-full -save
bench-full *arguments:
    PYTHONPATH=tests {{bin}}/python -m bench -parts=all {{arguments}}

# Show what changed from one result to another: just bench-compare old/result.json new/result.json
bench-compare *arguments:
    {{bin}}/python -m bench.compare {{arguments}}

# Install what the benchmark compares with into build/bench: wrk, Vegeta, etcd, Kinto, MinIO.
bench-setup:
    {{bin}}/pip install -q -e '.[bench]'
    {{bin}}/python -m bench.setup

# Watch the whole system at work on SeaweedFS, a directory and memory: just demo -store s3 -documents 1000
demo *arguments:
    PYTHONPATH=tests {{bin}}/python -m integration.show {{arguments}}

# Break real processes on a real store, and judge what clients saw: just chaos -minutes 5 -store s3
chaos *arguments:
    PYTHONPATH=tests {{bin}}/python -m chaos {{arguments}}

# Plant every known mistake in Compose files and manifests: the tests of them must find each one.
plants:
    ALL_PLANTS=1 {{bin}}/pytest tests/deploy/test_planted.py

# Check the Compose files and what Kustomize makes of the manifests, with Docker Compose and kubectl themselves.
deploy-check:
    #!/usr/bin/env sh
    set -eu
    # The program itself: its wrapper forgets the exit code.
    compose=$({{bin}}/python -c 'import compose, pathlib; print(pathlib.Path(compose.__file__).parent / "docker-compose")')
    for file in deploy/docker-compose/*.yml; do "$compose" -f "$file" config --quiet; done
    for folder in deploy/kubernetes deploy/kustomize/*/; do {{bin}}/kubectl kustomize "$folder" > /dev/null; done
