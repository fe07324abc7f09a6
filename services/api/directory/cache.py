"""Logins that succeeded a short while ago, so that a client that logs in for every call does not ask the directory for
each. Passwords are kept as salted scrypt hashes, which take as long to try here as anywhere.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, TypeVar

from services.api.identity import Identity
from shared import passwords

THREADS: Final = 4

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class _Remembered:
    hashed: str
    identity: Identity
    until: float


class LoginCache:
    """One entry for each user name; the one used longest ago goes first. `clock`: seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._entries: OrderedDict[str, _Remembered] = OrderedDict()
        self._epoch = 0
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="login-cache")

    @property
    def epoch(self) -> int:
        """Changes when all is forgotten: what was found out before must not be remembered after."""
        return self._epoch

    def clear(self) -> None:
        self._epoch += 1
        self._entries.clear()

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def __len__(self) -> int:
        return len(self._entries)

    async def find(self, user: str, password: str) -> Identity | None:
        """None unless this was the user's password within the time; whether it still is, nobody has asked since."""
        entry = self._entries.get(user)
        if entry is None or self._clock() >= entry.until:
            self._entries.pop(user, None)
            return None
        matches = await self._in_thread(lambda: passwords.verify(password, entry.hashed))
        if not matches or self._entries.get(user) is not entry:  # forgotten meanwhile
            return None
        self._entries.move_to_end(user)
        return entry.identity

    async def remember(
        self, user: str, password: str, identity: Identity, *, size: int, seconds: float, epoch: int
    ) -> None:
        """`size`: entries at most. `epoch`: as it was before the directory was asked."""
        if size <= 0 or seconds <= 0:
            return
        until = self._clock() + seconds
        hashed = await self._in_thread(lambda: passwords.hash_password(password))
        if epoch != self._epoch:
            return
        self._entries[user] = _Remembered(hashed, identity, until)
        self._entries.move_to_end(user)
        while len(self._entries) > size:
            self._entries.popitem(last=False)

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)
