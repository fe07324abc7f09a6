"""The model that `python -m bench storage_storm` compares disks with: it notices what would be lost."""

from __future__ import annotations

from bench.storm_content import BLOCK, Content, block, which

SIZE = 4 * BLOCK


def held(*stamps: int) -> bytes:
    return b"".join(block(stamp) for stamp in stamps)


def test_what_is_durable_has_to_be_there_and_all_else_is_zeros() -> None:
    content = Content(SIZE)
    content.may_be(1, 7)
    content.is_now(1, 7)
    assert content.compare(held(0, 7, 0, 0))[1] == []
    assert content.compare(held(0, 0, 0, 0))[1] == ["block 1 has 0 instead of 7"]
    assert content.compare(held(0, 7, 0, 3))[1] == ["block 3 has 3 instead of 0"]


def test_what_is_under_way_is_old_or_new_but_never_both_and_never_changes_again() -> None:
    content = Content(SIZE)
    content.is_now(2, 5)
    content.may_be(2, 6)
    assert content.compare(held(0, 0, 6, 0))[1] == []
    found, wrong = content.compare(held(0, 0, 5, 0))
    assert wrong == []
    assert found.compare(held(0, 0, 6, 0))[1] == ["block 2 has 6 instead of 5"]
    torn = held(0, 0, 5, 0)[: 2 * BLOCK + 512] + held(0, 0, 6, 0)[2 * BLOCK + 512 :]
    assert content.compare(torn)[1] == ["block 2 is torn: 5 or 6 instead of 5 or 6"]


def test_a_disk_of_another_size_is_wrong() -> None:
    assert Content(SIZE).compare(held(0, 0, 0))[1] == [f"it has {3 * BLOCK} bytes, not {SIZE}"]
    assert Content(SIZE).grown(SIZE + BLOCK).compare(held(0, 0, 0, 0, 0))[1] == []


def test_an_import_that_was_broken_off_leaves_each_block_as_it_was_or_is_to_be() -> None:
    before, after = Content(SIZE), Content(SIZE)
    before.is_now(0, 1)
    after.is_now(3, 2)
    mixed = before.or_in_part(after)
    for stamps in ((1, 0, 0, 0), (0, 0, 0, 2), (1, 0, 0, 2), (0, 0, 0, 0)):
        assert mixed.compare(held(*stamps))[1] == []
    assert mixed.compare(held(1, 2, 0, 0))[1] == ["block 1 has 2 instead of 0"]


def test_of_several_contents_the_disk_holds_one_or_it_is_said_why_none() -> None:
    before, after = Content(SIZE), Content(SIZE)
    before.is_now(0, 1)
    after.is_now(3, 2)
    assert which([before, after], held(0, 0, 0, 2)) == (after, "")
    found, why = which([before, after], held(1, 0, 0, 2))
    assert found is None
    assert why == "1 blocks, block 3 has 2 instead of 0 | or 1 blocks, block 0 has 1 instead of 0"
