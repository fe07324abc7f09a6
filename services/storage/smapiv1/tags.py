"""Tags in disks' `sm_config` by which drivers know which host uses a disk (`host_<reference>`).

They outlive a host that is killed, and a pool that a host has left: those that mean nobody any more have to go before a
disk is used.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from services.storage.smapiv1.rows import HOST_TAG, Row

if TYPE_CHECKING:
    from services.storage.smapiv1.plugin import Attached

log = logging.getLogger("storage.smapiv1")


def stale(rows: Mapping[str, Row], me: str, hosts: Iterable[str], active: Iterable[str]) -> Iterator[tuple[str, str]]:
    """References of disks and keys: of hosts that are not in the pool, and this host's own where it has not the disk.

    `active`: locations that this host has activated.
    """
    known, mine = set(hosts), set(active)
    for ref, row in rows.items():
        for key in row["sm_config"]:
            host = key.removeprefix(HOST_TAG)
            if key.startswith(HOST_TAG) and (host not in known or (host == me and row["location"] not in mine)):
                yield ref, key


def of_host(rows: Mapping[str, Row], host: str) -> list[tuple[str, str]]:
    key = HOST_TAG + host
    return [(ref, key) for ref, row in rows.items() if key in row["sm_config"]]


async def forget_stale(at: Attached) -> None:
    host = at.host
    hosts = await host.xapi.call("", "host.get_all")
    active = host.marks.activations(at.uuid)
    await remove(at, list(stale(await host.disks(at.sr), await host.ref(), hosts, active)))


async def remove(at: Attached, tags: list[tuple[str, str]]) -> None:
    for ref, key in tags:
        log.info("SR %s: disk %s has the tag %s of nobody; it is removed", at.uuid, ref, key)
        await at.host.xapi.call(at.sr, "VDI.remove_from_sm_config", ref, key)
