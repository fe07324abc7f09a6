"""`db.conf`: the original's text, read and written."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.db.outputs.conf import Block, Mode, default, load, parse, preferred, show
from shared.config import ConfigError

TEXT = """\
# what stands before the first block is nobody's
[/var/lib/xcp/state.db]
mode:no_limit
format:xml
compress:false
is_on_remote_storage:false
available_this_boot:true

[/var/local/Second.db]
Mode:WRITE_LIMIT
format:xml
compress:TRUE
is_on_remote_storage:true
write_limit_period:3600
write_limit_write_cycles:3
Note:a:B:c
"""


def refused(text: str) -> str:
    with pytest.raises(ConfigError) as error:
        parse(text)
    return str(error.value)


def test_blocks_have_what_their_lines_say() -> None:
    first, second = parse(TEXT)
    assert first == Block(Path("/var/lib/xcp/state.db"), other=(("available_this_boot", "true"),))
    assert second == Block(
        Path("/var/local/Second.db"),
        mode=Mode.WRITE_LIMIT,
        compress=True,
        remote=True,
        period=3600,
        writes=3,
        other=(("note", "a:b:c"),),
    )


def test_the_last_block_is_the_preferred_one() -> None:
    assert preferred(parse(TEXT)).path == Path("/var/local/Second.db")


def test_without_the_file_there_is_one_block(tmp_path: Path) -> None:
    [block] = load(tmp_path / "db.conf", tmp_path)
    assert (block.path, block.mode, block.compress) == (tmp_path / "state.db", Mode.NO_LIMIT, False)


def test_a_path_that_is_not_absolute_is_in_the_state_folder(tmp_path: Path) -> None:
    (tmp_path / "db.conf").write_text("[other.db]\n")
    [block] = load(tmp_path / "db.conf", tmp_path)
    assert block == Block(tmp_path / "other.db")


def test_limits_that_are_not_given_are_the_originals() -> None:
    [block] = parse("[/x]\nmode:write_limit")
    assert (block.period, block.writes) == (21600, 10)


def test_lines_may_end_as_on_other_systems() -> None:
    assert parse(TEXT.replace("\n", "\r\n")) == parse(TEXT)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[/x]\nmode:sometimes", "db.conf, line 2: mode cannot be 'sometimes'"),
        ("[/x]\n\n[/y]\ncompress:yes", "db.conf, line 4: compress cannot be 'yes'"),
        ("[/x]\nformat:sqlite", "db.conf, line 2: format cannot be 'sqlite'"),
        ("[/x]\nwrite_limit_period:-1", "db.conf, line 2: write_limit_period cannot be '-1'"),
        ("[/x]\nwrite_limit_write_cycles:many", "db.conf, line 2: write_limit_write_cycles cannot be 'many'"),
        ("[/x]\ncompress", "db.conf, line 2: a key, a colon and a value are expected, not 'compress'"),
        ("#\n[/x", "db.conf, line 2: a block begins with its path in brackets, not '[/x'"),
        ("[]", "db.conf, line 1: a block begins with its path in brackets, not '[]'"),
        ("[/x]\n\n[/x]", "db.conf, line 3: /x has a block in line 1 already"),
        (
            "[/x]\nis_on_remote_storage:true\n\n[/y]\nis_on_remote_storage:true",
            "db.conf, line 4: a second file on remote storage, at most one may be there",
        ),
        ("", "db.conf: no block, so no file for the database"),
        ("mode:no_limit\n", "db.conf: no block, so no file for the database"),
    ],
)
def test_bad_text_is_refused_with_its_line(text: str, said: str) -> None:
    assert refused(text) == said


def test_a_file_that_cannot_be_read_is_no_missing_one(tmp_path: Path) -> None:
    (tmp_path / "db.conf").write_bytes(b"[/\xff]")
    with pytest.raises(ConfigError, match="cannot read"):
        load(tmp_path / "db.conf", tmp_path)


NAMES = st.text(st.characters(min_codepoint=33, max_codepoint=0x2000, exclude_characters="[]\x85\u2028"), min_size=1)
KEYS = st.from_regex(r"[a-z_]{1,12}", fullmatch=True).map("x_{}".format)
BLOCKS = st.lists(
    st.builds(
        Block,
        path=NAMES.map(lambda name: Path("/") / name),
        mode=st.just(Mode.NO_LIMIT),
        compress=st.booleans(),
        other=st.lists(st.tuples(KEYS, st.from_regex(r"[a-z0-9:/ ]{0,9}", fullmatch=True)), max_size=3).map(tuple),
    )
    | st.builds(
        Block,
        path=NAMES.map(lambda name: Path("/") / name),
        mode=st.just(Mode.WRITE_LIMIT),
        period=st.integers(0, 10**8),
        writes=st.integers(0, 10**8),
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda block: block.path,
)


@given(BLOCKS)
def test_what_is_shown_is_read_again(blocks: list[Block]) -> None:
    assert parse(show(blocks)) == blocks


def test_it_is_shown_as_the_original_does() -> None:
    assert show(default(Path("/var/lib/xcp"))) == (
        "[/var/lib/xcp/state.db]\nmode:no_limit\nformat:xml\ncompress:false\nis_on_remote_storage:false\n"
        "available_this_boot:true\n"
    )
