"""kill -9 of the service, as far as its files can tell: from one effect on, nothing it tries has any effect.

An effect is what others can see: a file that appears, changes its name or vanishes, a program that is started, a call
to the hypervisor.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from services.storage.plugins.file import qcow2


class Killed(BaseException):
    """The process does not exist any more."""


class Death:
    """`at`: the effect before which the process dies, the first is 1."""

    def __init__(self, at: int) -> None:
        self._at, self._count = at, 0
        self.happened = False

    def effect(self) -> None:
        self._count += 1
        if self._count >= self._at:
            self.happened = True
            raise Killed

    @contextmanager
    def coming(self) -> Iterator[None]:
        """Kills whoever works meanwhile."""
        with pytest.MonkeyPatch.context() as patch:
            for owner, name in (
                *((os, name) for name in ("replace", "unlink", "link")),
                (asyncio, "create_subprocess_exec"),
                (qcow2, "create"),
                (Path, "write_bytes"),
            ):
                patch.setattr(owner, name, self._mortal(getattr(owner, name)))
            try:
                yield
            except Killed:
                assert self.happened

    def _mortal(self, work: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.effect()
            return work(*args, **kwargs)

        return call
