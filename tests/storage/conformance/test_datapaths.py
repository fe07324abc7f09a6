"""Datapaths: each step repeatable, one writer among all hosts."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from services.storage.plugins.interface import ActivatedOnAnotherHost, Domain, Handle, Plugin, Volume
from shared.errors import ApiError
from tests.storage.conformance.conftest import Service
from tests.storage.conformance.entry import Entry
from tests.storage.conformance.needs import needs
from tests.storage.support import HOST_A, HOST_B, MIB, new, new_uuid

VM = Domain(host=HOST_A, dp="vbd/vm/0")
OTHER_VM = Domain(host=HOST_B, dp="vbd/other/0")


async def test_every_step_of_a_reader_may_be_repeated(plugin: Plugin, sr: Handle, volume: Volume) -> None:
    uri = volume.uri[0]
    backend = await plugin.datapath.attach(uri, VM)
    assert await plugin.datapath.attach(uri, VM) == backend
    for _ in range(2):
        await plugin.datapath.activate_readonly(uri, VM)
    if backend.format != "none":
        assert await asyncio.to_thread(Path(backend.path).exists)
    for _ in range(2):
        await plugin.datapath.deactivate(uri, VM)
    assert await plugin.datapath.held(sr) == []
    for _ in range(2):
        await plugin.datapath.detach(uri, VM)


@needs("create")
async def test_every_step_of_a_writer_may_be_repeated(plugin: Plugin, sr: Handle, volume: Volume, entry: Entry) -> None:
    uri = volume.uri[0]
    await plugin.datapath.attach(uri, VM)
    for _ in range(2):
        await plugin.datapath.activate(uri, VM)
    held = await plugin.datapath.held(sr)
    known = [(volume.key, uri, VM.dp, True)] if "held" in entry.traits else []
    assert [(each.key, each.uri, each.dp, each.writable) for each in held] == known
    for _ in range(2):
        await plugin.datapath.deactivate(uri, VM)
    assert await plugin.datapath.held(sr) == []
    for _ in range(2):
        await plugin.datapath.detach(uri, VM)


async def test_a_disk_that_is_not_there_is_not_attached(plugin: Plugin, sr: Handle, volume: Volume) -> None:
    with pytest.raises(ApiError, match="VDI_MISSING"):
        await plugin.datapath.attach(volume.uri[0].replace(volume.key.rpartition("/")[2], "no-such-disk"), VM)


@needs("destroy")
async def test_a_vanished_disk_can_be_let_go_of(plugin: Plugin, sr: Handle, volume: Volume) -> None:
    uri = volume.uri[0]
    await plugin.datapath.attach(uri, VM)
    await plugin.volume.destroy(sr, volume.key)
    await plugin.datapath.deactivate(uri, VM)
    await plugin.datapath.detach(uri, VM)


@needs("shared", "create")
async def test_two_hosts_never_both_write(
    plugin: Plugin, sr: Handle, elsewhere: Handle, volume: Volume, entry: Entry
) -> None:
    here, there = volume.uri[0], (await plugin.volume.stat(elsewhere, volume.key)).uri[0]
    await plugin.datapath.activate(here, VM)
    with pytest.raises(ActivatedOnAnotherHost) as refused:
        await plugin.datapath.activate(there, OTHER_VM)
    assert (refused.value.host, refused.value.dp) == (HOST_A, VM.dp if "held" in entry.traits else "")
    with pytest.raises(ActivatedOnAnotherHost):
        await plugin.datapath.activate_readonly(there, OTHER_VM)
    await plugin.datapath.deactivate(there, OTHER_VM)  # not its own: changes nothing
    with pytest.raises(ActivatedOnAnotherHost):
        await plugin.datapath.activate(there, OTHER_VM)
    await plugin.datapath.deactivate(here, VM)
    await plugin.datapath.activate(there, OTHER_VM)
    await plugin.datapath.deactivate(there, OTHER_VM)


@needs("shared", "create")
async def test_hosts_read_together_and_keep_writers_out(
    plugin: Plugin, sr: Handle, elsewhere: Handle, volume: Volume
) -> None:
    here, there = volume.uri[0], (await plugin.volume.stat(elsewhere, volume.key)).uri[0]
    await plugin.datapath.activate_readonly(here, VM)
    await plugin.datapath.activate_readonly(there, OTHER_VM)
    await plugin.datapath.deactivate(here, VM)
    with pytest.raises(ActivatedOnAnotherHost):
        await plugin.datapath.activate(here, VM)
    await plugin.datapath.deactivate(there, OTHER_VM)


@needs("shared", "create")
async def test_of_many_hosts_that_want_to_write_one_may(
    service: Service, plugin: Plugin, configuration: object
) -> None:
    hosts = [new_uuid() for _ in range(4)]
    handles = [await service.attach(host) for host in hosts]
    key = (await plugin.volume.create(handles[0], new(), MIB)).key
    uris = [(await plugin.volume.stat(handle, key)).uri[0] for handle in handles]
    outcomes = await asyncio.gather(
        *(plugin.datapath.activate(uri, Domain(host=host, dp="dp")) for host, uri in zip(hosts, uris, strict=True)),
        return_exceptions=True,
    )
    assert sum(outcome is None for outcome in outcomes) == 1
    assert all(outcome is None or isinstance(outcome, ActivatedOnAnotherHost) for outcome in outcomes)


@needs("shared", "create", "held")
async def test_what_a_dead_host_had_is_free_once_it_is_fenced(
    plugin: Plugin, sr: Handle, elsewhere: Handle, volume: Volume
) -> None:
    here, there = volume.uri[0], (await plugin.volume.stat(elsewhere, volume.key)).uri[0]
    await plugin.datapath.activate(there, OTHER_VM)
    assert await plugin.datapath.fence(sr, HOST_B) == 1
    await plugin.datapath.activate(here, VM)
    assert await plugin.datapath.fence(sr, HOST_B) == 0
    await plugin.datapath.deactivate(here, VM)


@needs("shared", "destroy", "resize", "clone", "snapshot")
async def test_a_disk_in_use_elsewhere_is_not_destroyed_resized_or_branched(
    plugin: Plugin, sr: Handle, elsewhere: Handle, volume: Volume
) -> None:
    there = (await plugin.volume.stat(elsewhere, volume.key)).uri[0]
    await plugin.datapath.activate(there, OTHER_VM)
    with pytest.raises(ActivatedOnAnotherHost):
        await plugin.volume.destroy(sr, volume.key)
    with pytest.raises(ActivatedOnAnotherHost):
        await plugin.volume.resize(sr, volume.key, 2 * MIB)
    with pytest.raises(ActivatedOnAnotherHost):
        await plugin.volume.clone(sr, volume.key, new())
    with pytest.raises(ActivatedOnAnotherHost):
        await plugin.volume.snapshot(sr, volume.key, new())
    assert len(await plugin.sr.ls(sr)) == 1
    await plugin.datapath.deactivate(there, OTHER_VM)


@needs("create", "held")
async def test_what_was_open_when_the_service_died_is_held_or_left_no_trace(
    service: Service, sr: Handle, volume: Volume, entry: Entry
) -> None:
    uri = volume.uri[0]
    await service.plugin.datapath.attach(uri, VM)
    await service.plugin.datapath.activate(uri, VM)
    plugin = await service.again()
    held = [each.dp for each in await plugin.datapath.held(service.attached[HOST_A])]
    assert held == ([] if plugin.traceless else [VM.dp])
    await plugin.datapath.attach(uri, VM)
    await plugin.datapath.activate(uri, VM)
    await plugin.datapath.deactivate(uri, VM)
    await plugin.datapath.detach(uri, VM)
    assert await plugin.datapath.held(service.attached[HOST_A]) == []
