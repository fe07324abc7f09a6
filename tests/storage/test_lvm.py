"""The SR type `lvm`: what LVM is told, how its reports are read, and what a crash leaves. LVM itself is a fake here.

Reports have the shape that lvm2 2.03 prints.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from services.storage.plugins import lvm_commands as commands
from services.storage.plugins.interface import Domain, Handle, NewVolume, Unimplemented
from services.storage.plugins.lvm import LvmPlugin
from services.storage.plugins.lvm_commands import Holder, Label
from services.storage.plugins.lvm_configuration import devices_of, thin_of
from services.storage.plugins.program import Output
from shared.errors import ApiError
from tests.storage.fake_lvm import EXTENT, FakeLvm
from tests.storage.support import HOST_A, HOST_B, MIB, SR, new, new_uuid

VM = Domain(host=HOST_A, dp="vbd/vm/0")
LVS = """  {
      "report": [
          {
              "lv": [
                  {"lv_name":"thin-pool", "lv_size":"60129542144", "lv_attr":"twi-aotz--", "lv_tags":"", "data_percent":"12.50", "pool_lv":""},
                  {"lv_name":"LV-5a000000-0000-4000-8000-000000000002", "lv_size":"8388608", "lv_attr":"Vri---tz-k", "lv_tags":"a,b", "data_percent":"", "pool_lv":"thin-pool"},
                  {"lv_name":"other", "lv_size":"4194304", "lv_attr":"-wi-a-----", "lv_tags":"", "data_percent":"", "pool_lv":""}
              ]
          }
      ]
  }
