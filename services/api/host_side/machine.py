"""The machine under a host: its clock, name, SSH server, power. Reading is for everybody.

Changing it needs the owner's permission (option `manage_host`): many hosts may share one machine, or live in containers
that share its clock and kernel; a simulated host has none. Without it every change says so and does nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import re
import shutil
import socket
import time
import zoneinfo
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Final

from services.api.host_side.programs import Ended, TimedOut, run
from shared.bus.contract import Empty
from shared.contracts.host import (
    Clock,
    Flag,
    Name,
    Names,
    Ntp,
    NtpServers,
    PowerOff,
    Seconds,
    SetTime,
    Text,
)
from shared.errors import ApiError, internal_error

PROGRAM_TIMEOUT: Final = 20.0
POWER_DELAY: Final = 10.0
"""Seconds from the answer to the end of the machine, in which the answer gets to the client."""

CHRONY: Final = Path("/etc/chrony/chrony.conf")
SHELL_PROFILE: Final = Path("/etc/profile.d/xapi-console-timeout.sh")
CPU_FOLDER: Final = Path("/sys/devices/system/cpu")

Spawn = Callable[[Coroutine[Any, Any, None], str], object]
"""Starts what outlives the call that asked for it, under a name."""


class Machine:
    """`managed`: whether it may be changed."""

    def __init__(self, managed: bool, spawn: Spawn) -> None:
        self._managed = managed
        self._spawn = spawn

    async def permitted(self, _: Empty | None = None) -> Empty:
        """Raises OPERATION_NOT_ALLOWED."""
        if not self._managed:
            raise ApiError("OPERATION_NOT_ALLOWED", "The toolstack may not change this machine (option manage_host).")
        return Empty()

    # ---- the clock

    async def clock(self, _: Empty) -> Clock:
        now = time.time()
        local = time.strftime("%Y%m%dT%H:%M:%S", time.localtime(now))
        return Clock(time=now, local=local, zone=await asyncio.to_thread(time_zone), synchronized=is_synchronized())

    async def time_zones(self, _: Empty) -> Names:
        return Names(names=sorted(await asyncio.to_thread(zoneinfo.available_timezones)))

    async def set_time_zone(self, request: Name) -> Empty:
        await self.permitted()
        if request.name not in await asyncio.to_thread(zoneinfo.available_timezones):
            raise ApiError("INVALID_VALUE", "timezone", request.name)
        await asyncio.to_thread(_replace_link, Path("/etc/localtime"), Path("/usr/share/zoneinfo") / request.name)
        time.tzset()
        return Empty()

    async def set_time(self, request: SetTime) -> Empty:
        await self.permitted()
        try:
            time.clock_settime(time.CLOCK_REALTIME, request.time)
        except OSError as error:
            raise internal_error(f"the clock cannot be set: {error.strerror}") from None
        return Empty()

    async def ntp_servers(self, _: Empty) -> NtpServers:
        """Those that chrony asks; without chrony there are none."""
        if shutil.which("chronyc") is None:
            return NtpServers(status={})
        return NtpServers(status=sources((await _run("chronyc", "-c", "-n", "sources")).stdout))

    async def set_ntp(self, request: Ntp) -> Empty:
        """Through chrony's configuration, in which nothing is lost: see `chrony_configuration`."""
        await self.permitted()
        if not CHRONY.exists():
            raise ApiError("INVALID_NTP_CONFIG", "chrony is not installed on the host")
        if request.mode == "Disabled":
            await _checked("systemctl", "disable", "--now", "chrony")
            return Empty()
        text = await asyncio.to_thread(CHRONY.read_text)
        await asyncio.to_thread(_write, CHRONY, chrony_configuration(text, request.mode, request.servers))
        await _checked("systemctl", "enable", "chrony")
        await _checked("systemctl", "restart", "chrony")
        return Empty()

    # ---- name, shells, power

    async def set_host_name(self, request: Name) -> Empty:
        await self.permitted()
        try:
            socket.sethostname(request.name)
            await asyncio.to_thread(_write, Path("/etc/hostname"), request.name + "\n")
        except OSError as error:
            raise internal_error(f"the host's name cannot be set: {error.strerror}") from None
        return Empty()

    async def ssh(self, request: Flag) -> Empty:
        await self.permitted()
        await _checked("systemctl", "enable" if request.value else "disable", "--now", "ssh")
        return Empty()

    async def shell_timeout(self, request: Seconds) -> Empty:
        await self.permitted()
        if request.seconds:
            text = f"# Written for host.console_idle_timeout.\nTMOUT={request.seconds}\nreadonly TMOUT\nexport TMOUT\n"
            await asyncio.to_thread(_write, SHELL_PROFILE, text)
        else:
            SHELL_PROFILE.unlink(missing_ok=True)
        return Empty()

    async def power_off(self, request: PowerOff) -> Empty:
        await self.permitted()
        action = "reboot" if request.reboot else "poweroff"
        if shutil.which("systemctl") is None:
            raise internal_error(f"the host has no systemctl, so nothing here can {action} it")

        async def end() -> None:
            await asyncio.sleep(POWER_DELAY)
            await _checked("systemctl", action)

        self._spawn(end(), action)
        return Empty()

    # ---- the kernel

    async def kernel_log(self, _: Empty) -> Text:
        ended = await _run("dmesg")
        if ended.status:
            raise ApiError("OPERATION_NOT_ALLOWED", ended.stderr.strip() or "the kernel's log cannot be read")
        return Text(text=ended.stdout)

    async def max_cstate(self, request: Text) -> Empty:
        """`text`: as `host.max_cstate`."""
        await self.permitted()
        await asyncio.to_thread(_limit_sleep, request.text)
        return Empty()


