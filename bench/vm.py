"""`python -m bench.vm`: VM.start and a getter through a whole pool on the simulator, over HTTP with the real client.

The references are upstream's own figures with its own simulator on such a machine, not measured here: they are
constants, so the ratios move with this machine's mood. What can be measured beside them (a bare request to the same API
process) is.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xmlrpc.client import Transport

import psutil
import XenAPI

from bench.__main__ import table
from bench.result import Result
from pool import waterfall
from shared.trace import new_traceparent

STARTS = 60
STORM = 200
CLIENTS = 16
GETS = 2000
TRACED = 20

UPSTREAM_START_MS = 128.0
AIM_START_MS = 30.0
UPSTREAM_STORM = 8.5
AIM_STORM = 80.0
UPSTREAM_GET_CPU_MS = 0.25
UPSTREAM_GET_P50_MS = 0.30


class _Traced(Transport):
    """Sends a W3C trace context with each call."""

    def __init__(self) -> None:
        super().__init__()
        self.traceparent = ""

    def send_headers(self, connection: Any, headers: Any) -> None:
        super().send_headers(connection, headers)
        if self.traceparent:
            connection.putheader("traceparent", self.traceparent)


@contextmanager
def running_pool() -> Iterator[Path]:
    """Three hosts on the simulator, in a folder of their own."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        directory = Path(name) / "p"
        command = [sys.executable, "-m", "pool", "--dir", str(directory)]
        up = [*command, "up", "--hosts", "3", "--backend", "simulator", "--base-address", "127.0.3.11"]
        subprocess.run(up, check=True, stdout=subprocess.DEVNULL)
        try:
            yield directory
        finally:
            subprocess.run([*command, "down"], check=True, stdout=subprocess.DEVNULL)


def environment(directory: Path) -> dict[str, str]:
    lines = (directory / "env").read_text().splitlines()
    words = [line.removeprefix("export ").partition("=") for line in lines if "=" in line]
    return {name: value.strip("'\"") for name, _, value in words}


def connect(env: dict[str, str], transport: Transport | None = None) -> Any:
    session = XenAPI.Session(env["XAPI_URL"], transport=transport)
    session.login_with_password(env["XAPI_USER"], env["XAPI_PASSWORD"], "1.0", f"bench {threading.get_ident()}")
    return session


def new_vm(api: Any, name: str) -> str:
    vm: str = api.VM.clone(api.VM.get_by_name_label("Tiny guest")[0], name)
    api.VM.provision(vm)
    return vm


def timed(work: Callable[[], object]) -> float:
    """Milliseconds."""
    begin = time.perf_counter()
    work()
    return (time.perf_counter() - begin) * 1000


def starts(api: Any) -> list[float]:
    vm = new_vm(api, "bench")
    samples = []
    for number in range(STARTS + 5):
        spent = timed(lambda: api.VM.start(vm, False, False))
        if number >= 5:
            samples.append(spent)
        api.VM.hard_shutdown(vm)
    api.VM.destroy(vm)
    return samples


class Clients:
    """`CLIENTS` threads, each with a session of its own."""

    def __init__(self, env: dict[str, str]) -> None:
        self._env = env
        self._local = threading.local()
        self._threads = ThreadPoolExecutor(CLIENTS)

    def each(self, vms: list[str], work: Callable[[Any, str], object]) -> float:
        """Does it for every VM; the seconds it took."""
        list(self._threads.map(lambda _: self._api(), range(CLIENTS * 4)))  # everybody is logged in before it begins
        begin = time.perf_counter()
        list(self._threads.map(lambda vm: work(self._api().VM, vm), vms))
        return time.perf_counter() - begin

    def _api(self) -> Any:
        if not hasattr(self._local, "session"):
            self._local.session = connect(self._env)
        return self._local.session.xenapi

    def close(self) -> None:
        self._threads.shutdown()


def storm(env: dict[str, str], api: Any) -> float:
    """Starts a second, with `CLIENTS` clients at once."""
    vms = [new_vm(api, f"storm {number}") for number in range(STORM)]
    clients = Clients(env)
    spent = clients.each(vms, lambda vm_api, vm: vm_api.start(vm, False, False))
    clients.each(vms, lambda vm_api, vm: vm_api.hard_shutdown(vm))
    clients.each(vms, lambda vm_api, vm: vm_api.destroy(vm))
    clients.close()
    return STORM / spent


def api_process(directory: Path) -> psutil.Process:
    return psutil.Process(int((directory / "host1" / "api.pid").read_text().split()[0]))


def getter(directory: Path, api: Any) -> tuple[float, float]:
    """(p50 in milliseconds as the client sees it, server CPU per call in milliseconds)."""
    vm = next(iter(api.VM.get_all()))
    process = api_process(directory)
    for _ in range(200):
        api.VM.get_power_state(vm)
    before = process.cpu_times()
    samples = [timed(lambda: api.VM.get_power_state(vm)) for _ in range(GETS)]
    after = process.cpu_times()
    cpu = (after.user - before.user + after.system - before.system) * 1000 / GETS
    return statistics.median(samples), cpu


def where_the_time_goes(directory: Path, env: dict[str, str]) -> None:
    """Mean own time of each span of a few traced starts."""
    transport = _Traced()
    session = connect(env, transport)
    vm = new_vm(session.xenapi, "traced")
    own: dict[tuple[int, str, str], list[float]] = defaultdict(list)
    for _ in range(TRACED):
        transport.traceparent = new_traceparent()
        trace = transport.traceparent[3:35]
        session.xenapi.VM.start(vm, False, False)
        transport.traceparent = ""
        session.xenapi.VM.hard_shutdown(vm)
        time.sleep(0.05)
        for line in waterfall.lines(waterfall.read(directory, trace)):
            name = f"{line.span.kind} {line.span.name}"
            own[line.depth, line.span.service, name].append(line.own_ns / 1e6)
    session.xenapi.VM.destroy(vm)
    print("bench: one VM.start, mean own time of its spans")
    for (depth, service, name), samples in own.items():
        print(f"  {'  ' * depth}{service}: {name}: {sum(samples) / TRACED:.2f} ms")


def main() -> list[Result]:
    with running_pool() as directory:
        env = environment(directory)
        session = connect(env)
        api = session.xenapi
        samples = starts(api)
        rate = storm(env, api)
        p50, cpu = getter(directory, api)
        where_the_time_goes(directory, env)
        session.xenapi.session.logout()
    median = statistics.median(samples)
    print(
        f"bench: VM.start p50 {median:.1f} ms, best {min(samples):.1f}, p95 {sorted(samples)[int(STARTS * 0.95)]:.1f}"
    )
    print(f"bench: storm of {STORM} starts by {CLIENTS} clients: {rate:.0f} starts/s on {os.cpu_count()} CPUs")
    return [
        compared("VM.start p50", median, "ms", UPSTREAM_START_MS, AIM_START_MS / UPSTREAM_START_MS),
        compared("start storm", rate, "/s", UPSTREAM_STORM, AIM_STORM / UPSTREAM_STORM, "more"),
        compared("VM.get_power_state p50", p50, "ms", UPSTREAM_GET_P50_MS, 1.0),
        compared("VM.get_power_state CPU", cpu, "ms", UPSTREAM_GET_CPU_MS, 1.0),
    ]


def compared(name: str, value: float, unit: str, upstream: float, aim: float, better: str = "less") -> Result:
    return Result(
        name=name, value=value, unit=unit, reference_name="upstream (noted)", reference=upstream, aim=aim, better=better
    )


if __name__ == "__main__":
    print(table(main()))
