import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltadatabase.errors import Gone, Invalid
from deltadatabase.gateway.positions import CatchUp, Live, Position, decode, encode
from deltadatabase.limits import FEED_TOKEN_BYTES_MAX, KEY_ESCAPED_BYTES_MAX

TIMES = st.integers(0, 2**53 - 1)
LIVES = st.builds(Live, st.binary(min_size=8, max_size=8), st.integers(0, 2**64 - 1), TIMES, TIMES)
NAMES = st.text("abcXYZ09-_.=", max_size=KEY_ESCAPED_BYTES_MAX)
POSITIONS = LIVES | st.builds(CatchUp, TIMES, NAMES, LIVES)
HERE = Live(b"i" * 8, 5, 1_700_000_000_000)


@given(POSITIONS)
def test_a_token_names_its_position(position: Position) -> None:
    token = encode(position, "database", "notes")
    assert decode(token, "database", "notes") == position
    assert len(token) <= FEED_TOKEN_BYTES_MAX
    assert token.isascii()
    assert not set(token) & set("+/= \n&?")


def test_a_token_of_another_schema_is_no_token_of_this_one() -> None:
    with pytest.raises(Invalid) as caught:
        decode(encode(HERE, "database", "notes"), "database", "other")
    assert caught.value.code == "bad_token"


def test_a_token_of_another_database_is_of_no_use_any_more() -> None:
    with pytest.raises(Gone) as caught:
        decode(encode(HERE, "database", "notes"), "restored", "notes")
    assert caught.value.code == "changes_gone"


@given(
    st.text(max_size=300) | st.binary(max_size=300).map(lambda data: base64.urlsafe_b64encode(data).decode())
)
def test_whatever_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        decode(text, "database", "notes")


@given(POSITIONS, st.data())
def test_a_changed_token_is_refused_or_names_a_position(position: Position, data: st.DataObject) -> None:
    token = encode(position, "database", "notes")
    place = data.draw(st.integers(0, len(token) - 1))
    changed = token[:place] + data.draw(st.characters()) + token[place + 1 :]
    try:
        found = decode(changed, "database", "notes")
    except (Invalid, Gone):
        return
    assert isinstance(found, Live | CatchUp)


@pytest.mark.parametrize("after", ["a/b", "../x", "a b", "é"])
def test_a_place_that_is_no_stored_name_is_refused(after: str) -> None:
    with pytest.raises(Invalid):
        decode(encode(CatchUp(1, after, HERE), "database", "notes"), "database", "notes")
