from __future__ import annotations

import os
import random
import struct
import threading
import uuid
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.storage.formats.interface import FormatError, Truncated
from services.storage.formats.vhd.chain import Chain, create_child, find_parent, parent_paths
from services.storage.formats.vhd.change import forget_data, resize, set_hidden, set_parent
from services.storage.formats.vhd.check import problems
from services.storage.formats.vhd.coalesce import coalesce
from services.storage.formats.vhd.create import Parent, create_differencing, create_dynamic, create_fixed
from services.storage.formats.vhd.difference import changed_ranges
from services.storage.formats.vhd.files import OsFile
from services.storage.formats.vhd.footer import DiskType
from services.storage.formats.vhd.header import RELATIVE
from services.storage.formats.vhd.image import Image
from services.storage.formats.vhd.reader import read_vhd
from tests.storage.formats import qemu
from tests.storage.formats.disks import Disk, Stream, scattered
from tests.storage.formats.files import MemoryFile
from tests.storage.formats.vhd_by_the_book import read_disk, write_differencing

MIB = 1 << 20
SECTOR = 512
SIZE = 5 * MIB + 3 * SECTOR

WRITES = st.lists(
    st.tuples(st.integers(0, SIZE // SECTOR - 1), st.integers(1, 5000), st.integers(1, 255)), min_size=1, max_size=6
)


def _write_all(disk: Image | Chain, writes: list[tuple[int, int, int]], model: bytearray) -> None:
    for first, count, fill in writes:
        begin = first * SECTOR
        end = min(begin + count * SECTOR, len(model))
        disk.write(begin, bytes([fill]) * (end - begin))
        model[begin:end] = bytes([fill]) * (end - begin)


def _dynamic(path: Path, size: int = SIZE) -> Image:
    return create_dynamic(OsFile(str(path), create=True), size)


def _child(path: Path, parent: Path, size: int = SIZE) -> Chain:
    create_child(str(path), str(parent))
    with Image.open(OsFile(str(path), writable=True), writable=True) as image:
        resize(image, size)
    return Chain.open(str(path), writable=True)


def _sound(path: Path) -> None:
    with OsFile(str(path)) as file:
        assert problems(file) == []


@given(WRITES, WRITES, WRITES)
@settings(max_examples=6, deadline=None)
def test_a_chain_reads_as_one_disk_by_us_and_by_the_book(
    tmp_path_factory: pytest.TempPathFactory,
    first: list[tuple[int, int, int]],
    second: list[tuple[int, int, int]],
    third: list[tuple[int, int, int]],
) -> None:
    folder = tmp_path_factory.mktemp("chain")
    model = bytearray(SIZE)
    with _dynamic(folder / "a.vhd") as image:
        _write_all(image, first, model)
    for name, below, writes in (("b", "a", second), ("c", "b", third)):
        with _child(folder / f"{name}.vhd", folder / f"{below}.vhd") as chain:
            assert chain.read(0, SIZE) == model
            _write_all(chain, writes, model)
            assert chain.read(0, SIZE) == model
        assert read_disk(folder / f"{name}.vhd") == model
        _sound(folder / f"{name}.vhd")
    with Chain.open(str(folder / "c.vhd")) as chain:
        covered = 0
        for offset, length, present in chain.extents(0, SIZE):
            assert offset == covered
            assert present or chain.read(offset, length) == bytes(length)
            covered += length
        assert covered == SIZE


@pytest.mark.parametrize("seed", range(4))
async def test_a_differencing_disk_written_by_the_book_is_read(tmp_path: Path, seed: int) -> None:
    mix = random.Random(seed)
    sectors = {mix.randrange(SIZE // SECTOR): mix.randbytes(SECTOR) for _ in range(10 * seed)}
    base, path = tmp_path / "base disk.vhd", tmp_path / "diff.vhd"
    model = scattered(SIZE, seed)
    with _dynamic(base) as image:
        image.write(0, bytes(model))
    sink = Disk(model)
    write_differencing(path, base, SIZE, sectors, mix)
    for number, data in sectors.items():
        model[number * SECTOR : (number + 1) * SECTOR] = data
    assert read_disk(path) == model
    with Chain.open(str(path), writable=True) as chain:
        assert chain.read(0, SIZE) == model
        await read_vhd(Stream(path.read_bytes()), sink, zero_absent=True)
        assert sink.content == model
        _write_all(chain, [(4000, 300, 9)], model)
    assert read_disk(path) == model
    _sound(path)


@given(WRITES, WRITES)
@settings(max_examples=6, deadline=None)
def test_a_child_is_coalesced_into_its_parent(
    tmp_path_factory: pytest.TempPathFactory,
    first: list[tuple[int, int, int]],
    second: list[tuple[int, int, int]],
) -> None:
    folder = tmp_path_factory.mktemp("coalesce")
    model = bytearray(SIZE)
    with _dynamic(folder / "a.vhd") as image:
        _write_all(image, first, model)
    with _child(folder / "b.vhd", folder / "a.vhd") as chain:
        _write_all(chain, second, model)
        with Image.open(OsFile(str(folder / "a.vhd"), writable=True), writable=True) as parent:
            written = coalesce(chain.leaf, parent)
            assert coalesce(chain.leaf, parent) == written > 0
    assert read_disk(folder / "a.vhd") == read_disk(folder / "b.vhd") == model
    _sound(folder / "a.vhd")


def test_a_child_is_coalesced_into_a_raw_parent(tmp_path: Path) -> None:
    raw, path = tmp_path / "base.raw", tmp_path / "c.vhd"
    model = scattered(SIZE, 1)
    raw.write_bytes(model)
    create_child(str(path), str(raw), raw_parent=True)
    with Chain.open(str(path), writable=True) as chain:
        assert chain.read(0, SIZE) == model
        _write_all(chain, [(100, 3000, 7)], model)
        with OsFile(str(raw), writable=True) as file:
            coalesce(chain.leaf, file)
    assert raw.read_bytes() == model


def test_qemu_reads_and_goes_on_writing_what_we_made(tmp_path: Path) -> None:
    path, model = tmp_path / "a.vhd", bytearray(SIZE)
    with _dynamic(path) as image:
        _write_all(image, [(0, 10, 1), (9000, 4000, 2)], model)
    assert qemu.info(path, "vpc")["virtual-size"] == SIZE
    assert qemu.convert(path, "vpc", tmp_path / "raw", "raw").read_bytes() == model
    with create_fixed(OsFile(str(tmp_path / "f.vhd"), create=True), SIZE) as image:
        image.write(0, bytes(model))
    assert qemu.convert(tmp_path / "f.vhd", "vpc", tmp_path / "raw", "raw").read_bytes() == model


@pytest.mark.parametrize("subformat", ["dynamic", "fixed"])
def test_we_read_and_write_what_qemu_made(tmp_path: Path, subformat: str) -> None:
    raw, path = tmp_path / "raw", tmp_path / "theirs.vhd"
    model = scattered(SIZE, 2)
    raw.write_bytes(model)
    qemu.convert(raw, "raw", path, "vpc", "-o", f"subformat={subformat},force_size=on")
    with Chain.open(str(path), writable=True) as chain:
        assert chain.read(0, SIZE) == model
        _write_all(chain, [(3, 1, 9), (5000, 4200, 8)], model)
    _sound(path)
    raw.write_bytes(model)
    qemu.compare(path, "vpc", raw, "raw")
    with _child(tmp_path / "child.vhd", path) as child:
        assert child.read(0, SIZE) == model


@pytest.mark.parametrize("device", [False, True])
@given(writes=WRITES)
@settings(max_examples=3, deadline=None)
def test_a_crash_at_any_write_leaves_a_sound_image_of_old_and_new_sectors(
    device: bool, writes: list[tuple[int, int, int]]
) -> None:
    old = bytearray(SIZE)
    file = MemoryFile(os.urandom(4096) * 3072 if device else b"", device)
    image = create_dynamic(file, SIZE)
    _write_all(image, [(4000, 200, 1)], old)
    image.close()
    image = Image.open(file := file.again(), writable=True)
    new = old[:]
    for write in writes:
        before = new[:]
        _write_all(image, [write], new)
        image.flush()
        for state in file.states():
            with Chain(["a"], [Image.open(state, writable=True)]) as crashed:
                found = crashed.read(0, SIZE)
                assert _is_mix(found, before, new)
                crashed.write(0, b"\xaa" * SECTOR)
                assert crashed.read(SECTOR, SIZE - SECTOR) == found[SECTOR:]
            assert problems(state) == []
        image = Image.open(file := file.again(), writable=True)


def _is_mix(found: bytes, one: bytearray, two: bytearray) -> bool:
    if found in (one, two):
        return True
    return all(
        found[at : at + SECTOR] in (one[at : at + SECTOR], two[at : at + SECTOR])
        for at in range(0, len(found), SECTOR)
        if found[at : at + SECTOR] != one[at : at + SECTOR]
    )


def _crashes(file: MemoryFile) -> list[Image]:
    """The image as each crash leaves it; headers are written in one piece."""
    return [Image.open(state, writable=True) for state in file.states()]


def test_growing_survives_a_crash_at_any_write() -> None:
    model = bytearray(SIZE)
    file = MemoryFile()
    image = create_dynamic(file, SIZE)
    _write_all(image, [(0, 5000, 1)], model)
    image.close()
    image = Image.open(file := file.again(), writable=True)
    resize(image, 5000 * MIB)
    assert image.size == 5000 * MIB
    image.write(4999 * MIB, b"z" * SECTOR)
    for crashed in _crashes(file):
        assert crashed.size in (SIZE, 5000 * MIB)
        assert Chain(["a"], [crashed]).read(0, SIZE) == model
    assert problems(file) == []
    assert image.max_size >= 5000 * MIB
    with pytest.raises(FormatError, match="cannot shrink"):
        resize(image, SIZE)


def test_a_table_with_room_grows_in_place() -> None:
    image = create_dynamic(file := MemoryFile(), SIZE, max_size=5000 * MIB)
    at = image.header.bat_offset
    resize(image, 5000 * MIB)
    assert image.header.bat_offset == at
    image.write(5000 * MIB - SECTOR, b"z" * SECTOR)
    assert problems(file) == []


def test_a_fixed_image_grows_with_zeros(tmp_path: Path) -> None:
    path, model = tmp_path / "f.vhd", scattered(SIZE, 3)
    with create_fixed(OsFile(str(path), create=True), SIZE) as image:
        image.write(0, bytes(model))
        resize(image, SIZE + SECTOR)
        resize(image, SIZE + MIB)
    assert read_disk(path) == bytes(model) + bytes(MIB)
    _sound(path)


def test_another_parent_survives_a_crash_at_any_write() -> None:
    old, new = Parent(uuid.uuid4(), "old.vhd", 1), Parent(uuid.uuid4(), "../deep/new base%20.vhd", 2)
    file = MemoryFile()
    image = create_differencing(file, SIZE, old)
    image.write(0, b"d" * MIB)
    image.close()
    image = Image.open(file := file.again(), writable=True)
    set_parent(image, new)
    assert image.header.parent_uuid == new.uuid
    assert image.header.parent_name == "new base%20.vhd"
    whole = [state for state in file.states() if not _torn_header(state)]
    for state in whole:
        crashed = Image.open(state, writable=True)
        parent = new if crashed.header.parent_uuid == new.uuid else old
        assert parent_paths(crashed)[RELATIVE] == (parent.path if parent is new else "./old.vhd")
        assert crashed.spans(0, MIB)[0].position is not None
    for number in range(200):
        set_parent(image, (old, new)[number % 2])
    assert problems(file) == []
    assert file.size() < 3 * MIB + 200 * SECTOR


def _torn_header(state: MemoryFile) -> bool:
    try:
        Image.open(state)
    except FormatError as error:
        return "header at 512: checksum" in str(error)
    return False


def test_a_parent_is_found_where_its_child_says(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "leaf").mkdir()
    parent, child = tmp_path / "base" / "a b%41é.vhd", tmp_path / "leaf" / "c.vhd"
    _dynamic(parent).close()
    with _child(child, parent) as chain:
        assert chain.paths == [str(child), str(parent)]
        assert chain.leaf.header.parent_name == parent.name
    moved = tmp_path / "leaf" / parent.name
    parent.rename(moved)
    with Image.open(OsFile(str(child))) as image:
        assert find_parent(image, str(child)) == str(moved)
    moved.unlink()
    with pytest.raises(FormatError, match="is not there"):
        Chain.open(str(child))
    _dynamic(moved).close()
    with pytest.raises(FormatError, match="its parent is"):
        Chain.open(str(child))


def test_a_chain_that_comes_back_to_itself_is_refused(tmp_path: Path) -> None:
    one, two = uuid.uuid4(), uuid.uuid4()
    for name, own, parent, path in (("1", one, two, "2.vhd"), ("2", two, one, "1.vhd")):
        create_differencing(OsFile(str(tmp_path / f"{name}.vhd"), create=True), SIZE, Parent(parent, path), own).close()
    with pytest.raises(FormatError, match="comes back"):
        Chain.open(str(tmp_path / "1.vhd"))


def test_a_child_may_be_larger_than_its_parent(tmp_path: Path) -> None:
    with _dynamic(tmp_path / "a.vhd") as image:
        image.write(0, b"a" * SIZE)
    with _child(tmp_path / "b.vhd", tmp_path / "a.vhd", SIZE + 3 * MIB) as chain:
        assert chain.read(0, chain.size) == b"a" * SIZE + bytes(3 * MIB)
        with (
            Image.open(OsFile(str(tmp_path / "a.vhd"), writable=True), writable=True) as parent,
            pytest.raises(FormatError, match="grow it before"),
        ):
            coalesce(chain.leaf, parent)


def test_hidden_marker_and_size_are_read_back_after_a_crash_at_any_write() -> None:
    image = create_dynamic(file := MemoryFile(), SIZE)
    file = file.again()
    image = Image.open(file, writable=True)
    set_hidden(image, True)
    assert {crashed.footer.hidden for crashed in _crashes(file)} == {True, False}
    assert Image.open(file).footer.hidden
    set_hidden(image, False)
    image.put_marker(3)
    found = Image.open(file)
    assert not found.footer.hidden
    assert found.batmap_header is not None
    assert found.batmap_header.marker == 3
    assert problems(file) == []


def test_data_can_be_forgotten() -> None:
    image = create_dynamic(file := MemoryFile(), SIZE)
    image.write(0, b"x" * SIZE)
    forget_data(image)
    assert list(image.allocated()) == []
    assert file.size() < MIB
    image.write(MIB, b"y" * SECTOR)
    assert Chain(["a"], [image]).read(0, SIZE) == bytes(MIB) + b"y" * SECTOR + bytes(SIZE - MIB - SECTOR)
    assert problems(file) == []


def test_zeroing_takes_no_room_in_a_disk_without_parent() -> None:
    image = create_dynamic(file := MemoryFile(), 4000 * MIB)
    before = file.size()
    image.zero(0, 4000 * MIB)
    assert file.size() == before
    image.write(0, b"x" * 2 * SECTOR)
    image.zero(0, SECTOR)
    assert Chain(["a"], [image]).read(0, 2 * SECTOR) == bytes(SECTOR) + b"x" * SECTOR


def test_a_full_device_refuses_blocks_and_stays_sound() -> None:
    file = MemoryFile(os.urandom(4 * MIB), device=True)
    image = create_dynamic(file, SIZE)
    image.write(0, b"x" * SECTOR)
    with pytest.raises(OSError, match="No space"):
        image.write(2 * MIB, b"x" * SECTOR)
    assert problems(file) == []
    assert Chain(["a"], [Image.open(file)]).read(0, SIZE) == b"x" * SECTOR + bytes(SIZE - SECTOR)


def test_damage_is_told_and_not_read_over() -> None:
    image = create_dynamic(file := MemoryFile(), SIZE)
    image.write(0, b"x" * SIZE)
    image.close()

    def damaged(at: int, data: bytes, cut: int = 0) -> MemoryFile:
        content = bytearray(file.content)
        content[at : at + len(data)] = data
        return MemoryFile(bytes(content[: len(content) - cut]))

    bat = image.header.bat_offset
    first = struct.unpack(">I", file.content[bat : bat + 4])[0]
    for wrong, message in (
        (damaged(bat + 4, struct.pack(">I", first)), "overlap"),
        (damaged(bat + 4, struct.pack(">I", first + 1)), "overlap"),
        (damaged(bat, struct.pack(">I", 1)), "lies in a structure"),
        (damaged(512, b"?"), "header at 512: begins with"),
        (damaged(0, b"?" * 512, 512), "footer at"),
        (MemoryFile(b"conectix"), "a file of 8 bytes"),
    ):
        with pytest.raises(FormatError, match=message):
            Image.open(wrong)
        assert problems(wrong) != []
    cut = damaged(0, b"", 3 * MIB)
    assert any("end at" in problem for problem in problems(cut))
    with pytest.raises(FormatError, match="end at"):
        Image.open(cut, writable=True)
    with pytest.raises(FormatError, match="the file has"):
        Chain(["a"], [Image.open(cut)]).read(0, SIZE)
    tail = damaged(file.size() - 512, b"?" * 512)
    assert any("footer at" in problem for problem in problems(tail))
    Image.open(tail, writable=True)
    assert problems(tail) == []


def test_two_terabytes_in_a_kilobyte_are_truncated() -> None:
    image = create_dynamic(file := MemoryFile(), 2040 << 30)
    image.close()
    for kept in (512, 1024, 1536, 4096):
        with pytest.raises(Truncated):
            Image.open(MemoryFile(bytes(file.content[:kept])))


@given(WRITES, WRITES, WRITES)
@settings(max_examples=5, deadline=None)
def test_what_two_disks_of_a_tree_differ_in_is_in_the_ranges_that_their_tables_tell(
    tmp_path_factory: pytest.TempPathFactory,
    below: list[tuple[int, int, int]],
    one: list[tuple[int, int, int]],
    other: list[tuple[int, int, int]],
) -> None:
    folder = tmp_path_factory.mktemp("difference")
    with _dynamic(folder / "base.vhd") as image:
        _write_all(image, below, bytearray(SIZE))
    for name, writes in (("one", one), ("other", other)):
        with _child(folder / f"{name}.vhd", folder / "base.vhd") as chain:
            _write_all(chain, writes, bytearray(SIZE))
    with Chain.open(str(folder / "one.vhd")) as disk, Chain.open(str(folder / "other.vhd")) as base:
        made = bytearray(base.read(0, SIZE))
        for offset, length in changed_ranges(disk, base):
            made[offset : offset + length] = disk.read(offset, length)
        assert made == disk.read(0, SIZE)
        assert list(changed_ranges(disk, disk)) == []


def test_a_fixed_disk_that_holds_a_vhd_is_a_fixed_disk(tmp_path: Path) -> None:
    inner = create_dynamic(file := MemoryFile(), MIB)
    inner.write(0, b"x" * SECTOR)
    content = bytes(file.content)
    with create_fixed(OsFile(str(tmp_path / "f.vhd"), create=True), len(content)) as image:
        image.write(0, content)
    with Image.open(OsFile(str(tmp_path / "f.vhd"))) as image:
        assert image.type is DiskType.FIXED
        assert image.read_at(0, len(content)) == content


def test_threads_may_write_and_read_at_once(tmp_path: Path) -> None:
    model = scattered(16 * MIB, 9, 40)
    with _dynamic(tmp_path / "a.vhd", 16 * MIB) as image:
        parts = range(0, 16 * MIB, 128 * SECTOR)

        def work(turn: int) -> None:
            for at in parts[turn::4]:
                image.write(at, bytes(model[at : at + 128 * SECTOR]))
                assert Chain(["a"], [image]).read(at, 128 * SECTOR) == model[at : at + 128 * SECTOR]

        threads = [threading.Thread(target=work, args=(turn,)) for turn in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert read_disk(tmp_path / "a.vhd") == model
    _sound(tmp_path / "a.vhd")
