"""Where the disks of drivers are for programs of this machine."""

from __future__ import annotations

import os
from pathlib import Path
from stat import S_IFBLK

import pytest
from msgspec.structs import replace

from services.storage.smapiv1.datapaths import implementation, relocated
from services.storage.smapiv1.view import SystemView


@pytest.mark.skipif(os.geteuid() != 0, reason="making device nodes needs root")
def test_a_link_that_leads_to_a_device_only_when_the_disk_is_activated_is_opened_as_one(tmp_path: Path) -> None:
    link, node, view = tmp_path / "link", tmp_path / "node", SystemView(tmp_path / "state")
    attached = implementation({"params": str(link), "params_nbd": ""}, view)
    assert attached.kind == "file"
    os.mknod(node, 0o600 | S_IFBLK, os.makedev(240, 9))
    link.symlink_to(node)
    assert relocated(attached, view) == replace(attached, kind="block")
