from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltadatabase.settings.values import (
    Address,
    Secret,
    format_duration,
    format_networks,
    format_size,
    parse_address,
    parse_bool,
    parse_duration,
    parse_networks,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("0s", 0.0),
        ("500ms", 0.5),
        ("1.5s", 1.5),
        (".5s", 0.5),
        ("1.s", 1.0),
        ("1m", 60.0),
        ("1h30m", 5400.0),
        ("24h", 86_400.0),
        ("7d", 604_800.0),
        ("1d12h", 129_600.0),
        ("250us", 0.00025),
        ("250µs", 0.00025),
        ("36500d", 3_153_600_000.0),
    ],
)
def test_durations(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "5",
        "-1s",
        "+1s",
        "1 s",
        "1s ",
        "s",
        ".s",
        "1x",
        "1h30",
        "1e3s",
        "١s",
        "1S",
        "inf",
        "nan",
        "1w",
        "36501d",
        "9" * 41 + "s",
        "9" * 30 + "d",
        "1s\n",
    ],
)
def test_what_is_no_duration(text):
    with pytest.raises(ValueError):
        parse_duration(text)


@given(st.integers(min_value=0, max_value=36_500 * 86_400 * 1000))
def test_every_written_duration_is_read_back(milliseconds):
    assert parse_duration(format_duration(milliseconds / 1000)) == milliseconds / 1000


@given(st.text(max_size=50))
def test_any_text_is_a_bounded_duration_or_a_value_error(text):
    try:
        seconds = parse_duration(text)
    except ValueError:
        return
    assert 0 <= seconds <= 36_500 * 86_400


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("10B", 10),
        ("1KiB", 1024),
        ("256MiB", 268_435_456),
        ("256Mi", 268_435_456),
        ("256mib", 268_435_456),
        ("1GiB", 2**30),
        ("10MB", 10_000_000),
        ("1kB", 1000),
        ("5 MiB", 5 * 2**20),
    ],
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MiB", "-1", "1.5GiB", "1M", "1PiB", "1 2", "1\n", "٣", "1" * 16])
def test_what_is_no_size(text):
    with pytest.raises(ValueError):
        parse_size(text)


@given(st.integers(min_value=0, max_value=2**49))
def test_every_written_size_is_read_back(size):
    assert parse_size(format_size(size)) == size


@pytest.mark.parametrize(
    ("text", "address", "loopback"),
    [
        ("127.0.0.1:8080", ("127.0.0.1", 8080), True),
        ("127.9.9.9:1", ("127.9.9.9", 1), True),
        ("localhost:0", ("localhost", 0), True),
        ("[::1]:8080", ("::1", 8080), True),
        (":8080", ("0.0.0.0", 8080), False),
        ("[::]:8080", ("::", 8080), False),
        ("main-worker:50051", ("main-worker", 50051), False),
        ("10.0.0.7:65535", ("10.0.0.7", 65535), False),
        ("localhost.example:80", ("localhost.example", 80), False),
    ],
)
def test_addresses(text, address, loopback):
    read = parse_address(text)
    assert (read, read.is_loopback) == (Address(*address), loopback)
    assert parse_address(str(read)) == read


@pytest.mark.parametrize(
    "text",
    [
        "",
        "8080",
        "localhost",
        "localhost:",
        "a:b",
        "h:65536",
        "h:-1",
        "::1:80",
        "[::1]",
        "[x]:1",
        "a b:1",
        "http://h:80",
        "h/x:80",
        "u@h:80",
        "h:٣",
        "[::1:80",
    ],
)
def test_what_is_no_address(text):
    with pytest.raises(ValueError):
        parse_address(text)


def test_booleans():
    assert [parse_bool(text) for text in ("true", "True", "1", "t")] == [True] * 4
    assert [parse_bool(text) for text in ("false", "FALSE", "0", "F")] == [False] * 4
    for text in ("", "yes", "on", "2"):
        with pytest.raises(ValueError):
            parse_bool(text)


def test_a_secret_hides_itself():
    secret = Secret("hunter2")
    assert "hunter2" not in f"{secret} {secret!r} {[secret]} {(secret, 1)}"
    assert secret.reveal() == "hunter2"
    assert secret == Secret("hunter2") != Secret("hunter3")
    assert hash(secret) == hash(Secret("hunter2"))
    assert secret != "hunter2"
    assert not hasattr(secret, "__dict__")


def test_networks():
    networks = parse_networks("10.0.0.0/8, fd00::/8,192.0.2.7")
    assert format_networks(networks) == "10.0.0.0/8,fd00::/8,192.0.2.7/32"
    assert parse_networks(format_networks(networks)) == networks


@pytest.mark.parametrize("text", ["", ",", "10.0.0.1/8", "10.0.0.0/33", "proxy", "10.0.0.0/8;1.1.1.1", "*"])
def test_what_is_no_list_of_networks(text):
    with pytest.raises(ValueError, match="not a list of networks"):
        parse_networks(text)
