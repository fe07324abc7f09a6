"""One live domain: the QMP connection to its process, and how it comes to its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from qemu.qmp import EventListener, QMPClient, QMPError, Runstate

from services.vm.backend import DiskNews, Domain, OnStopped, Stopped, StopReason
from services.vm.qemu import event_log, process
from services.vm.qemu.disks import nodes
from services.vm.qemu.paths import DomainPaths
from services.vm.qemu.process import Handle
from services.vm.qemu.serial import SerialConsole
from shared.errors import ApiError

log = logging.getLogger("vm.qemu")

CONNECT_TIMEOUT = 5.0
COMMAND_TIMEOUT = 20.0
QUIT_TIMEOUT = 2.0
FLUSH_TIME = 30.0
"""Seconds that QEMU gets to write its caches to the disks after `quit`."""
KILL_TIME = 15.0
"""Seconds that the kernel gets to end a killed process; more than that hangs in a device."""
DISCONNECT_TIME = 1.0
"""Seconds in which a QMP connection ends by itself after its process."""
ACKNOWLEDGE_TIMEOUT = 60.0
LONGEST_PAUSE = 5.0

REASONS = {
    "guest-shutdown": StopReason.SHUTDOWN,
    "guest-reset": StopReason.REBOOT,
    "guest-panic": StopReason.CRASH,
}
"""Of a SHUTDOWN event. Those left out are of the host's making, and QEMU ends after them."""
CRASHED = ("guest-panicked", "internal-error")
"""Of `query-status`."""


class NoAnswer(ApiError):
    """QEMU is there and did not answer in time."""


class _Listener(EventListener):
    """Hands events over at once."""

    def __init__(self, receive: Callable[[str, dict[str, Any]], None]) -> None:
        super().__init__()
        self._receive = receive

    async def put(self, event: Mapping[str, Any]) -> None:
        self._receive(event["event"], event.get("data", {}))


