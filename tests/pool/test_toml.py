from __future__ import annotations

import tomllib

from hypothesis import given
from hypothesis import strategies as st

from pool import toml

plain = st.text() | st.integers(-(2**63), 2**63 - 1) | st.booleans() | st.floats(allow_nan=False)
values = plain | st.lists(plain)
tables = st.dictionaries(st.text(min_size=1), values, max_size=4)
documents = st.dictionaries(st.text(min_size=1), values | tables | st.lists(tables, min_size=1, max_size=3), max_size=5)


@given(documents)
def test_what_is_written_is_read_back_the_same(document: dict[str, object]) -> None:
    assert tomllib.loads(toml.dumps(document)) == document
