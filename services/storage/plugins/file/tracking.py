"""Changed blocks of disks (CBT): found from which clusters the images above a disk's last snapshot hold.

Images say it as exactly as they hold the data, because it is the same write: neither kill -9 nor a power loss can leave
a change that is not told, and there is nothing to be disabled after one. What images cannot say any more is kept in
logs: the changes between two snapshots, when the later one is made, and the changes in an image that is merged away.
More than what changed may be told (clusters that were written before tracking began, or with what they held already),
never less.

Each tracked disk names its parent, the snapshot that it continues; snapshots whose data were destroyed stay in that
line. These functions block; the caller holds the SR's guard.
"""

from __future__ import annotations

import uuid

import msgspec

from services.storage.plugins.errors import Failure, backend_failure
from services.storage.plugins.file.changes import BLOCK, Bitmap
from services.storage.plugins.file.folder import Folder, Sidecar, Tracking, backing_name, first, sync
from services.storage.plugins.file.tree import Merge, Tree
from services.storage.plugins.interface import Changed
from shared.errors import ApiError


def begin(folder: Folder, key: str) -> None:
    """From now on: what its topmost image holds already is told as changed too."""
    side = folder.disk(key)
    if side.tracking is None:
        since = backing_name(folder.header(folder.top(key)))
        folder.write_sidecar(key, msgspec.structs.replace(side, tracking=Tracking(since=since)))


def end(folder: Folder, key: str) -> None:
    """What was known of it is forgotten."""
    side = folder.disk(key)
    if side.tracking is not None:
        folder.write_sidecar(key, msgspec.structs.replace(side, tracking=None))
        folder.collect_garbage()


def of_snapshot(folder: Folder, key: str, base: str) -> Tracking | None:
    """What a snapshot of a disk, of the image `base`, knows: all that changed since the disk's parent."""
    side = folder.disk(key)
    if side.tracking is None or side.read_only:
        return None
    bits = _changes(folder, side, folder.chain(key), upto=base)
    return Tracking(parent=side.tracking.parent, since=base, log=_store(folder, bits))


def continue_from(folder: Folder, key: str, snapshot: str, base: str) -> None:
    """The disk's changes are those since a snapshot of it, just made. Were this not reached, they would be those since
    an earlier one, and the snapshot could not be compared with the disk.
    """
    side = folder.disk(key)
    if side.tracking is not None and not side.read_only and side.tracking.parent != snapshot:
        folder.write_sidecar(key, msgspec.structs.replace(side, tracking=Tracking(parent=snapshot, since=base)))


def reverted(folder: Folder, side: Sidecar, snapshot: str, source: Sidecar, base: str) -> Tracking | None:
    """What a disk that got a snapshot's content knows: it continues that one, if that is tracked too."""
    if side.tracking is None:
        return None
    if source.tracking is not None:
        return Tracking(parent=snapshot, since=base)
    bits = Bitmap(folder.header(base).virtual_size)
    bits.add_all()
    return Tracking(parent=side.tracking.parent, since=base, log=_store(folder, bits))


def before_merge(folder: Folder, tree: Tree, merge: Merge, stays: str) -> None:
    """What the images cannot say any more when two are one is put into logs now. `stays`: the name that remains.

    Until the merge is done, more is told than changed.
    """
    for key in tree.users(merge.top):
        side = folder.read_sidecar(key)
        if side.tracking is None or side.tracking.since not in (merge.top, merge.base):
            continue
        tracking = msgspec.structs.replace(side.tracking, since=stays)
        if side.tracking.since == merge.base:
            held = Bitmap(folder.header(merge.top).virtual_size)
            for offset, length in folder.allocated(merge.top):
                held.add(offset, length)
            if tracking.log:
                held.unite(folder.changes(tracking.log).read_bytes())
            tracking = msgspec.structs.replace(tracking, log=_store(folder, held))
        if tracking != side.tracking:
            folder.write_sidecar(key, msgspec.structs.replace(side, tracking=tracking))


