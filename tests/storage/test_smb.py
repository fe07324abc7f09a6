"""The SR type `smb`: what is mounted how, where passwords go, and what shares a server says it has."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.storage.plugins.mounted_point import Mounted
from services.storage.plugins.smb import SmbMedium, parse_shares
from shared.errors import ApiError

MEDIUM = SmbMedium()
SHARE = {"server": "\\\\filer\\vms"}
LOGIN = {**SHARE, "username": "LAB\\ann", "password": "pass,word $(reboot)"}


def test_a_password_is_seen_by_the_helper_alone() -> None:
    mount = MEDIUM.mount(LOGIN, "")
    assert mount.environment == {"USER": "ann", "PASSWD": "pass,word $(reboot)"}
    assert "domain=LAB" in mount.options
    assert "pass" not in " ".join(mount.arguments(Path("/place")))
    assert "ann" not in " ".join(mount.arguments(Path("/place")))


def test_without_a_name_one_is_a_guest() -> None:
    mount = MEDIUM.mount(SHARE, "")
    assert (mount.kind, mount.source, mount.environment) == ("cifs", "//filer/vms", {})
    assert {"guest", "vers=3.0", "cache=none"} <= set(mount.options)


@pytest.mark.parametrize(
    ("configuration", "code"),
    [
        ({}, "102"),
        ({"server": "filer"}, "1"),
        ({"server": "//filer"}, "1"),
        ({"server": "//"}, "1"),
        ({"server": "//-o/x"}, "1"),
        ({**SHARE, "username": "a,uid=0\\ann", "password": "x"}, "1"),
        ({**SHARE, "username": "ann\nfoo", "password": "x"}, "1"),
        ({**SHARE, "username": "ann", "password_secret": "5a000000"}, "20"),
    ],
)
def test_what_cannot_be_is_refused_with_the_code_for_it(configuration: dict[str, str], code: str) -> None:
    with pytest.raises(ApiError) as error:
        MEDIUM.mount(configuration, "")
    assert error.value.code == f"SR_BACKEND_FAILURE_{code}"


def test_a_mount_is_found_again_however_the_kernel_writes_the_share() -> None:
    mount = MEDIUM.mount(SHARE, "")
    assert MEDIUM.same(mount, Mounted(place="/x", kind="cifs", source="//filer/vms/", device=(0, 50)))
    assert MEDIUM.same(mount, Mounted(place="/x", kind="cifs", source="\\\\filer\\vms", device=(0, 50)))
    assert not MEDIUM.same(mount, Mounted(place="/x", kind="cifs", source="//filer/other", device=(0, 50)))


def test_shares_that_hold_files_are_listed() -> None:
    text = "Disk|vms|VM disks\nDisk|with space|\nDisk|C$|hidden\nIPC|IPC$|\nPrinter|lp|\nserver comment\n"
    assert parse_shares(text) == ["vms", "with space"]


async def test_a_probe_of_a_server_lists_its_shares_with_the_password_out_of_sight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "smbclient"
    program.write_text('#!/bin/sh\necho "Disk|$PASSWD as $USER|"\necho "Disk|$*|"\n')
    program.chmod(0o755)
    monkeypatch.setattr("services.storage.plugins.program.SYSTEM_PATH", f"{tmp_path}:/usr/bin:/bin")
    found = await MEDIUM.probe({**LOGIN, "server": "//filer", "password": "hunter2"})
    assert found is not None
    assert [each.configuration["server"] for each in found] == [
        "//filer/hunter2 as ann",
        "//filer/--grepable --workgroup LAB --list //filer",
    ]
    assert not any(each.complete for each in found)
