"""Starts a pool, or finds it running."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from pool import broker, configuration, down, folder, plan, preflight, processes, programs, ready, roles, supervisor
from pool.configuration import Guest
from pool.guest import GuestBuildError
from pool.guest import build as build_guest
from pool.guest.build import ARGS
from pool.plan import Plan, PlanError, Wanted
from pool.rabbitmq import BrokerError
from pool.service_tools import ModuleFailed

READY_TIMEOUT = 90.0
"""Seconds; a pool of three hosts takes a few, one of many hosts on a slow machine more."""


FAILURES = (
    BrokerError,
    GuestBuildError,
    ModuleFailed,
    OSError,
    configuration.OptionsError,
    ready.NotReady,
    supervisor.SupervisorError,
)
"""What a start may end with."""


class StartError(Exception):
    """The pool does not run; the text says why. What had been started is stopped again."""


def up(directory: Path, wanted: Wanted, amqp_url: str, say: Callable[[str], None]) -> Plan:
    """Returns when the pool answers. `amqp_url`: "" for a broker of its own. Raises `StartError`, `FolderError`."""
    with folder.alone(directory):
        try:
            pool = _planned(directory, wanted)
            if supervisor.runs(directory):
                return _running(directory, pool, say)
            preflight.check(directory, pool)
            configuration.check_options(directory)
        except (PlanError, preflight.PreflightError, configuration.OptionsError) as error:
            raise StartError(str(error)) from error
        plan.save(directory, pool)
        begun = time.monotonic()
        try:
            _start(directory, pool, amqp_url, say)
        except FAILURES as error:
            say("stopping what was started")
            down.stop(directory, lambda _: None)
            raise StartError(str(error)) from error
        except KeyboardInterrupt:
            say("interrupted: stopping what was started")
            down.stop(directory, lambda _: None)
            raise
        folder.write_env(directory, pool)
        say(f"the pool answers after {time.monotonic() - begun:.1f} s")
        return pool


def _planned(directory: Path, wanted: Wanted) -> Plan:
    kept = plan.load(directory)
    if kept is None:
        qemu = shutil.which("qemu-system-x86_64") is not None
        made = plan.make(directory, wanted, plan.defaults(root=os.geteuid() == 0, qemu=qemu))
        if not qemu and made.settings.backend == "qemu":
            raise PlanError("BACKEND=qemu: qemu-system-x86_64 is not installed (apt-get install qemu-system-x86)")
        return made
    if other := plan.differs(kept, wanted):
        raise PlanError(
            f"there is another pool in {directory}, which has not {', '.join(other)}."
            " `make pool-down pool-clean` removes it, POOL_DIR= chooses another folder"
        )
    return kept


def _running(directory: Path, pool: Plan, say: Callable[[str], None]) -> Plan:
    """A start that was interrupted may have left it half-way: then it is waited for."""
    say(f"the pool in {directory} runs already")
    try:
        ready.wait(directory, pool, programs.load(directory), READY_TIMEOUT, say)
    except ready.NotReady as error:
        raise StartError(f"it runs, but does not answer: {error}") from error
    folder.write_env(directory, pool)
    return pool


def _start(directory: Path, pool: Plan, amqp_url: str, say: Callable[[str], None]) -> None:
    os.environ[processes.MARK] = str(directory)
    if left := processes.by_command(directory):
        say(f"its supervisor was gone: taking over {len(left)} processes")
    if pool.settings.auth == "file":
        folder.password(directory)
    folder.share_pool_secret(directory, [group for group, _ in pool.groups()])
    if not configuration.seed_file(directory, pool).exists():
        configuration.write_seed(directory, pool, _guest(pool, say))
    say("RabbitMQ: " + ("using AMQP_URL" if amqp_url else "starting a private node"))
    url = broker.start(directory, pool.uuid, amqp_url)
    roles.write_missing(directory, pool)
    listed = programs.programs(directory, pool)
    configuration.write(directory, pool, listed, url)
    programs.save(directory, listed)
    for group, _ in pool.groups():
        programs.down_file(directory, group).unlink(missing_ok=True)
    for program in listed:
        program.stay_down_file(directory).unlink(missing_ok=True)
    say(f"{len(pool.hosts)} hosts: starting {len(listed)} processes")
    (directory / "supervisor.json").unlink(missing_ok=True)
    supervisor.start(directory)
    ready.wait(directory, pool, listed, READY_TIMEOUT, say)


def _guest(pool: Plan, say: Callable[[str], None]) -> Guest:
    """The bundled template's files; the simulator reads none."""
    if pool.settings.backend == "simulator" or pool.settings.bare:
        return Guest()
    say("the bundled guest: looking for it")
    files = build_guest(say=lambda line: say(f"the bundled guest: {line}"))
    return Guest(str(files.kernel), str(files.initramfs), ARGS)
