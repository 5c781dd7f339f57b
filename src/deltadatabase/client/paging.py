"""A whole list, page by page."""

from __future__ import annotations

from typing import Any, Final

from deltadatabase import limits
from deltadatabase.client import calls
from deltadatabase.client.steps import Emit, Means, Steps, single

LIST_PAGE: Final = limits.LIST_PAGE_MAX


def pages(
    schema: str, means: Means, *, prefix: str, include: calls.Include | None, limit: int, as_: Any
) -> Steps[None]:
    """Emit the items of each page. Raises ``DeltaError``."""
    after: str | None = None
    while True:
        page = yield from single(
            calls.list_page(schema, prefix=prefix, limit=limit, after=after, include=include, as_=as_), means
        )
        yield Emit(page.items)
        after = page.next
        if after is None:
            return
