"""What can be wrong: configurations, media that are gone or full, folders on which nothing is mounted."""

from __future__ import annotations

import asyncio

import pytest

from services.storage.plugins.interface import Handle, Plugin, Volume
from shared.errors import ApiError
from tests.storage.conformance.conftest import Service
from tests.storage.conformance.entry import Entry, Medium
from tests.storage.conformance.needs import needs
from tests.storage.support import HOST_A, HOST_B, MIB, SR, new


async def test_a_configuration_that_cannot_be_is_refused_with_the_code_for_it(plugin: Plugin, entry: Entry) -> None:
    for configuration, code in entry.wrong:
        for work in (plugin.sr.create(SR, configuration, "", ""), plugin.sr.attach(SR, configuration, HOST_A)):
            with pytest.raises(ApiError, match="SR_BACKEND_FAILURE_") as error:
                await work
            assert error.value.params[1], "the plug-in's own words"
        with pytest.raises(ApiError) as error:
            await plugin.sr.create(SR, configuration, "", "")
        assert error.value.code == code, configuration


@needs("lose", "create")
async def test_an_sr_that_was_never_made_is_not_attached(plugin: Plugin, medium: Medium) -> None:
    with pytest.raises(ApiError, match="SR_BACKEND_FAILURE_47"):
        await plugin.sr.attach(SR, medium.configuration, HOST_A)


@needs("lose")
async def test_without_its_medium_an_sr_is_unavailable_and_can_be_detached(
    service: Service, plugin: Plugin, sr: Handle, volume: Volume, medium: Medium
) -> None:
    assert medium.lose is not None
    medium.lose()
    creates = "create" in service.entry.traits
    with pytest.raises(ApiError, match="SR_BACKEND_FAILURE"):
        await (plugin.volume.create(sr, new(), MIB) if creates else plugin.sr.ls(sr))
    await plugin.sr.detach(sr)
    service.attached.clear()
    with pytest.raises(ApiError, match="SR_BACKEND_FAILURE_47"):
        await plugin.sr.attach(SR, service.configuration, HOST_B)


@needs("limited", "copy")
async def test_a_full_sr_says_so_and_keeps_what_it_has(plugin: Plugin, sr: Handle) -> None:
    kept = await plugin.volume.create(sr, new("kept"), MIB)

    async def fill() -> None:
        for _ in range(1000):
            await plugin.volume.create(sr, new(), MIB)

    with pytest.raises(ApiError, match="SR_FULL"):
        await fill()
    listed = await plugin.sr.ls(sr)
    assert kept in listed
    for each in listed[:3]:
        await plugin.volume.destroy(sr, each.key)
    await plugin.volume.create(sr, new(), MIB)


@needs("create", "destroy")
async def test_requests_that_are_cancelled_leave_a_whole_disk_or_none(plugin: Plugin, sr: Handle) -> None:
    tasks = [asyncio.ensure_future(plugin.volume.create(sr, new(), MIB)) for _ in range(3)]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    made = {outcome.key for outcome in outcomes if isinstance(outcome, Volume)}
    listed = await plugin.sr.ls(sr)
    assert made <= {each.key for each in listed}
    for each in listed:
        assert each.virtual_size == MIB
        await plugin.volume.destroy(sr, each.key)
