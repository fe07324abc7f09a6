"""Stops a pool, always by pid, and looks that nothing is left of it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from pool import broker, configuration, folder, plan, processes, programs, supervisor
from pool.plan import Plan, PlanError
from pool.processes import Process
from pool.programs import Program
from pool.rabbitmq import BrokerError
from pool.service_tools import ModuleFailed, run_module

SUPERVISOR_TIMEOUT = 90.0
SERVICE_TIMEOUT = 15.0
GUEST_TIMEOUT = 5.0
STRAY_TIMEOUT = 5.0


class DownError(Exception):
    """Something of the pool is still there; the text says what."""


def down(directory: Path, say: Callable[[str], None]) -> None:
    """Data stays. Raises `DownError`, `FolderError`."""
    if not directory.is_dir():
        say(f"there is no pool in {directory}")
        return
    with folder.alone(directory):
        ran = stop(directory, say)
    say("the pool is stopped; its data is kept" if ran else f"no pool runs in {directory}")


def clean(directory: Path, say: Callable[[str], None]) -> None:
    """Stops the pool if it runs, and removes its folder."""
    if not directory.is_dir():
        say(f"there is no pool in {directory}")
        return
    if not (directory / "pool.json").exists() and set(os.listdir(directory)) - {"lock"}:
        raise DownError(f"{directory} does not look like a pool's folder; it is not removed")
    with folder.alone(directory):
        stop(directory, say)
        shutil.rmtree(directory)
    say(f"{directory} is removed")


def stop(directory: Path, say: Callable[[str], None]) -> bool:
    """Whether anything ran. Whatever can be stopped is, then what could not be raises `DownError`."""
    problems: list[str] = []
    pool, listed = _known(directory, problems)
    ran = _supervisor(directory, say)
    ran = _services(directory, listed, say) or ran
    ran = _guests(directory, say) or ran
    if pool is not None:
        _links(pool, problems)
        _views(directory, pool, problems)
        _sockets(directory, pool)
        try:
            broker.remove(directory, [queue for program in listed for queue in _queues(program, pool)])
        except BrokerError as error:
            problems.append(str(error))
    try:
        broker.stop(directory)
    except BrokerError as error:
        problems.append(str(error))
    ran = _strays(directory, say) or ran
    _mounts(directory, problems)
    for name in ("env", "supervisor.json", "supervisor.pid", "supervisor.lock"):
        (directory / name).unlink(missing_ok=True)
    for program in listed:
        program.pid_file(directory).unlink(missing_ok=True)
    if problems:
        raise DownError("\n".join(problems))
    return ran


def _known(directory: Path, problems: list[str]) -> tuple[Plan | None, list[Program]]:
    """What the folder says about its pool; a pool whose files are damaged is stopped all the same, by its mark."""
    try:
        return plan.load(directory), programs.load(directory)
    except FileNotFoundError:
        return None, []
    except (PlanError, OSError, msgspec.DecodeError) as error:
        problems.append(str(error))
        return None, []


def _supervisor(directory: Path, say: Callable[[str], None]) -> bool:
    process = supervisor.find(directory)
    if process is None:
        return False
    say("stopping the services, then the broker")
    with process:
        if not process.stop(SUPERVISOR_TIMEOUT):
            say("the supervisor did not end by itself and was killed")
    return True


def _services(directory: Path, listed: list[Program], say: Callable[[str], None]) -> bool:
    """Those whose supervisor was killed."""
    left = 0
    for stage in sorted({program.stage for program in listed}, reverse=True):
        with contextlib.ExitStack() as stack:
            running = [
                stack.enter_context(process)
                for program in listed
                if program.stage == stage
                and (process := processes.find(program.pid_file(directory), program.argv)) is not None
            ]
            if running and not left:
                say("stopping services that a killed supervisor left")
            left += len(running)
            for pid in processes.stop_all(running, SERVICE_TIMEOUT):
                say(f"pid {pid} did not end by itself and was killed")
    return left > 0


def _strays(directory: Path, say: Callable[[str], None]) -> bool:
    """Whatever else descends from the pool: children of processes that were killed."""
    with contextlib.ExitStack() as stack:
        running = [stack.enter_context(process) for process in _marked(directory)]
        for process in running:
            say(f"stopping what was left: pid {process.pid} ({' '.join(processes.command_line(process.pid))[:100]})")
        processes.stop_all(running, STRAY_TIMEOUT)
    return bool(running)


def _marked(directory: Path) -> Iterator[Process]:
    ancestors = _ancestors()
    for pid in processes.marked(directory):
        if pid not in ancestors and (process := Process.open(pid)) is not None:
            yield process


def _ancestors() -> set[int]:
    """This process and those above it: a command run by a pool's own process must not end itself."""
    found, pid = set(), os.getpid()
    while pid > 1:
        found.add(pid)
        pid = processes.parent(pid)
    return found


def _guests(directory: Path, say: Callable[[str], None]) -> bool:
    """QEMU outlives the service that started it, but not the pool."""
    with contextlib.ExitStack() as stack:
        running = [stack.enter_context(process) for process in _marked(directory) if _is_guest(process.pid)]
        if running:
            say(f"stopping {len(running)} guests")
        processes.stop_all(running, GUEST_TIMEOUT)
    return bool(running)


def _is_guest(pid: int) -> bool:
    return any(Path(word).name.startswith("qemu-system-") for word in processes.command_line(pid)[:1])


def _links(pool: Plan, problems: list[str]) -> None:
    """Bridges and taps, by the network service's own clean-up."""
    devices = [link.name for link in Path("/sys/class/net").iterdir()]
    for host in pool.hosts:
        if any(device.startswith(host.device_prefix) for device in devices):
            try:
                run_module("services.network.cleanup", "--prefix", host.device_prefix)
            except ModuleFailed as error:
                problems.append(str(error))


def _views(directory: Path, pool: Plan, problems: list[str]) -> None:
    """Mounts of storage drivers, by the storage service's own clean-up."""
    for group, _ in pool.groups():
        run = configuration.run_folder(directory, group)
        if (run / "sm").exists():  # there were drivers
            try:
                run_module("services.storage.smapiv1.cleanup", "--run-dir", str(run))
            except ModuleFailed as error:
                problems.append(str(error))


def _sockets(directory: Path, pool: Plan) -> None:
    for group, _ in pool.groups():
        plan.socket_path(directory, group).unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(configuration.run_folder(directory, group))
    folder = plan.runtime(directory)
    if folder != directory and folder.exists():
        shutil.rmtree(folder)


def _queues(program: Program, pool: Plan) -> list[str]:
    hosts = dict(pool.groups())[program.group]
    return [program.service, *(f"{program.service}.{host.uuid}" for host in hosts)]


def _mounts(directory: Path, problems: list[str]) -> None:
    inside = f"{directory}/"
    mounted = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for point in reversed([point for point in mounted if point.startswith(inside)]):
        done = subprocess.run(["umount", point], capture_output=True, text=True, check=False)
        if done.returncode:
            problems.append(f"still mounted: {point}: {done.stderr.strip()}")
