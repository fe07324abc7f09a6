"""Sessions of the API that storage processes leave."""

from __future__ import annotations

import stat

import pytest

from tests.storage.smapiv1.conftest import Bench

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_the_next_process_ends_the_sessions_of_one_that_was_killed(bench: Bench) -> None:
    left = [await bench.host.xapi.session(""), await bench.host.xapi.session("OpaqueRef:sr")]
    assert stat.S_IMODE((bench.folder / "kept" / "sessions").stat().st_mode) == 0o600
    bench.begin()
    own = await bench.host.xapi.session("")
    await bench.host.xapi.end_former()
    await bench.pool.until(lambda: not any(bench.pool.row("session", session) for session in left))
    assert bench.pool.row("session", own) is not None
    bench.begin()
    await bench.host.xapi.end_former()
    await bench.pool.until(lambda: bench.pool.row("session", own) is None)
    await bench.host.xapi.end_former()  # again does no harm


async def test_a_process_that_stops_orderly_leaves_none(bench: Bench) -> None:
    own = await bench.host.xapi.session("")
    await bench.host.close()
    await bench.pool.until(lambda: bench.pool.row("session", own) is None)
    assert (bench.folder / "kept" / "sessions").read_text() == "[]"
