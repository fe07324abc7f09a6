"""A file in memory that remembers what was done to it, so that every state a crash can leave can be looked at."""

from __future__ import annotations

from collections.abc import Iterator


class MemoryFile:
    """`device`: of a size that is given, with old content where nothing was written."""

    def __init__(self, content: bytes = b"", device: bool = False) -> None:
        self.content = bytearray(content)
        self.fixed_size = device
        self._before = bytes(content)
        self._done: list[tuple[int, bytes | None]] = []

    def size(self) -> int:
        return len(self.content)

    def pread(self, offset: int, length: int) -> bytes:
        return bytes(self.content[offset : offset + length])

    def pwrite(self, offset: int, data: bytes | memoryview) -> None:
        self._done.append((offset, bytes(data)))
        _apply(self.content, offset, bytes(data))
        assert not self.fixed_size or len(self.content) == len(self._before)

    def truncate(self, size: int) -> None:
        assert not self.fixed_size
        self._done.append((size, None))
        _apply(self.content, size, None)

    def flush(self) -> None: ...

    def close(self) -> None: ...

    def states(self) -> Iterator[MemoryFile]:
        """What the file was after each thing that was done, and in the middle of each write; the first is the start."""
        content = bytearray(self._before)
        yield MemoryFile(bytes(content), self.fixed_size)
        for offset, data in self._done:
            if data is not None and len(data) > 512:
                torn = bytearray(content)
                _apply(torn, offset, data[: len(data) // 1024 * 512])
                yield MemoryFile(bytes(torn), self.fixed_size)
            _apply(content, offset, data)
            yield MemoryFile(bytes(content), self.fixed_size)

    def again(self) -> MemoryFile:
        """The same content, with nothing done yet."""
        return MemoryFile(bytes(self.content), self.fixed_size)


def _apply(content: bytearray, offset: int, data: bytes | None) -> None:
    if data is None:
        if offset < len(content):
            del content[offset:]
        else:
            content.extend(bytes(offset - len(content)))
        return
    if offset > len(content):
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data