class Guest:
    """Close it when the service lets go of it, `end` it when the domain is to be no more.

    `unplug_refused`: ids of devices that it said it would not let go of.
    """

    def __init__(
        self, domain: Domain, paths: DomainPaths, handle: Handle, on_stopped: OnStopped, disk_news: DiskNews
    ) -> None:
        self.domain = domain
        self.paths = paths
        self.stopped: StopReason | None = None
        self._handle = handle
        self._on_stopped = on_stopped
        self._disk_news = disk_news
        self._ending = False
        self._client: QMPClient | None = None
        self._connected = asyncio.Event()
        self._exited = asyncio.Event()
        self._powerdown = asyncio.Event()
        self._console: SerialConsole | None = None
        self._pulse = asyncio.Event()
        self.closed = False
        self.unplug_refused: set[str] = set()
        handle.on_exit(self._exit)
        self._task = asyncio.create_task(self._stay_connected(), name=f"QMP of domain {domain.domid}")
        self._task.add_done_callback(_tell_failure)

    async def connected(self, timeout: float) -> bool:
        """Waits for the QMP connection and a look at what was missed. False when the process or time ends first."""
        if not self._connected.is_set():
            waits = [asyncio.create_task(event.wait()) for event in (self._connected, self._exited)]
            try:
                await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
        return self._connected.is_set()

    @property
    def pid(self) -> int:
        return self._handle.identity.pid

    @property
    def gone(self) -> bool:
        """Whether its process has ended, and has nothing open any more."""
        return self._exited.is_set()

    async def execute(self, command: str, **arguments: Any) -> Any:
        """A QMP command's answer. Raises INTERNAL_ERROR with QEMU's words."""
        if self.closed and not self._exited.is_set():
            await asyncio.Event().wait()  # the service ends: the next one answers whoever waits for this
        if not await self.connected(CONNECT_TIMEOUT) or self._client is None:
            raise ApiError(
                "INTERNAL_ERROR", f"{command}: no connection to the QEMU process of VM {self.domain.vm.uuid}"
            )
        try:
            async with asyncio.timeout(COMMAND_TIMEOUT):
                return await self._client.execute(command, arguments or None)
        except TimeoutError:
            raise NoAnswer("INTERNAL_ERROR", f"QEMU did not answer {command} in {COMMAND_TIMEOUT:.0f} s") from None
        except QMPError as error:
            raise ApiError("INTERNAL_ERROR", f"{command}: {error}") from error

    def moment(self) -> asyncio.Event:
        """For `next_event`: taken before a look at QEMU's state, so that nothing is missed in between."""
        return self._pulse

    async def next_event(self, moment: asyncio.Event, timeout: float) -> None:
        """Returns when anything has been heard of QEMU since that moment, its process has ended or time is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await moment.wait()

    def _heard(self) -> None:
        self._pulse.set()
        self._pulse = asyncio.Event()

    async def running(self) -> bool:
        status: dict[str, Any] = await self.execute("query-status")
        return bool(status["running"])

    async def press_power_button(self) -> None:
        self._powerdown.clear()
        await self.execute("system_powerdown")
        try:
            async with asyncio.timeout(ACKNOWLEDGE_TIMEOUT):
                await self._powerdown.wait()
        except TimeoutError:
            raise ApiError("VM_FAILED_SHUTDOWN_ACKNOWLEDGMENT", self.domain.vm.ref) from None

    async def console(self) -> str:
        if self._console is None or not self._console.connected:
            await self._close_console()
            self._console = await SerialConsole.open(self.paths)
        return str(self._console.path)

    async def end(self) -> None:
        """Ends the process: flushes its caches if it still listens, else at once."""
        self._ending = True
        grace = 0.0
        if self._client is not None:
            try:
                async with asyncio.timeout(QUIT_TIMEOUT):
                    await self._client.execute("quit")
                grace = FLUSH_TIME
            except (QMPError, TimeoutError) as error:
                log.info("domain %d does not take `quit` and is killed: %r", self.domain.domid, error)
        if not await process.end(self._handle.identity, KILL_TIME, grace=grace):
            raise ApiError("INTERNAL_ERROR", f"the QEMU process {self._handle.identity.pid} cannot be killed")
        self._exited.set()
        self._heard()
        await asyncio.wait({self._task}, timeout=DISCONNECT_TIME)
        await self.close()

    async def close(self) -> None:
        """Lets go of the domain; its process is left alone."""
        self._ending = True
        self.closed = True
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._close_console()
        self._handle.close()

    # ---- what the process does

    def _exit(self) -> None:
        self._exited.set()
        self._heard()
        self._stop(event_log.how_it_ended(self.paths.events))

    def _event(self, name: str, data: dict[str, Any]) -> None:
        if name == "SHUTDOWN" and data.get("reason") in REASONS:
            self._stop(REASONS[data["reason"]])
        elif name == "GUEST_PANICKED":
            self._stop(StopReason.CRASH)
        elif name == "POWERDOWN":
            self._powerdown.set()
        elif name == "DEVICE_DELETED" and "device" in data:
            self._disk_news.changed(self.domain.vm.uuid)
        elif name == "DEVICE_UNPLUG_GUEST_ERROR" and "device" in data:
            self.unplug_refused.add(str(data["device"]))
        elif name == "DEVICE_TRAY_MOVED" and data.get("tray-open"):
            self._disk_news.changed(self.domain.vm.uuid)
        elif name == "BLOCK_IO_ERROR":
            self._disk_error(data)
        self._heard()

    def _disk_error(self, data: dict[str, Any]) -> None:
        log.warning("domain %d: error of disk %s: %s", self.domain.domid, data.get("node-name"), data.get("reason"))
        device = nodes.device_of(str(data.get("node-name", "")))
        if data.get("action") == "stop":
            self._disk_news.stalled(self.domain.vm.uuid)
        elif device:
            self._disk_news.failed(self.domain.vm.uuid, device)

    def _stop(self, reason: StopReason) -> None:
        if self.stopped is None and not self._ending:
            self.stopped = reason
            self._on_stopped(Stopped(self.domain.vm.uuid, self.domain.domid, reason))

    async def _look(self, client: QMPClient) -> None:
        """What was missed while there was no connection."""
        async with asyncio.timeout(COMMAND_TIMEOUT):
            answer: Any = await client.execute("query-status")
        status = answer["status"]
        if status == "shutdown":
            self._stop(REASONS.get(event_log.last_shutdown_reason(self.paths.events), StopReason.SHUTDOWN))
        elif status in CRASHED:
            self._stop(StopReason.CRASH)

    # ---- the connection

    async def _stay_connected(self) -> None:
        pause, again = 0.02, False
        while not self._exited.is_set():
            client = QMPClient(f"domain {self.domain.domid}")
            client.events.event_filter = lambda _: False  # it would keep all of them for ever
            client.register_listener(_Listener(self._event))
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    await client.connect(str(self.paths.qmp))
                await self._look(client)
                self._client = client
                self._connected.set()
                self._heard()
                if again:  # who knows what happened meanwhile
                    self._disk_news.changed(self.domain.vm.uuid)
                    self._disk_news.stalled(self.domain.vm.uuid)
                pause, again = 0.02, True
                while client.runstate is Runstate.RUNNING:
                    await client.runstate_changed()
            except (QMPError, OSError, TimeoutError) as error:
                log.log(
                    logging.WARNING if pause >= LONGEST_PAUSE else logging.DEBUG,
                    "no QMP connection to domain %d: %r",
                    self.domain.domid,
                    error,
                )
            finally:
                self._connected.clear()
                self._client = None
                await _quietly(client.disconnect())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._exited.wait()
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _close_console(self) -> None:
        if self._console is not None:
            await self._console.close()
            self._console = None


def _tell_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.error("%s failed", task.get_name(), exc_info=task.exception())


async def _quietly(disconnecting: Awaitable[None]) -> None:
    """The library raises here what ended the connection; that is known already, or it was us."""
    try:
        await disconnecting
    except (QMPError, OSError, EOFError, AssertionError) as error:
        log.debug("QMP disconnected: %r", error)
