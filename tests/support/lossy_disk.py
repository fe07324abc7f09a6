"""A disk that loses what was not synced: a model of the page cache, at the level of files.

Writes, renames and removals go to the real files at once, so that everybody in the process and its children sees them,
as they see the page cache. Beside them an *image* is kept of what a power cut would leave: `sync` takes a file's bytes
and length into it, `sync_folder` the folder's names. `lose` puts the image in the place of the real files, after the
process was killed.

What the model covers: bytes and lengths that were not synced; names (new, renamed, removed) whose folder was not
synced; with `torn`, any part of that which the system may have written by itself: single sectors of 512 bytes in any
order, the file's old or new length or one between, with zeros where no sector came, and the first few of the changes of
names, in their order. `O_DSYNC` is honoured. `forget` is what an I/O error does to dirty pages: they count as clean,
and no later sync writes them (`faulty_disk.py` calls it).

What it does not cover: folders that are new themselves, damage to what was synced, sectors of an intermediate state
that was overwritten before any sync, files that are opened past the `Disk`, and disks that lie about a flush.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from services.db.disk import Disk

SECTOR: Final = 512
CHUNK: Final = 1024 * 1024


class LossyDisk(Disk):
    """For files below `root`; others are as they are. `image`: a folder of its own, outside `root`, same file system.

    Safe in forked children: what they sync is durable. A file that is there when the image is made counts as durable.
    """

    def __init__(self, root: Path, image: Path) -> None:
        self._root = root
        self._image = Image(image)
        self._files: dict[int, int] = {}
        """Descriptor to inode."""
        self._at_once: set[int] = set()
        self._dirty: dict[int, list[tuple[int, int]]] = {}
        present = [path for path in sorted(root.rglob("*")) if path.is_file() and not path.is_symlink()]
        for path in present:
            self._dirty[self._image.known(path)] = [(0, path.stat().st_size)]
        self._image.agree({str(path): path.stat().st_ino for path in present})

    def open(self, path: Path, flags: int, mode: int = 0o600) -> int:
        inside = path.is_relative_to(self._root)
        size = path.stat().st_size if inside and path.exists() else -1
        descriptor = super().open(path, flags, mode)
        if not inside:
            return descriptor
        inode = os.fstat(descriptor).st_ino
        if size < 0:
            self._image.created(path, inode)
        elif flags & os.O_TRUNC:
            self._dirty.setdefault(inode, []).append((0, size))
        self._files[descriptor] = inode
        if flags & os.O_DSYNC:
            self._at_once.add(descriptor)
        return descriptor

    def close(self, descriptor: int) -> None:
        self._files.pop(descriptor, None)
        self._at_once.discard(descriptor)
        super().close(descriptor)

    def write(self, descriptor: int, data: bytes | memoryview, offset: int) -> int:
        count = super().write(descriptor, data, offset)
        if (inode := self._files.get(descriptor)) is not None:
            self._dirty.setdefault(inode, []).append((offset, offset + count))
            if descriptor in self._at_once:
                self._take(descriptor, inode)
        return count

    def truncate(self, descriptor: int, length: int) -> None:
        size = self.size(descriptor)
        super().truncate(descriptor, length)
        if (inode := self._files.get(descriptor)) is not None:
            self._dirty.setdefault(inode, []).append((min(size, length), max(size, length)))

    def sync(self, descriptor: int) -> None:
        if (inode := self._files.get(descriptor)) is not None:
            self._take(descriptor, inode)

    def _take(self, descriptor: int, inode: int) -> None:
        self._image.take(inode, self._dirty.pop(inode, []), super().size(descriptor))

    def forget(self, descriptor: int) -> None:
        """What is dirty of the file will never be durable."""
        self._dirty.pop(self._files.get(descriptor, -1), None)

    def rename(self, old: Path, new: Path) -> None:
        super().rename(old, new)
        if old.is_relative_to(self._root):
            self._image.note("rename", old, str(new))

    def unlink(self, path: Path) -> None:
        super().unlink(path)
        if path.is_relative_to(self._root):
            self._image.note("unlink", path, "")

    def sync_folder(self, folder: Path) -> None:
        if folder.is_relative_to(self._root):
            self._image.take_names(folder)


class Image:
    """What is durable.

    names.json   {"names": {path: inode}, "until": {folder: time of the newest change of its names that is durable}}
    changes      one line for each change of a name: [time in ns, "create"|"rename"|"unlink", path, inode or new path]
    files/<n>    the durable bytes of inode n
    held/<n>     a hard link to it: its number is not used again, and its newest bytes can be read after the crash
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for name in ("files", "held"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / "lock").touch()
        (folder / "changes").touch()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self._folder / "lock").open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def known(self, path: Path) -> int:
        """Returns its inode; one that was not known is durable as it is."""
        inode = path.stat().st_ino
        if not (held := self._held(inode)).exists():
            os.link(path, held)
            _copy(path, self._durable(inode))
            with self._locked():
                names, until = self._names()
                self._save({**names, str(path): inode}, until)
        return inode

    def agree(self, present: dict[str, int]) -> None:
        """A process that was killed may have changed a name without telling: that is not durable yet."""
        names, until = self._names()
        for _, kind, path, to in self._pending(until):
            _change(names, kind, path, to)
        for path in names.keys() - present.keys():
            self.note("unlink", Path(path), "")
        for path, inode in present.items():
            if names.get(path) != inode:
                self.note("create", Path(path), inode)

    def created(self, path: Path, inode: int) -> None:
        held = self._held(inode)
        if not held.exists():
            os.link(path, held)
            self._durable(inode).touch()
        self.note("create", path, inode)

    def note(self, kind: str, path: Path, to: int | str) -> None:
        line = json.dumps([time.monotonic_ns(), kind, str(path), to]) + "\n"
        descriptor = os.open(self._folder / "changes", os.O_WRONLY | os.O_APPEND)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)

    def take(self, inode: int, ranges: list[tuple[int, int]], size: int) -> None:
        """Those bytes of the file as it is now, and its length, are durable."""
        with self._held(inode).open("rb") as held, self._durable(inode).open("r+b") as durable:
            for begin, end in _merged(ranges, size):
                for at in range(begin, end, CHUNK):
                    held.seek(at)
                    data = held.read(min(CHUNK, end - at))
                    durable.seek(at)
                    if durable.read(len(data)) != data:
                        durable.seek(at)
                        durable.write(data)
            durable.flush()
            durable.truncate(size)

    def take_names(self, folder: Path) -> None:
        now = time.monotonic_ns()
        with self._locked():
            names, until = self._names()
            for _, kind, path, to in self._pending(until):
                if Path(path).parent == folder:
                    _change(names, kind, path, to)
            self._save(names, {**until, str(folder): now})

    def lose(self, rng: random.Random, torn: bool) -> None:
        """The real files become what is durable; with `torn` some of the rest is there too."""
        names, until = self._names()
        pending = self._pending(until)
        registered = {
            *names,
            *(path for _, _, path, _ in pending),
            *(str(to) for _, kind, _, to in pending if kind == "rename"),
        }
        for _, kind, path, to in pending[: rng.randint(0, len(pending)) if torn else 0]:
            _change(names, kind, path, to)
        for inode in set(names.values()):
            _restore(self._held(inode), self._durable(inode), rng, torn)
        for path in registered:
            Path(path).unlink(missing_ok=True)
        for path, inode in names.items():
            os.link(self._held(inode), path)
        for kind in ("held", "files"):
            for left in (self._folder / kind).iterdir():
                if int(left.name) not in names.values():
                    left.unlink()
        (self._folder / "changes").write_text("")
        self._save(names, {})

    def _held(self, inode: int) -> Path:
        return self._folder / "held" / str(inode)

    def _durable(self, inode: int) -> Path:
        return self._folder / "files" / str(inode)

    def _names(self) -> tuple[dict[str, int], dict[str, int]]:
        path = self._folder / "names.json"
        if not path.exists():
            return {}, {}
        read = json.loads(path.read_text())
        return read["names"], read["until"]

    def _save(self, names: dict[str, int], until: dict[str, int]) -> None:
        new = self._folder / "names.json.new"
        new.write_text(json.dumps({"names": names, "until": until}))
        new.rename(self._folder / "names.json")

    def _pending(self, until: dict[str, int]) -> list[tuple[int, str, str, int | str]]:
        lines = (json.loads(line) for line in (self._folder / "changes").read_text().splitlines())
        return [
            (at, kind, path, to) for at, kind, path, to in sorted(lines) if at > until.get(str(Path(path).parent), 0)
        ]


