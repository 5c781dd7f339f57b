from __future__ import annotations

from typing import Any

import pytest

from deltadatabase import errors
from deltadatabase.client.updating import update
from unit.client.driving import Driver, ok, refused


def run(driver, *, create=False, attempts=10):
    return driver.run(
        update(
            "notes",
            "a",
            lambda value: (value or 0) + 1,
            driver.means,
            as_=Any,
            create=create,
            attempts=attempts,
        )
    )


def test_the_next_value_takes_the_place_of_the_one_that_was_read():
    driver = Driver(ok(b"1", etag='"1-a"'), ok(etag='"2-b"'))
    entity = run(driver)
    assert (entity.value, entity.etag, entity.version) == (2, '"2-b"', 2)
    _, written = driver.requests
    assert written.headers["if-match"] == '"1-a"' and written.body == b"2"


def test_who_was_slower_reads_again():
    driver = Driver(ok(b"1", etag='"1-a"'), refused(412), ok(b"5", etag='"6-a"'), ok(etag='"7-b"'))
    assert run(driver).value == 6
    assert len(driver.slept) == 1


def test_who_is_always_slower_gives_up():
    driver = Driver(*[ok(b"1", etag='"1-a"'), refused(412)] * 3)
    with pytest.raises(errors.VersionMismatch):
        run(driver, attempts=3)


def test_an_absent_entity_is_made_only_when_asked_for():
    with pytest.raises(errors.NotFound):
        run(Driver(refused(404)))
    driver = Driver(refused(404), ok(status=201, etag='"1-a"'))
    assert run(driver, create=True).value == 1
    assert driver.requests[1].headers["if-none-match"] == "*"