def blocks_leaf(folder: Folder, tree: Tree, merge: Merge) -> bool:
    """Whether a disk's own image is what tells its changes: merged, it could not tell new writes from old ones."""
    leaf = tree.leaf(merge.top)
    if leaf is None:
        return False
    tracking = folder.read_sidecar(leaf.key).tracking
    return tracking is not None and tracking.since == merge.base


def forget(folder: Folder, key: str) -> None:
    """A disk goes: who continues it knows its changes from now on, and continues its parent."""
    gone = folder.read_sidecar(key)
    if gone.tracking is None:
        return
    _, sidecars = folder.names()
    for child in sidecars:
        side = folder.read_sidecar(child)
        if side.hidden or side.tracking is None or side.tracking.parent != key:
            continue
        log = Bitmap(max(_size(folder, child, side), gone.virtual_size))
        for name in (side.tracking.log, gone.tracking.log):
            if name:
                log.unite(folder.changes(name).read_bytes())
        tracking = msgspec.structs.replace(side.tracking, parent=gone.tracking.parent, log=_store(folder, log))
        folder.write_sidecar(child, msgspec.structs.replace(side, tracking=tracking))


def changed(folder: Folder, key: str, later: str) -> Changed:
    """What differs between a snapshot and a later disk of its line. Raises SR_BACKEND_FAILURE_459, _460."""
    older, newer = folder.disk(key), folder.disk(later)
    if key == later:
        raise backend_failure(Failure.CHANGED_BLOCKS, "a disk cannot be compared with itself", key)
    for name, side in ((key, older), (later, newer)):
        if side.tracking is None:
            raise backend_failure(Failure.CHANGED_BLOCKS, f"changes of the disk {name} are not tracked", name)
    size = _size(folder, later, newer)
    if _size(folder, key, older) > size:
        raise backend_failure(Failure.CBT_SIZES, f"the disk {key} is larger than {later}", f"{key} {later}")
    bits = Bitmap(size)
    at, seen = later, set[str]()
    while at != key:
        found = _find(folder, at)
        if found is None or found.tracking is None or at in seen:
            raise backend_failure(
                Failure.CHANGED_BLOCKS, f"the disks {key} and {later} are unrelated", f"{key} {later}"
            )
        seen.add(at)
        bits.unite(bytes(_changes(folder, found, [] if found.empty else folder.chain(at))))
        at = found.tracking.parent
    return Changed(granularity=BLOCK, bitmap=bytes(bits))


def _changes(folder: Folder, side: Sidecar, chain: list[str], upto: str = "") -> Bitmap:
    """Of a tracked disk, since its parent. `upto`: leaves out what the images above this one hold."""
    assert side.tracking is not None
    size = folder.header(chain[0]).virtual_size if chain else side.virtual_size
    bits = Bitmap(size)
    if side.tracking.log:
        bits.unite(folder.changes(side.tracking.log).read_bytes())
    if side.tracking.since and chain and side.tracking.since not in chain:
        bits.add_all()
        return bits
    begin = chain.index(upto) if upto else 0
    end = chain.index(side.tracking.since) if side.tracking.since in chain else len(chain)
    for name in chain[begin:end]:
        for offset, length in folder.allocated(name):
            bits.add(offset, length)
    return bits


def _find(folder: Folder, key: str) -> Sidecar | None:
    if not key:
        return None
    try:
        return folder.disk(key)
    except ApiError as error:
        if error.code != "VDI_MISSING":
            raise
        return None


def _size(folder: Folder, key: str, side: Sidecar) -> int:
    return folder.header(first(key, side)).virtual_size if not side.empty else side.virtual_size


def _store(folder: Folder, bits: Bitmap) -> str:
    """Durably, under a name that nobody refers to yet."""
    name = str(uuid.uuid4())
    path = folder.changes(name)
    path.write_bytes(bytes(bits))
    sync(path)
    return name