def _change(names: dict[str, int], kind: str, path: str, to: int | str) -> None:
    if kind == "create":
        names[path] = int(to)
    elif kind == "rename":
        if path in names:
            names[str(to)] = names.pop(path)
    else:
        names.pop(path, None)


def _merged(ranges: list[tuple[int, int]], size: int) -> list[tuple[int, int]]:
    """Sorted, without overlaps, within the file."""
    result: list[tuple[int, int]] = []
    for begin, end in sorted((begin, min(end, size)) for begin, end in ranges):
        if begin >= end:
            continue
        if result and begin <= result[-1][1]:
            result[-1] = (result[-1][0], max(end, result[-1][1]))
        else:
            result.append((begin, end))
    return result


def _restore(held: Path, durable: Path, rng: random.Random, torn: bool) -> None:
    """Makes `held` what is durable (or, torn, something between), and `durable` the same."""
    share = rng.choice((0.0, 0.5, 0.9, 1.0)) if torn else 0.0
    with held.open("r+b") as cached, durable.open("r+b") as kept:
        new, old = os.fstat(cached.fileno()).st_size, os.fstat(kept.fileno()).st_size
        length = rng.choice((old, new, (old + new) // 2)) if torn else old
        for at in range(0, length, CHUNK):
            cached.seek(at)
            kept.seek(at)
            count = min(CHUNK, length - at)
            newer, older = cached.read(count).ljust(count, b"\0"), kept.read(count).ljust(count, b"\0")
            if newer == older:
                continue
            mixed = _mixed(newer, older, rng, share)
            for file in (cached, kept):
                file.seek(at)
                file.write(mixed)
        for file in (cached, kept):
            file.flush()
            file.truncate(length)


def _mixed(newer: bytes, older: bytes, rng: random.Random, share: float) -> bytes:
    sectors = []
    for at in range(0, len(older), SECTOR):
        chosen = newer if rng.random() < share else older
        sectors.append(chosen[at : at + SECTOR])
    return b"".join(sectors)


def _copy(source: Path, to: Path) -> None:
    """With its holes."""
    with source.open("rb") as file, to.open("wb") as copy:
        size = os.fstat(file.fileno()).st_size
        copy.truncate(size)
        at = 0
        while at < size:
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:
                break  # only a hole is left
            end = os.lseek(file.fileno(), at, os.SEEK_HOLE)
            file.seek(at)
            copy.seek(at)
            copy.write(file.read(end - at))
            at = end


def lose(image: Path, rng: random.Random, *, torn: bool = False) -> None:
    """The power is cut: nobody may have the files open. `torn`: the system had begun to write what was not synced."""
    Image(image).lose(rng, torn)


def forget_image(image: Path) -> None:
    shutil.rmtree(image, ignore_errors=True)