# ---- reading


def time_zone() -> str:
    """Of the machine; UTC when it does not say."""
    target = os.path.realpath("/etc/localtime")
    _, found, name = target.partition("/zoneinfo/")
    return name if found and name in zoneinfo.available_timezones() else "UTC"


class _Timex(ctypes.Structure):
    """struct timex of adjtimex(2), as far as it is needed; the rest is room."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("room", ctypes.c_long * 60),
    )


_SYNCHRONIZED_WITHIN: Final = 16_000_000
"""Microseconds that the kernel's clock may be off at most: as systemd has it."""


def is_synchronized() -> bool:
    """Whether something keeps the kernel's clock right."""
    found = _Timex()
    state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(found))
    return bool(state >= 0 and found.maxerror < _SYNCHRONIZED_WITHIN)


_STATES: Final = {
    "*": "current",
    "+": "combined",
    "-": "not combined",
    "?": "unreachable",
    "x": "may be in error",
    "~": "too variable",
}


def sources(text: str) -> dict[str, str]:
    """From `chronyc -c sources`: a line each, of mode, state, address and more."""
    rows = (line.split(",") for line in text.splitlines())
    return {row[2]: _STATES.get(row[1], row[1]) for row in rows if len(row) > 2}


_SET_ASIDE: Final = "#xapi# "
_ADDED: Final = " # by xapi"
_FIXED: Final = re.compile(r"\s*(server|pool|peer)\s")
_FROM_DHCP: Final = re.compile(r"\s*sourcedir\s+\S*dhcp")


def chrony_configuration(text: str, mode: str, servers: Sequence[str]) -> str:
    """Chrony's configuration for a mode of `host.ntp_mode`. Lines that name other sources are set aside and come back.

    Factory: all that the file had. DHCP: only what DHCP brings. Custom: only `servers`.
    """
    lines = [line.removeprefix(_SET_ASIDE) for line in text.splitlines() if not line.endswith(_ADDED)]
    aside = {"Factory": (), "DHCP": (_FIXED,), "Custom": (_FIXED, _FROM_DHCP)}[mode]
    lines = [_SET_ASIDE + line if any(kind.match(line) for kind in aside) else line for line in lines]
    if mode == "Custom":
        lines += [f"server {server} iburst{_ADDED}" for server in servers]
    return "\n".join(lines) + "\n"


# ---- changing


async def _run(*command: str) -> Ended:
    try:
        return await run(command, timeout=PROGRAM_TIMEOUT, environment={"PATH": os.defpath + ":/usr/sbin:/sbin"})
    except (OSError, TimedOut) as error:
        raise internal_error(f"{command[0]}: {error}") from None


async def _checked(*command: str) -> None:
    ended = await _run(*command)
    if ended.status:
        raise internal_error(f"{' '.join(command)}: {ended.stderr.strip() or f'exit status {ended.status}'}")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    new.write_text(text)
    new.replace(path)


def _replace_link(path: Path, target: Path) -> None:
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    new.symlink_to(target)
    new.replace(path)


def _limit_sleep(limit: str) -> None:
    """Idle states deeper than the limit are switched off, all others on."""
    deepest = int(limit.split(",")[0]) if limit else None
    states = list(CPU_FOLDER.glob("cpu[0-9]*/cpuidle/state[0-9]*"))
    if not states:
        raise ApiError("VALUE_NOT_SUPPORTED", "max_cstate", limit, "the kernel offers no idle states on this host")
    for state in states:
        number = re.search(r"\d+$", state.name)
        off = deepest is not None and number is not None and int(number.group()) > deepest
        with contextlib.suppress(FileNotFoundError):  # a CPU that is taken offline meanwhile
            (state / "disable").write_text("1" if off else "0")
