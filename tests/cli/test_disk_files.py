"""Disks that go to files and come from them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from services.cli.server.progress_bar import COLUMNS, bar
from tests.cli.fake_xenapi import FakeXenApi
from tests.cli.test_vm_files import asked, ends
from tests.cli.thin_client import ThinClient

__all__ = ["ends"]


async def test_a_disk_is_written_to_a_file(api: FakeXenApi, xe: ThinClient, ends: Callable[..., None]) -> None:
    ends(status="success")
    disk, base = api.add("VDI"), api.add("VDI")
    words = (f"uuid={api.uuid(disk)}", "filename=f", "format=vhd", f"base={api.uuid(base)}")
    outcome = await xe("vdi-export", *words)
    assert (outcome.stdout, outcome.stderr, outcome.status) == ("", "", 0)
    filename, path, arguments = asked(outcome)
    assert (filename, path) == ("f", "/export_raw_vdi")
    assert (arguments["vdi"], arguments["format"], arguments["base"]) == ([disk], ["vhd"], [base])


async def test_a_file_is_written_to_a_disk(api: FakeXenApi, xe: ThinClient, ends: Callable[..., None]) -> None:
    ends(status="success")
    disk = api.add("VDI")
    outcome = await xe("vdi-import", f"uuid={api.uuid(disk)}", "filename=f")
    filename, path, arguments = asked(outcome)
    assert (filename, path, arguments["vdi"], "format" in arguments) == ("f", "/import_raw_vdi", [disk], False)


async def test_a_bar_shows_how_far_it_is(api: FakeXenApi, xe: ThinClient, ends: Callable[..., None]) -> None:
    ends(status="success")
    outcome = await xe("vdi-import", f"uuid={api.uuid(api.add('VDI'))}", "filename=f", "progress=true")
    drawn, total, _ = outcome.stderr.split("\n")
    assert "(100% ETA 00:00:00)" in drawn
    assert total.startswith("Total time: ")


async def test_why_the_handler_failed_is_told(api: FakeXenApi, xe: ThinClient, ends: Callable[..., None]) -> None:
    ends(status="failure", error_info=["IMPORT_ERROR", "VHD: no footer"])
    outcome = await xe("vdi-import", f"uuid={api.uuid(api.add('VDI'))}", "filename=f", "format=vhd")
    assert outcome.status == 1
    assert "VHD: no footer" in outcome.stderr


@pytest.mark.parametrize(
    ("part", "elapsed", "expected"),
    [(0.0, 5.0, "[|] " + 56 * " " + " (  0% ETA --:--:--)"), (0.5, 60.0, "[|] " + 27 * "#" + ">" + 28 * " ")],
)
def test_a_bar_has_eighty_columns(part: float, elapsed: float, expected: Any) -> None:
    drawn = bar(part, elapsed, 0)
    assert len(drawn) == COLUMNS
    assert drawn.startswith(expected)
