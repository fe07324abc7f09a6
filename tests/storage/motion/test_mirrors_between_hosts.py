"""A running VM's disk mirrored to another host that does not see it: what the target has, and what a mirror leaves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.contracts import motion, storage
from shared.contracts.motion import MirrorEnd
from shared.errors import ApiError
from tests.storage.motion.two_hosts import TwoHosts, two_hosts, until
from tests.storage.support import HOST_A, HOST_B, MIB

pytestmark = pytest.mark.qemu


@pytest.fixture
async def hosts(short_folder: Path, guest_dir: Path, certificates: Path) -> AsyncIterator[TwoHosts]:
    """With a VM on the first one."""
    async with two_hosts(short_folder, certificates) as made:
        location = await made.with_vm(guest_dir)
        await made.write()
        yield made
        await made.write()
        await made.guest("flush")
        assert await made.content(HOST_A, location) == bytes(made.model)
        await made.shut_down()
        await made.nothing_is_left()


async def begun(hosts: TwoHosts) -> motion.Mirror:
    mirror = hosts.mirror(await hosts.disk(HOST_B))
    await hosts.call(HOST_A, motion.MIRROR_START, mirror)
    return mirror


async def given_up(hosts: TwoHosts, mirror: motion.Mirror) -> None:
    await hosts.call(HOST_A, motion.MIRROR_END, MirrorEnd(dp=mirror.dp, whole=False))
    await hosts.nothing_is_left(hosts.vbd)
    await hosts.destroy(HOST_B, mirror.location)


async def broken(hosts: TwoHosts, mirror: motion.Mirror) -> None:
    async def running() -> bool:
        return bool((await hosts.call(HOST_A, motion.MIRROR_STATE, motion.MirrorName(dp=mirror.dp))).running)

    await until(running)


async def test_the_target_has_all_that_the_guest_wrote_and_goes_on_under_another_name(hosts: TwoHosts) -> None:
    mirror = await begun(hosts)
    await hosts.call(HOST_A, motion.MIRROR_START, mirror)  # asked again
    await hosts.write()
    await hosts.until_ready(mirror)
    await hosts.write()
    vbd = "vbd/the-same-vm/0"
    await hosts.call(HOST_A, motion.MIRROR_END, MirrorEnd(dp=mirror.dp, whole=True, keep=vbd))
    assert await hosts.content(HOST_B, mirror.location) == bytes(hosts.model)
    await hosts.nothing_is_left(hosts.vbd, vbd)
    assert await hosts.datapaths(HOST_B) == [vbd]
    await hosts.call(HOST_B, storage.CLOSE, storage.Close(dps=[vbd]))
    with pytest.raises(ApiError, match="MIRROR_FAILED"):
        await hosts.call(HOST_A, motion.MIRROR_END, MirrorEnd(dp=mirror.dp, whole=True))
    await hosts.destroy(HOST_B, mirror.location)


async def test_a_mirror_is_given_up_at_any_stage(hosts: TwoHosts) -> None:
    """As it begins, when it is ready, when it is over; and then there may be another one."""
    await given_up(hosts, await begun(hosts))
    ready = await begun(hosts)
    await hosts.until_ready(ready)
    await hosts.write()
    await given_up(hosts, ready)
    over = await begun(hosts)
    await hosts.until_ready(over)
    await hosts.call(HOST_A, motion.MIRROR_END, MirrorEnd(dp=over.dp, whole=True))
    assert await hosts.content(HOST_B, over.location) == bytes(hosts.model)
    await given_up(hosts, over)


async def test_a_target_that_is_too_small_or_in_use_leaves_nothing(hosts: TwoHosts) -> None:
    used = await hosts.disk(HOST_B)
    async with hosts.opened(HOST_B, used):
        with pytest.raises(ApiError, match="VDI_IN_USE"):
            await hosts.call(HOST_A, motion.MIRROR_START, hosts.mirror(used))
    small = hosts.mirror(await hosts.disk(HOST_B, MIB))
    try:
        await hosts.call(HOST_A, motion.MIRROR_START, small)
        await broken(hosts, small)
    except ApiError:
        pass
    await given_up(hosts, small)


async def test_a_program_or_service_that_is_killed_ends_the_mirror_and_the_vm_goes_on(hosts: TwoHosts) -> None:
    """The target is not said to be whole."""
    for host in (HOST_A, HOST_B):
        mirror = await begun(hosts)
        await hosts.until_ready(mirror)
        [program] = hosts.programs(host)
        program.kill()
        await hosts.write()
        await broken(hosts, mirror)
        with pytest.raises(ApiError, match="MIRROR_FAILED"):
            await hosts.call(HOST_A, motion.MIRROR_END, MirrorEnd(dp=mirror.dp, whole=True))
        await given_up(hosts, mirror)
    for host in (HOST_A, HOST_B):
        mirror = await begun(hosts)
        await hosts.until_ready(mirror)
        await hosts.kill("storage", host)
        await hosts.write()
        await hosts.start("storage", host)
        await broken(hosts, mirror)
        await given_up(hosts, mirror)
    again = await begun(hosts)
    await hosts.until_ready(again)
    await hosts.call(HOST_A, motion.MIRROR_END, MirrorEnd(dp=again.dp, whole=True))
    assert await hosts.content(HOST_B, again.location) == bytes(hosts.model)
