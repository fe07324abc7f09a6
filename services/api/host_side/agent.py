"""The API process itself: started again when somebody asks, what it is doing, where its log goes."""

from __future__ import annotations

import asyncio
import logging
import logging.handlers
import socket
import sys
import threading
import traceback
from typing import Final

from services.api.host_side.machine import Spawn
from services.api.timings import Timings
from shared import logs
from shared.bus.contract import Empty
from shared.contracts.host import RESTART_DELAY, CallTiming, CallTimings, Seconds, Syslog, Text
from shared.errors import ApiError
from shared.service import Service

log = logging.getLogger("api.host")

SYSLOG_PORT: Final = 514
STAY_DOWN: Final = "stay-down"
"""File in a service's folder: it is not to be started until the pool is."""


class Agent:
    def __init__(self, service: Service, timings: Timings, spawn: Spawn) -> None:
        self._service = service
        self._timings = timings
        self._spawn = spawn
        self._syslog: logging.handlers.SysLogHandler | None = None
        service.on_stop(self._stop)

    async def restart(self, request: Seconds) -> Empty:
        """The supervisor starts what has ended."""
        self._spawn(self._end_soon(request.seconds), "restart")
        return Empty()

    async def shut_down(self, _: Empty) -> Empty:
        """The supervisor leaves a service alone as long as its folder says so."""
        (self._service.state_dir / STAY_DOWN).touch()
        self._spawn(self._end_soon(RESTART_DELAY), "shutdown")
        return Empty()

    async def _end_soon(self, delay: int) -> None:
        await asyncio.sleep(delay)
        log.warning("ending, as somebody asked for it")
        self._service.stopping.set()

    async def tasks(self, _: Empty) -> Text:
        """Where each asyncio task and each thread is now."""
        frames = sys._current_frames()
        parts = []
        for task in sorted(asyncio.all_tasks(), key=lambda task: task.get_name()):
            stack = task.get_stack(limit=1)
            where = f"{stack[0].f_code.co_filename}:{stack[0].f_lineno}" if stack else "not started"
            parts.append(f"task {task.get_name()}: {where}")
        for thread in threading.enumerate():
            frame = frames.get(thread.ident or 0)
            where = traceback.format_stack(frame, limit=1)[0].strip() if frame is not None else "ended"
            parts.append(f"thread {thread.name}: {where}")
        return Text(text="\n".join(parts))

    async def timings(self, _: Empty) -> CallTimings:
        found = self._timings.summary()
        return CallTimings(
            timings={
                name: CallTiming(calls=calls, mean=mean, deviation=deviation)
                for name, (calls, mean, deviation) in found.items()
            }
        )

    async def syslog(self, request: Syslog) -> Empty:
        """Lines go by UDP, as they are. Raises INVALID_VALUE for a name that nobody knows."""
        handler = None
        if request.destination:
            address = await _address(request.destination)
            handler = logging.handlers.SysLogHandler(address=address)
            handler.setFormatter(logs.JsonFormatter(self._service.name, ""))
        await self._stop()
        if handler is not None:
            logging.getLogger().addHandler(handler)
            self._syslog = handler
        return Empty()

    async def _stop(self) -> None:
        if self._syslog is not None:
            logging.getLogger().removeHandler(self._syslog)
            self._syslog.close()
            self._syslog = None


async def _address(destination: str) -> tuple[str, int]:
    host, colon, port = destination.rpartition(":") if destination.count(":") == 1 else (destination, "", "")
    number = int(port) if port.isdecimal() and int(port) < 65536 else SYSLOG_PORT
    if colon and not port.isdecimal():
        raise ApiError("INVALID_VALUE", "syslog_destination", destination)
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, number, family=socket.AF_INET, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError):
        raise ApiError("INVALID_VALUE", "syslog_destination", destination) from None
    address, chosen = found[0][4][:2]
    return str(address), int(chosen)
