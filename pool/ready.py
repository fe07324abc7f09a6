"""Waits until a pool answers: every process up, calls through the URL, every host live."""

from __future__ import annotations

import contextlib
import http.client
import socket
import time
import xmlrpc.client
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pool import processes, roles, supervisor
from pool.folder import USER
from pool.logfiles import ready_since, tail
from pool.plan import Plan, socket_path
from pool.programs import Program

FAILURES = 3
"""Deaths in a row after which a service counts as failed, while the pool starts."""
INTERVAL = 0.1
SAY_INTERVAL = 1.0
OLD = 60.0
"""Seconds after which a process that still runs has started well."""
CALL_TIMEOUT = 5.0


class NotReady(Exception):
    """The start failed; the text says which service and shows the end of its log."""


class _Transport(xmlrpc.client.Transport):
    """With a timeout: a process that hangs must not hang the start."""

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        connection = super().make_connection(host)
        connection.timeout = CALL_TIMEOUT
        return connection


class _UnixTransport(_Transport):
    """To a host's Unix socket, where no password is needed."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        connection = super().make_connection(host)
        if connection.sock is None:
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.settimeout(CALL_TIMEOUT)
            connection.sock.connect(str(self._path))
        return connection


class Failure(Exception):
    """The API answered with an error description: `code` and its parameters."""

    def __init__(self, description: list[str]) -> None:
        super().__init__(" ".join(description))
        self.code = description[0]


class Session:
    """A XenAPI session in its plainest form."""

    def __init__(self, url: str, transport: xmlrpc.client.Transport | None = None) -> None:
        self._proxy = xmlrpc.client.ServerProxy(url, transport=transport or _Transport(), allow_none=True)
        self._session: list[str] = []

    def login(self, user: str, secret: str) -> None:
        self._session = [self.call("session.login_with_password", user, secret, "1.0", "pool")]

    def login_locally(self, path: Path) -> None:
        """As root, through the Unix socket of the same API; the calls that follow go to the URL."""
        local = Session("http://localhost", _UnixTransport(path))
        local.login(USER, "")
        self._session = local._session

    def call(self, method: str, *params: object) -> Any:
        """Raises `Failure`, `OSError`, `xmlrpc.client.Error`."""
        answer: Any = getattr(self._proxy, method)(*self._session, *params)
        if answer.get("Status") != "Success":
            raise Failure(answer.get("ErrorDescription") or [str(answer)])
        return answer["Value"]

    def logout(self) -> None:
        if self._session:
            self.call("session.logout")
            self._session = []


class Answers:
    """Asks the API whether the pool is complete, in one session."""

    def __init__(self, directory: Path, pool: Plan) -> None:
        self._directory = directory
        self._plan = pool
        self._asked = ""
        """Name of the host that the session is on."""
        self._session: Session | None = None

    def missing(self) -> str:
        """What is not there yet; "" when nothing is."""
        coordinator = roles.coordinator(self._directory, self._plan)
        name = coordinator.name
        try:
            if self._session is None or name != self._asked:
                session = Session(self._plan.url(coordinator))
                session.login_locally(socket_path(self._directory, name))
                self._session, self._asked = session, name
            hosts = self._session.call("host.get_all_records")
            masters = [pool["master"] for pool in self._session.call("pool.get_all_records").values()]
            metrics = self._session.call("host_metrics.get_all_records")
        except (OSError, http.client.HTTPException, xmlrpc.client.Error) as error:
            return f"API of {name}: {_reason(error)}"
        except Failure as error:
            self._session = None
            return f"API of {name}: {error}"
        if [hosts[master]["uuid"] for master in masters if master in hosts] != [coordinator.uuid]:
            return f"{name} was coordinator, another host is"
        ready = sum(_usable(host) and bool(metrics[host["metrics"]]["live"]) for host in hosts.values())
        return "" if ready >= len(self._plan.hosts) else f"hosts: {ready} of {len(self._plan.hosts)} ready"

    def close(self) -> None:
        """The session ends with the pool, if it cannot be ended now."""
        if self._session is not None:
            with contextlib.suppress(OSError, http.client.HTTPException, xmlrpc.client.Error, Failure):
                self._session.logout()


def wait(directory: Path, plan: Plan, listed: list[Program], timeout: float, say: Callable[[str], None]) -> None:
    """Returns when the pool answers. Raises `NotReady`."""
    deadline = time.monotonic() + timeout
    told, quiet_until = "", 0.0
    services, answers = Services(directory, listed), Answers(directory, plan)
    try:
        while True:
            _raise_failed(directory, listed)
            why = services.missing() or answers.missing()
            if not why:
                return
            if why != told and time.monotonic() >= quiet_until:
                told, quiet_until = why, time.monotonic() + SAY_INTERVAL
                say(why)
            if not supervisor.runs(directory):
                raise NotReady(f"the supervisor has ended:\n{tail(directory / 'supervisor.log')}")
            if time.monotonic() > deadline:
                raise NotReady(f"not ready after {timeout:.0f} s: {why}\n{_unready(directory, listed)}")
            time.sleep(INTERVAL)
    finally:
        answers.close()


def _raise_failed(directory: Path, listed: list[Program]) -> None:
    state = supervisor.read_state(directory)
    by_name = {program.name: program for program in listed}
    for child in state.children if state else []:
        if child.state == "waiting" and child.failures >= FAILURES:
            log = by_name[child.name].log_file(directory)
            raise NotReady(f"{child.name} does not start ({child.last_exit}). The end of {log}:\n{tail(log)}")


class Services:
    """Asks the services' logs whether each is ready: the line is there since its process was started."""

    def __init__(self, directory: Path, listed: list[Program]) -> None:
        self._directory = directory
        self._listed = listed
        self._ready: dict[str, int] = {}
        """Name to the pid that was found ready."""

    def missing(self) -> str:
        """What is not there yet; "" when nothing is."""
        state = supervisor.read_state(self._directory)
        pids = {child.name: child.pid for child in state.children if child.state == "running"} if state else {}
        for program in self._listed:
            pid = pids.get(program.name, 0)
            if pid and self._ready.get(program.name) != pid and self._is_ready(program, pid):
                self._ready[program.name] = pid
        ready = sum(pid != 0 and self._ready.get(name) == pid for name, pid in pids.items())
        return "" if ready == len(self._listed) else f"processes: {ready} of {len(self._listed)} ready"

    def _is_ready(self, program: Program, pid: int) -> bool:
        age = processes.age(pid)
        if age > OLD:
            return True  # taken over from an earlier supervisor; its log may have been cut since
        return ready_since(program.log_file(self._directory), time.time() - age)


def _usable(host: dict[str, Any]) -> bool:
    """Its services are in, its SRs attached: then the coordinator enables it, unless somebody wants it disabled."""
    return bool(host["enabled"]) or host["other_config"].get("host_auto_enable_off") == "true"


def _reason(error: Exception) -> str:
    return "does not listen yet" if isinstance(error, ConnectionRefusedError) else str(error) or type(error).__name__


def _unready(directory: Path, listed: list[Program]) -> str:
    """The ends of the logs of the services that never said that they are ready."""
    parts = [
        f"{program.name} is not ready. The end of {program.log_file(directory)}:\n{tail(program.log_file(directory))}"
        for program in listed
        if not ready_since(program.log_file(directory), 0.0)
    ]
    return "\n".join(parts[:3]) or "every service is ready; see `python -m pool logs`"
