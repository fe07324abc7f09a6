"""Processes that are not our children, by an identity that is never used again: pid and start time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple


class Identity(NamedTuple):
    """`started`: clock ticks from the machine's boot to the process's start."""

    pid: int
    started: int


def identify(pid: int) -> Identity | None:
    """None for a process that is not there or has ended and only waits for its parent."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat[stat.rindex(")") + 2 :].split()
    return None if fields[0] in "ZX" else Identity(pid, int(fields[19]))


class Handle:
    """An open hold on a process: it names that process even when its pid is used again."""

    def __init__(self, descriptor: int, identity: Identity) -> None:
        self.identity = identity
        self._descriptor = descriptor
        self._watched = False

    @classmethod
    def open(cls, identity: Identity) -> Handle | None:
        """None when that process is gone."""
        try:
            descriptor = os.pidfd_open(identity.pid)
        except ProcessLookupError:
            return None
        if identify(identity.pid) != identity:
            os.close(descriptor)
            return None
        return cls(descriptor, identity)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._descriptor, signal.SIGKILL)

    def on_exit(self, callback: Callable[[], None]) -> None:
        def exited() -> None:
            self._unwatch()
            callback()

        asyncio.get_running_loop().add_reader(self._descriptor, exited)
        self._watched = True

    def close(self) -> None:
        self._unwatch()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _unwatch(self) -> None:
        if self._watched:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            self._watched = False


async def end(identity: Identity, timeout: float, *, grace: float = 0.0) -> bool:
    """Kills the process, `grace` seconds from now if it has not ended by then. Whether it is gone after `timeout`."""
    handle = Handle.open(identity)
    if handle is None:
        return True
    try:
        ended = asyncio.Event()
        handle.on_exit(ended.set)
        if grace:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace):
                    await ended.wait()
        if not ended.is_set():
            handle.kill()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await ended.wait()
        return ended.is_set()
    finally:
        handle.close()


def command_lines() -> Iterator[tuple[int, list[str]]]:
    """Of every process of the machine that this user may look at."""
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                content = Path(entry.path, "cmdline").read_bytes()
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
            yield int(entry.name), [os.fsdecode(word) for word in content.split(b"\0")[:-1]]


def with_argument(option: str) -> Iterator[tuple[Identity, str]]:
    """Processes that were given `option VALUE`, with the value."""
    for pid, words in command_lines():
        if option in words[:-1]:
            identity = identify(pid)
            if identity is not None:
                yield identity, words[words.index(option) + 1]