"""  # noqa: E501


async def unasked(_: str) -> None:
    """Devices of the fake hold nothing."""


def plugin_in(folder: Path, machine: str = "this") -> tuple[LvmPlugin, FakeLvm]:
    fake = FakeLvm(folder)
    return LvmPlugin(fake, unasked, fake.nodes, machine), fake


@pytest.fixture
def both(tmp_path: Path) -> tuple[LvmPlugin, FakeLvm]:
    return plugin_in(tmp_path)


@pytest.fixture
def plugin(both: tuple[LvmPlugin, FakeLvm]) -> LvmPlugin:
    return both[0]


@pytest.fixture
async def sr(plugin: LvmPlugin) -> Handle:
    return await plugin.sr.attach(SR, await plugin.sr.create(SR, {"device": "/dev/sdx"}, "", ""), HOST_A)


def test_reports_are_read() -> None:
    pool, disk, other = commands.parse_volumes(LVS)
    assert (pool.pool, pool.thin, pool.used) == (True, False, 0.125)
    assert (disk.thin, disk.writable, disk.used, disk.tags) == (True, False, None, frozenset({"a", "b"}))
    assert (other.thin, other.pool, other.writable, other.label) == (False, False, True, None)
    assert commands.parse_volumes('{"report": [{"lv": []}]}') == []
    with pytest.raises(ValueError, match="not a report"):
        commands.parse_volumes("  WARNING: locking disabled\n")


@pytest.mark.parametrize("text", ["", "a" * 5000, "ünï\n\0,@'\"", "-o"])
def test_labels_go_through_tags_whatever_is_in_them(text: str) -> None:
    label = Label(uuid=new_uuid(), name=text, description=text, keys={text: text}, draft=True)
    tags = commands.label_tags(label)
    assert commands.parse_label([*tags, "somebody.else", commands.holder_tag(Holder("h", "d", True))]) == label
    assert all(len(tag) <= 1024 and set(tag) <= _TAG_CHARACTERS and tag[0] != "-" for tag in tags)


_TAG_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_+.-/=!:#&")


@pytest.mark.parametrize("writable", [True, False])
def test_holders_go_through_tags(writable: bool) -> None:
    holder = Holder(host=HOST_A, dp="vbd/öä/0", writable=writable)
    assert commands.parse_holder(commands.holder_tag(holder)) == holder
    assert commands.parse_holder("somebody.else") is None
    garbled = commands.parse_holder("xapi.holder.zz.%%%")
    assert garbled is not None
    assert commands.foreign([garbled], VM, writable=False) == garbled


def test_no_key_becomes_an_argument_that_is_not_a_uuid() -> None:
    assert commands.volume_name(SR) == f"LV-{SR}"
    for key in ("", "--force", "../x", f"{SR} ", f"{SR}\n", SR.upper()):
        assert commands.volume_name(key) == ""
    assert commands.sr_of(f"VG_XenStorage-{SR}") == SR
    assert commands.sr_of("vg0") == commands.sr_of("VG_XenStorage-mine") == ""


def test_sizes_are_bytes_and_branches_can_be_activated() -> None:
    assert "--virtualsize 4194304b" in " ".join(commands.create_volume("vg", "lv", 4 * MIB, [], thin=True))
    assert "--size 4194304b" in " ".join(commands.create_volume("vg", "lv", 4 * MIB, [], thin=False))
    branch = " ".join(commands.branch_volume("vg", "lv", "to", ["t"], writable=False))
    assert "--permission r --setactivationskip n" in branch
    assert branch.endswith("--addtag t vg/lv")


def test_configurations_are_checked() -> None:
    assert devices_of({"device": "/dev/sdb,/dev/sdc"}) == ["/dev/sdb", "/dev/sdc"]
    assert thin_of({})
    assert not thin_of({"allocation": "thick"})
    with pytest.raises(ApiError, match="SR_BACKEND_FAILURE_1"):
        thin_of({"allocation": "xlvhd"})


async def test_disks_are_whole_extents(plugin: LvmPlugin, sr: Handle) -> None:
    wanted = new()
    made = await plugin.volume.create(sr, wanted, 1)
    assert made.virtual_size == EXTENT
    assert await plugin.volume.create(sr, wanted, EXTENT) == made


async def test_a_node_is_there_while_the_disk_is_activated(
    plugin: LvmPlugin, both: tuple[LvmPlugin, FakeLvm], sr: Handle
) -> None:
    def active() -> set[str]:
        return {str(path) for path in both[1].nodes.rglob("LV-*")}

    volume = await plugin.volume.create(sr, new(), MIB)
    node = (await plugin.datapath.attach(volume.uri[0], VM)).path
    assert node == str(both[1].nodes / f"VG_XenStorage-{SR}" / f"LV-{volume.key}")
    assert node not in active()
    await plugin.datapath.activate(volume.uri[0], VM)
    assert node in active()
    await plugin.datapath.deactivate(volume.uri[0], VM)
    assert node not in active()


async def test_names_and_keys_are_kept_in_tags(plugin: LvmPlugin, sr: Handle) -> None:
    volume = await plugin.volume.create(sr, NewVolume(uuid=new_uuid(), name="a", keys={"x": "1", "y": "2"}), MIB)
    await plugin.volume.describe(sr, volume.key, "b", None)
    await plugin.volume.set(sr, volume.key, {"x": None, "z": "3"})
    found = await plugin.volume.stat(sr, volume.key)
    assert (found.name, found.keys) == ("b", {"y": "2", "z": "3"})


async def test_thick_volumes_are_cleared_and_have_no_branches(both: tuple[LvmPlugin, FakeLvm]) -> None:
    plugin, _ = both
    sr = await thick(plugin)
    volume = await plugin.volume.create(sr, new("disk"), 8 * MIB)
    assert [found.key for found in await plugin.sr.ls(sr)] == [volume.key]
    assert volume.physical_utilisation == 8 * MIB
    for work in (plugin.volume.clone(sr, volume.key, new()), plugin.volume.snapshot(sr, volume.key, new())):
        with pytest.raises(Unimplemented):
            await work
    with pytest.raises(ApiError, match="SR_FULL"):
        await plugin.volume.create(sr, new(), 1 << 40)


async def thick(plugin: LvmPlugin) -> Handle:
    configuration = await plugin.sr.create(SR, {"device": "/dev/sdx", "allocation": "thick"}, "", "")
    return await plugin.sr.attach(SR, configuration, HOST_A)


async def test_what_a_thick_volume_grows_by_is_cleared_also_after_a_crash(
    both: tuple[LvmPlugin, FakeLvm], tmp_path: Path
) -> None:
    """It was another disk's."""
    plugin, fake = both
    sr = await thick(plugin)
    volume = await plugin.volume.create(sr, new(), EXTENT)
    fake.cleared.clear()
    await plugin.volume.resize(sr, volume.key, 2 * EXTENT)
    [cleared] = fake.cleared
    assert cleared[:3] == ["--zeroout", "--offset", str(EXTENT)]

    async def dies(arguments: list[str]) -> Output:
        if arguments[0] == "blkdiscard":
            raise InterruptedError
        return await fake(arguments)

    plugin.group(SR)._run = dies
    with pytest.raises(InterruptedError):
        await plugin.volume.resize(sr, volume.key, 4 * EXTENT)
    again, other = plugin_in(tmp_path)
    handle = await again.sr.attach(SR, {"device": "/dev/sdx"}, HOST_A)
    assert [words[2] for words in other.cleared] == [str(2 * EXTENT)]
    assert (await again.volume.stat(handle, volume.key)).virtual_size == 4 * EXTENT
    await again.datapath.activate(volume.uri[0], VM)
    assert len(other.cleared) == 1


async def test_a_pool_is_active_while_the_sr_is_attached_to_any_host(
    plugin: LvmPlugin, both: tuple[LvmPlugin, FakeLvm], sr: Handle
) -> None:
    """Else LVM does not say how full it is."""

    async def pool() -> commands.LogicalVolume:
        return (await plugin.group(SR).volumes())[commands.POOL]

    other = await plugin.sr.attach(SR, {"device": "/dev/sdx"}, HOST_B)
    await plugin.sr.detach(sr)
    assert (await pool()).used == 0.0
    await plugin.sr.detach(other)
    assert (await pool()).used is None
    sr = await plugin.sr.attach(SR, {"device": "/dev/sdx"}, HOST_A)
    await plugin.volume.create(sr, new(), EXTENT)
    assert (await plugin.sr.stat(sr)).free_space == (await plugin.sr.stat(sr)).total_space
    (await both[1](commands.deactivate_volume(f"VG_XenStorage-{SR}", commands.POOL)))
    stat = await plugin.sr.stat(sr)
    assert stat.total_space - stat.free_space == pytest.approx(EXTENT, abs=2), "what is promised, at most"


