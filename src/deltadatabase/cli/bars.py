"""Progress bars: on a terminal only, and on stderr."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

Show = Callable[[int], None]


@contextlib.contextmanager
def counting(what: str, total: int | None, *, sizes: bool = False) -> Iterator[Show]:
    """Give a function that shows how far something is; it does nothing where nobody looks.

    Args:
        what: is counted.
        total: the count at the end; None if nobody knows.
        sizes: the counts are bytes.
    """
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    # Here, since most runs of a command need none of it.
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        ProgressColumn,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    amount: ProgressColumn = DownloadColumn() if sizes else TextColumn(f"{{task.completed:,.0f}} {what}")
    columns = (BarColumn(), TaskProgressColumn(), amount, TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda done: progress.update(task, completed=done)
