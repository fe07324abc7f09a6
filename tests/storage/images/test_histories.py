"""Random histories of disks that share data, compared with a model after each few steps."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from services.storage.plugins.interface import Unimplemented
from tests.storage.images.world import CLUSTER, World, rounds
from tests.storage.support import HOST_A, SR, file_plugin

STEPS = 24
KINDS = ["write"] * 6 + ["snapshot"] * 4 + ["clone"] * 2 + ["destroy"] * 4 + ["coalesce"] * 3 + ["resize", "revert"]
MOST = 7
"""Disks at a time."""


@pytest.mark.parametrize("seed", range(rounds(3)))
async def test_disks_hold_what_was_written_whatever_becomes_of_their_images(tmp_path: Path, seed: int) -> None:
    plugin = file_plugin()
    configuration = await plugin.sr.create(SR, {"location": str(tmp_path / "sr")}, "", "")
    sr = await plugin.sr.attach(SR, configuration, HOST_A)
    world = World(plugin, sr, tmp_path, random.Random(seed))
    first = await world.create(16 * CLUSTER + 512)
    await world.track(first)
    await world.write(first)
    for number in range(STEPS):
        await _step(world)
        if number % 8 == 7:
            await _compare(world)
    await plugin.coalesce(sr)
    await _compare(world)
    for key in list(world.disks):
        await world.destroy(key)
    await world.check()
    assert [path.name for path in (tmp_path / "sr").iterdir() if path.name[0] != "."] == []
    await plugin.close()


async def _step(world: World) -> None:
    kind = world.random.choice(KINDS)
    if len(world.disks) >= MOST and kind in ("snapshot", "clone"):
        kind = "destroy"
    keys = sorted(world.disks) if kind in ("snapshot", "clone", "destroy") else sorted(world.writable)
    snapshots = sorted(set(world.disks) - world.writable)
    if (kind == "destroy" and len(world.disks) < 3) or (kind == "revert" and not snapshots):
        kind = "write"
        keys = sorted(world.writable)
    if not keys and kind != "coalesce":
        await world.create(8 * CLUSTER)
        return
    key = world.random.choice(keys) if keys else ""
    world.log.append(f"{kind} {key[:8]}")
    match kind:
        case "write":
            await world.write(key)
        case "snapshot":
            await world.snapshot(key)
        case "clone":
            await world.clone(key)
        case "destroy":
            await world.destroy(key)
        case "resize":
            await world.resize(key)
        case "revert":
            await world.revert(world.random.choice(snapshots), key)
        case "coalesce":
            await world.plugin.coalesce(world.sr)


async def _compare(world: World) -> None:
    await world.check()
    for key in sorted(world.parents):
        for older in world.lineage(key):
            if len(world.disks[older]) <= len(world.disks[key]):
                await world.check_changes(older, key)
    one, other = (world.random.choice(sorted(world.disks)) for _ in range(2))
    try:
        await world.check_compare(one, other)
    except Unimplemented:
        tree = world.plugin.attached(world.sr).folder.tree()
        assert set(tree.chain_of(one)).isdisjoint(tree.chain_of(other))