async def test_nothing_is_made_in_a_pool_whose_metadata_are_full(
    plugin: LvmPlugin, both: tuple[LvmPlugin, FakeLvm], sr: Handle
) -> None:
    volume = await plugin.volume.create(sr, new(), MIB)
    both[1].metadata_percent = "96.10"
    for work in (plugin.volume.create(sr, new(), MIB), plugin.volume.clone(sr, volume.key, new())):
        with pytest.raises(ApiError, match="SR_FULL"):
            await work


async def test_a_group_belongs_to_one_machine(plugin: LvmPlugin, sr: Handle, tmp_path: Path) -> None:
    """Several hosts may run there; LVM of two machines would destroy each other's changes."""
    await plugin.sr.attach(SR, {"device": "/dev/sdx"}, HOST_B)
    stranger, _ = plugin_in(tmp_path, "another")
    with pytest.raises(ApiError, match="SR_BACKEND_FAILURE_47") as refused:
        await stranger.sr.attach(SR, {"device": "/dev/sdx"}, HOST_B)
    assert refused.value.params[2] == (
        f"if that one is gone for good: vgchange --deltag xapi.machine.this VG_XenStorage-{SR}"
    )


async def test_the_system_activates_nothing_by_itself(both: tuple[LvmPlugin, FakeLvm], sr: Handle) -> None:
    [made] = [words for words in both[1].commands if words[1] == "vgcreate"]
    assert made[made.index("--setautoactivation") + 1] == "n"


async def test_a_sharable_volume_is_activated_by_several_hosts(plugin: LvmPlugin, sr: Handle) -> None:
    await plugin.sr.attach(SR, {"device": "/dev/sdx"}, HOST_B)
    volume = await plugin.volume.create(sr, NewVolume(uuid=new_uuid(), sharable=True), MIB)
    assert volume.sharable
    assert (await plugin.volume.stat(sr, volume.key)).sharable
    for host in (HOST_A, HOST_B):
        await plugin.datapath.activate(volume.uri[0], Domain(host=host, dp="vbd/vm/0"))


async def test_a_device_that_is_not_there_is_no_room_for_an_sr(plugin: LvmPlugin) -> None:
    assert [found.uuid for found in await plugin.sr.probe({"device": "/dev/blank"})] == [""]
    with pytest.raises(ApiError, match="SR_BACKEND_FAILURE_19"):
        await plugin.sr.probe({"device": "/dev/nowhere"})


@pytest.mark.parametrize("command", ["lvremove", "lvrename", "lvchange"])
async def test_a_revert_that_a_crash_interrupted_is_finished_or_never_was(
    both: tuple[LvmPlugin, FakeLvm], sr: Handle, tmp_path: Path, command: str
) -> None:
    plugin, fake = both
    volume = await plugin.volume.create(sr, new("disk"), MIB)
    snapshot = await plugin.volume.snapshot(sr, volume.key, new("before"))
    await plugin.volume.resize(sr, volume.key, 8 * MIB)

    async def dies(arguments: list[str]) -> Output:
        if arguments[1] == command:
            raise InterruptedError
        return await fake(arguments)

    plugin.group(SR)._run = dies
    with pytest.raises(InterruptedError):
        await plugin.volume.revert(sr, snapshot.key, volume.key)

    again, _ = plugin_in(tmp_path)
    handle = await again.sr.attach(SR, {"device": "/dev/sdx"}, HOST_A)
    found = await again.volume.stat(handle, volume.key)
    assert (found.name, found.uuid, found.virtual_size) == ("disk", volume.uuid, EXTENT)
    assert {each.key for each in await again.sr.ls(handle)} == {volume.key, snapshot.key}


async def test_lvm_s_own_words_reach_the_caller() -> None:
    """As it says on a machine without device mapper."""
    words = (
        "/dev/mapper/control: open failed: No such device\n  Failure to communicate with kernel device-mapper driver."
    )

    async def fails(_: list[str]) -> Output:
        return Output(5, "", words)

    plugin = LvmPlugin(fails, unasked)
    for work in (
        plugin.sr.create(SR, {"device": "/dev/sdx"}, "", ""),
        plugin.sr.attach(SR, {"device": "/dev/sdx"}, "h"),
    ):
        with pytest.raises(ApiError, match="SR_BACKEND_FAILURE_47") as error:
            await work
        assert "device-mapper driver" in error.value.params[2]


async def test_without_lvm_it_says_which_package_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.storage.plugins.program.SYSTEM_PATH", "/nonexistent")
    with pytest.raises(ApiError, match="lvm cannot be run; it comes with the Debian package lvm2"):
        await LvmPlugin().sr.create(SR, {"device": "/dev/sdx"}, "", "")
