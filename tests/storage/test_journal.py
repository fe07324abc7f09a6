from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.storage.journal import Journal, JournalDamaged


async def test_what_was_written_is_there_after_a_restart(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    await journal.write({"a": {"x": 1}, "b": 2})
    await journal.write({"b": None, "c": [3]})
    await journal.close()
    assert Journal(tmp_path / "journal").data == {"a": {"x": 1}, "c": [3]}


async def test_writes_of_one_moment_share_a_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / "journal")
    syncs = 0
    sync = os.fdatasync

    def counted(file: int) -> None:
        nonlocal syncs
        syncs += 1
        sync(file)

    monkeypatch.setattr(os, "fdatasync", counted)
    await asyncio.gather(*(journal.write({str(n): n}) for n in range(200)))
    assert syncs <= 2
    await journal.close()
    assert len(Journal(tmp_path / "journal").data) == 200


@given(cut=st.integers(min_value=0, max_value=200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
def test_a_file_cut_anywhere_holds_a_prefix_of_the_writes(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "journal"
    path.unlink(missing_ok=True)

    async def write() -> None:
        journal = Journal(path)
        for n in range(6):
            await journal.write({"n": n, f"k{n}": "x" * n})
        await journal.close()

    asyncio.run(write())
    os.truncate(path, min(cut, path.stat().st_size))
    data = Journal(path).data
    last = data.get("n", -1)
    assert data == ({"n": last} | {f"k{n}": "x" * n for n in range(last + 1)} if last >= 0 else {})


async def test_a_torn_tail_does_not_stop_later_writes(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = Journal(path)
    await journal.write({"a": 1})
    await journal.close()
    with path.open("ab") as file:
        file.write(b'0badc0de {"b":')
    journal = Journal(path)
    await journal.write({"c": 3})
    await journal.close()
    assert Journal(path).data == {"a": 1, "c": 3}


async def test_damage_before_the_last_write_is_not_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = Journal(path)
    await journal.write({"a": 1})
    await journal.write({"b": 2})
    await journal.close()
    text = bytearray(path.read_bytes())
    text[12] ^= 1
    path.write_bytes(text)
    with pytest.raises(JournalDamaged):
        Journal(path)


async def test_a_write_that_fails_leaves_no_trace_and_the_next_one_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "journal"
    journal = Journal(path)
    await journal.write({"a": 1})
    with monkeypatch.context() as broken:
        broken.setattr(os, "fdatasync", _full)
        with pytest.raises(OSError, match="No space"):
            await journal.write({"a": 2})
    assert journal.data == {"a": 1}
    await journal.write({"b": 2})
    await journal.close()
    assert Journal(path).data == {"a": 1, "b": 2}


async def test_what_could_only_be_noted_comes_with_the_next_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "journal"
    journal = Journal(path)
    with monkeypatch.context() as broken:
        broken.setattr(os, "fdatasync", _full)
        await journal.note({"happened": True})
    assert journal.data == {"happened": True}
    await journal.write({"later": True})
    await journal.close()
    assert Journal(path).data == {"happened": True, "later": True}


async def test_the_file_does_not_grow_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.storage.journal.COMPACT_AT", 2000)
    path = tmp_path / "journal"
    journal = Journal(path)
    for n in range(300):
        await journal.write({"key": "x" * 50, "n": n})
    await journal.close()
    assert path.stat().st_size < 4000
    assert Journal(path).data == {"key": "x" * 50, "n": 299}


def _full(_: int) -> None:
    raise OSError(28, "No space left on device")
