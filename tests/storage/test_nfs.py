"""The SR type `nfs`: what is mounted how, and what a server says it exports. No server is asked."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from services.storage.live import Live
from services.storage.options import StorageOptions
from services.storage.plugins.bundled import bundled
from services.storage.plugins.mounted_point import Mounted
from services.storage.plugins.nfs import Export, NfsMedium, exports_xml, parse_showmount
from shared.errors import ApiError
from tests.storage.support import HOST_A, SR

MEDIUM = NfsMedium()
CONFIGURATION = {"server": "filer.example", "serverpath": "/exports/vms"}


def test_an_export_is_mounted_so_that_a_dead_server_fails_in_the_end_and_folders_are_never_stale() -> None:
    mount = MEDIUM.mount(CONFIGURATION, "")
    assert (mount.kind, mount.source, mount.helper) == ("nfs", "filer.example:/exports/vms", "mount.nfs")
    assert mount.visiting == ("nolock",)
    assert {"soft", "proto=tcp", "vers=3", "acdirmin=0", "acdirmax=0", "timeo=100"} <= set(mount.options)


def test_version_and_options_are_the_administrator_s() -> None:
    mount = MEDIUM.mount({**CONFIGURATION, "nfsversion": "4.1", "options": "nconnect=4,,sec=krb5"}, "")
    assert "vers=4.1" in mount.options
    assert mount.visiting == ()
    assert mount.options[-2:] == ("nconnect=4", "sec=krb5")


@pytest.mark.parametrize("server", ["fd00::5", "[fd00::5]"])
def test_an_address_of_version_6_is_in_brackets(server: str) -> None:
    mount = MEDIUM.mount({**CONFIGURATION, "server": server}, "")
    assert mount.source == "[fd00::5]:/exports/vms"
    assert "proto=tcp6" in mount.options


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"server": ""}, "102"),
        ({"server": "-o remount"}, "108"),
        ({"server": "a b"}, "108"),
        ({"server": "a,b"}, "108"),
        ({"serverpath": ""}, "101"),
        ({"serverpath": "exports"}, "103"),
        ({"serverpath": "/a\nb"}, "103"),
        ({"nfsversion": "2"}, "72"),
        ({"nfsversion": "3,exec"}, "72"),
    ],
)
def test_what_cannot_be_is_refused_with_the_code_for_it(change: dict[str, str], code: str) -> None:
    with pytest.raises(ApiError) as error:
        MEDIUM.mount({**CONFIGURATION, **change}, "")
    assert error.value.code == f"SR_BACKEND_FAILURE_{code}"


def test_a_mount_is_found_again_whatever_version_was_negotiated() -> None:
    mount = MEDIUM.mount(CONFIGURATION, "")
    found = Mounted(place="/x", kind="nfs4", source="filer.example:/exports/vms/", device=(0, 50))
    assert MEDIUM.same(mount, found)
    assert not MEDIUM.same(mount, Mounted(place="/x", kind="nfs", source="other:/exports/vms", device=(0, 50)))


def test_exports_are_listed_with_who_may_mount_them() -> None:
    text = "/exports/vms   10.0.0.0/8,filer\n/exports/with space (everyone)\n/exports/all *\n\n"
    assert parse_showmount(text) == [
        Export(path="/exports/vms", access="10.0.0.0/8,filer"),
        Export(path="/exports/with space", access="(everyone)"),
        Export(path="/exports/all", access="*"),
    ]


def test_clients_find_the_exports_in_xml() -> None:
    text = exports_xml("filer", [Export(path="/a&b", access="*")])
    assert "<Export><Target>filer</Target><Path>/a&amp;b</Path><Accesslist>*</Accesslist></Export>" in text


async def test_a_probe_without_a_path_lists_exports_with_the_code_that_clients_know(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "showmount"
    program.write_text('#!/bin/sh\necho /exports/vms "$3$4"\n')
    program.chmod(0o755)
    monkeypatch.setattr("services.storage.plugins.program.SYSTEM_PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(ApiError, match="SR_BACKEND_FAILURE_101") as error:
        await MEDIUM.probe({"server": "filer.example"})
    assert "<Path>/exports/vms</Path><Accesslist>--filer.example</Accesslist>" in error.value.params[2]
    program.write_text("#!/bin/sh\necho 'clnt_create: RPC: Timed out' >&2; exit 1\n")
    with pytest.raises(ApiError, match=r"SR_BACKEND_FAILURE_108.*RPC: Timed out"):
        await MEDIUM.probe({"server": "filer.example"})


async def test_without_the_helper_it_says_which_package_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.storage.plugins.program.SYSTEM_PATH", "/nonexistent")
    plugins = bundled(StorageOptions(), tmp_path, cast(Live, None))
    for work in (
        plugins["nfs"].sr.create(SR, CONFIGURATION, "", ""),
        plugins["nfs"].sr.attach(SR, CONFIGURATION, HOST_A),
        plugins["nfs"].sr.probe(CONFIGURATION),
    ):
        with pytest.raises(ApiError, match=r"mount.nfs cannot be run; it comes with the Debian package nfs-common"):
            await work
    assert not (tmp_path / "sr-mount" / HOST_A / SR).exists()
    for plugin in plugins.values():
        await plugin.close()
