"""kill -9 at every point of opening and closing disks, then a restart."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest


@pytest.mark.parametrize("kind", ["file", "dummy"])
async def test_a_crash_at_any_point_leaves_all_open_or_nothing(tmp_path: Path, kind: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.storage.crashing", str(tmp_path), kind),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    runs = [json.loads(line) for line in out.splitlines()]
    points = {(run["scenario"], run["checkpoint"]) for run in runs if run["died"]}
    assert {
        ("open", "open: after intent"),
        ("open", "after attach"),
        ("open", "after activate-rw"),
        ("open", "open: done"),
        ("close", "close: after intent"),
        ("close", "after deactivate"),
        ("close", "after detach"),
    } <= points
    for run in runs:
        # what leaves traces is decided when the intent is durable, the rest when it is done
        untouched = (
            run["checkpoint"].endswith("before intent") if kind == "file" else not run["checkpoint"].endswith("done")
        )
        _consistent(run, opened=(run["scenario"] == "open") != untouched)


def _consistent(run: dict[str, Any], opened: bool) -> None:
    everything = ["vbd/vm/0 activated", "vbd/vm/1 activated"]
    assert sorted(run["held"]) == (everything if opened else []), run
    assert run["elsewhere"] == [not opened, not opened], run
    assert run["after close"] == [True, True], run
    assert run["leases"] == [], run
