"""SRs: made, attached, found, let go of."""

from __future__ import annotations

import pytest

from services.storage.plugins.interface import Handle, Plugin, Volume
from shared.errors import ApiError
from tests.storage.conformance.conftest import Service
from tests.storage.conformance.entry import FEATURES, Entry, Medium
from tests.storage.conformance.needs import needs
from tests.storage.support import HOST_A, MIB, SR, new


async def test_it_says_what_it_is_and_what_it_can(plugin: Plugin, entry: Entry) -> None:
    info = plugin.query()
    assert info.type
    assert info.name
    assert info.description
    assert {"SR_ATTACH", "SR_DETACH", "SR_SCAN", "VDI_ATTACH", "VDI_DETACH"} <= set(info.features)
    for trait, feature in FEATURES.items():
        assert (feature in info.features) == (trait in entry.traits), feature
    assert all(info.configuration.values())


async def test_creating_an_sr_again_and_attaching_it_again_changes_nothing(
    plugin: Plugin, configuration: dict[str, str], sr: Handle, volume: Volume
) -> None:
    assert await plugin.sr.create(SR, configuration, "name", "description") == configuration
    again = await plugin.sr.attach(SR, configuration, HOST_A)
    assert again == sr
    assert [found.key for found in await plugin.sr.ls(again)] == [volume.key]


async def test_detaching_an_sr_again_changes_nothing(service: Service, plugin: Plugin, sr: Handle) -> None:
    await plugin.sr.detach(sr)
    await plugin.sr.detach(sr)
    service.attached.clear()


async def test_disks_are_there_again_when_the_sr_is_attached_again(
    service: Service, plugin: Plugin, sr: Handle, volume: Volume
) -> None:
    await plugin.sr.detach(sr)
    again = await service.attach(HOST_A)
    assert await plugin.sr.ls(again) == [volume]


async def test_an_sr_has_a_size(plugin: Plugin, sr: Handle, volume: Volume) -> None:
    stat = await plugin.sr.stat(sr)
    assert stat.uuid == SR
    assert 0 <= stat.free_space <= stat.total_space
    assert stat.total_space > 0


async def test_what_is_not_attached_is_unavailable(service: Service, plugin: Plugin, sr: Handle) -> None:
    await plugin.sr.detach(sr)
    service.attached.clear()
    with pytest.raises(ApiError, match="SR_BACKEND_FAILURE_47"):
        await plugin.sr.stat(sr)
    with pytest.raises(ApiError, match="SR_BACKEND_FAILURE_47"):
        await plugin.sr.ls(sr)


@needs("create", "destroy")
async def test_an_sr_with_disks_is_not_destroyed(service: Service, plugin: Plugin, sr: Handle) -> None:
    volume = await plugin.volume.create(sr, new(), MIB)
    with pytest.raises(ApiError, match="SR_NOT_EMPTY"):
        await plugin.sr.destroy(sr)
    assert [found.key for found in await plugin.sr.ls(sr)] == [volume.key]
    await plugin.volume.destroy(sr, volume.key)
    await plugin.sr.destroy(sr)
    service.attached.clear()
    with pytest.raises(ApiError, match="SR_BACKEND_FAILURE_47"):
        await plugin.sr.stat(sr)


@needs("create", "destroy")
async def test_where_an_sr_was_destroyed_another_one_can_be_made(
    service: Service, plugin: Plugin, sr: Handle, configuration: dict[str, str]
) -> None:
    await plugin.sr.destroy(sr)
    service.attached.clear()
    other = "5a000000-0000-4000-8000-0000000000ff"
    handle = await plugin.sr.attach(other, await plugin.sr.create(other, configuration, "", ""), HOST_A)
    assert await plugin.sr.ls(handle) == []
    await plugin.sr.destroy(handle)


@needs("probe")
async def test_a_probe_finds_room_and_then_the_sr(service: Service, plugin: Plugin, medium: Medium) -> None:
    before = await plugin.sr.probe(medium.configuration)
    assert [found.uuid for found in before] == [""]
    assert all(found.complete and found.configuration == medium.configuration for found in before)
    service.configuration = await plugin.sr.create(SR, medium.configuration, "name", "")
    await service.attach(HOST_A)
    assert SR in {found.uuid for found in await plugin.sr.probe(service.configuration)}


async def test_a_restarted_service_finds_the_sr_as_it_was(service: Service, sr: Handle, volume: Volume) -> None:
    plugin = await service.again()
    handle = service.attached[HOST_A]
    assert await plugin.sr.ls(handle) == [volume]
    assert (await plugin.sr.stat(handle)).uuid == SR
