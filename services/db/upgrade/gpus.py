"""GPUs from before there were types of virtual ones: each was handed to one VM as a whole."""

from __future__ import annotations

from collections.abc import Iterator

from services.db.upgrade.rule import Surroundings, new_ref
from shared.contracts.db import Change, Create, Update
from shared.store import Store
from shared.vm_defaults import WHOLE_GPU


def _whole_gpu(store: Store) -> tuple[str, list[Change]]:
    """The type's reference, and what makes it if it is not there."""
    for ref, row in store.rows("VGPU_type").items():
        if row["implementation"] == WHOLE_GPU["implementation"]:
            return ref, []
    ref = new_ref()
    return ref, [Create(cls="VGPU_type", ref=ref, fields=WHOLE_GPU)]


def types_of_gpus(store: Store, _: Surroundings) -> Iterator[Change]:
    """The one that the host needs for its own display is handed to nobody."""
    gpus = store.rows("PGPU")
    if not gpus:
        return
    whole, made = _whole_gpu(store)
    yield from made
    for ref, gpu in gpus.items():
        types = [] if gpu["is_system_display_device"] else [whole]
        fields = {"supported_VGPU_types": types, "enabled_VGPU_types": types}
        yield Update(cls="PGPU", ref=ref, fields=fields)


def types_of_virtual_gpus(store: Store, _: Surroundings) -> Iterator[Change]:
    virtual = store.rows("VGPU")
    if not virtual:
        return
    whole, made = _whole_gpu(store)
    yield from made
    for ref in virtual:
        yield Update(cls="VGPU", ref=ref, fields={"type": whole})
