"""``python -m bench.listing``: what a page of a large list costs at its beginning, middle and end.

The objects are made directly, empty: a list does not look into them. On a directory the first page of
all makes the worker's index of names; its time and memory are shown. ``-store s3`` starts SeaweedFS
(``PYTHONPATH=tests``) and shows the store's list requests alone in the processor time of the server.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import servers
from bench.load import Request
from deltadatabase.gateway.listing import token_of

SCHEMA = "listed"
PUTS_AT_ONCE = 64


def name_of(number: int) -> str:
    """The stored name of the n-th entity in order."""
    return f"entity_{number:08}"


def make_files(folder: Path, count: int, *, meta: bool) -> None:
    """Make an empty file for each entity, and one for its meta file."""
    folder.mkdir(parents=True)
    # Not in order, as no one writes them so.
    for number in range(count):
        name = name_of(number * 7919 % count)
        for suffix in (".json.enc", ".meta.json") if meta else (".json.enc",):
            os.close(os.open(folder / f"{name}{suffix}", os.O_CREAT | os.O_WRONLY, 0o600))


async def make_objects(endpoint: str, bucket: str, credentials: tuple[str, str], count: int) -> None:
    """Make an object for each entity."""
    import obstore
    from obstore.store import S3Store

    store = S3Store(
        bucket,
        endpoint=endpoint,
        region="us-east-1",
        access_key_id=credentials[0],
        secret_access_key=credentials[1],
        client_options={"allow_http": True},
    )
    numbers = iter(range(count))

    async def work() -> None:
        for number in numbers:
            await obstore.put_async(store, f"files/{SCHEMA}/{name_of(number)}.json.enc", b"xx")

    await asyncio.gather(*(work() for _ in range(PUTS_AT_ONCE)))


@contextmanager
def serving(options: argparse.Namespace, folder: Path) -> Iterator[servers.Server]:
    """A server with the entities in its store."""
    if options.store == "directory":
        with servers.embedded(folder) as server:
            began_s = time.perf_counter()
            make_files(folder / "db/files" / SCHEMA, options.names, meta=options.meta)
            print(f"made in {time.perf_counter() - began_s:.0f} s", flush=True)
            yield server
        return
    from support.weed import running_weed

    with running_weed(folder / "weed") as weed:
        flags = [f"-s3-endpoint={weed.endpoint}", "-s3-bucket=listing"]
        flags += [f"-s3-access-key={weed.access_key}", f"-s3-secret-key={weed.secret_key}"]
        with servers.embedded(folder, *flags) as server:
            began_s = time.perf_counter()
            credentials = (weed.access_key, weed.secret_key)
            asyncio.run(make_objects(weed.endpoint, "listing", credentials, options.names))
            print(f"made in {time.perf_counter() - began_s:.0f} s", flush=True)
            yield server


def page(server: servers.Server, after: str, limit: int) -> tuple[float, float]:
    """Time and processor time of one page, in ms."""
    target = f"/entities/{SCHEMA}?limit={limit}"
    if after:
        target += f"&after={token_of(SCHEMA, '', after)}"
    began_s, used_s = time.perf_counter(), server.cpu_s()
    (body,) = server.ask(Request("GET", target, b""))
    taken_s = time.perf_counter() - began_s
    assert body.count(b'"key"') == limit
    return taken_s * 1000, (server.cpu_s() - used_s) * 1000


def answered(server: servers.Server, limit: int) -> bool:
    """Whether a page was to be had already."""
    try:
        page(server, "", limit)
    except RuntimeError as exc:
        if "503" not in str(exc):
            raise
        return False
    return True


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-store", choices=("directory", "s3"), default="directory")
    parser.add_argument("-names", type=int, default=1_000_000)
    parser.add_argument("-limit", type=int, default=1000)
    parser.add_argument("-rounds", type=int, default=20)
    parser.add_argument("-meta", action="store_true", help="make meta files, too")
    parser.add_argument("-folder", type=Path, help="where the data lies meanwhile")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="deltadb-listing-", dir=options.folder) as folder,
        serving(options, Path(folder)) as server,
    ):
        before_mib = server.rss_mib()
        began_s, used_s, tries = time.perf_counter(), server.cpu_s(), 1
        while not answered(server, options.limit):
            tries += 1  # 503: the index is being made still.
        taken_s, used_s = time.perf_counter() - began_s, server.cpu_s() - used_s
        print(f"first page of all: {taken_s:.2f} s in {tries} tries, processor {used_s:.2f} s")
        print(f"memory: {before_mib:.0f} MiB before, {server.rss_mib():.0f} MiB after", flush=True)
        places = {
            "beginning": "",
            "middle": name_of(options.names // 2),
            "end": name_of(options.names - options.limit - 1),
        }
        found: dict[str, list[tuple[float, float]]] = {place: [] for place in places}
        # In turns, so that a slow moment of the machine meets all of them.
        for _ in range(options.rounds):
            for place, after in places.items():
                found[place].append(page(server, after, options.limit))
        for place, times in found.items():
            median_ms = statistics.median(taken for taken, _ in times)
            used_ms = statistics.mean(used for _, used in times)
            print(f"{place}: {median_ms:.1f} ms (median), processor {used_ms:.1f} ms (mean)")


if __name__ == "__main__":
    main()
