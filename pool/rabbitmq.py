"""A private RabbitMQ node: its own name, ports, cookie, data folder, user and password, bound to 127.0.0.1 only.

Nothing of it is shared with a node that the distribution's package may run: it has its own epmd (Erlang's name
service) on its own port. Everything it needs to come back is in its folder:

    node.json         ports, name, credentials, pids; readable by the owner only
    rabbitmq.conf     written at each start
    data/ log/ home/  Mnesia and queues; `log/rabbit.log`; the Erlang cookie

All functions block: an event loop calls them through `asyncio.to_thread`.
"""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from urllib.parse import quote

import pika
import pika.exceptions

LOOPBACK = "127.0.0.1"
VHOST = "pool"
SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
"""The script under Debian's wrapper in /usr/sbin, which would change to the user `rabbitmq`."""
STOP_TIMEOUT = 10.0
LOG_TAIL = 25
PORT_PATIENCE = 3.0
"""A killed node's threads may hold its port for a moment longer than the process is seen."""
PORT_ATTEMPTS = 3
"""A free port may be taken by somebody else between the look and the start; so often another is tried."""


class BrokerError(Exception):
    """The node cannot be started or stopped; the text says why and what to do."""


@dataclasses.dataclass(frozen=True)
class Process:
    """`started`: clock ticks since boot; with the pid it names one process for ever."""

    pid: int
    started: int


@dataclasses.dataclass(frozen=True)
class Node:
    """A node's settings, and its processes when it runs."""

    directory: Path
    name: str
    port: int
    epmd_port: int
    dist_port: int
    user: str
    password: str
    server: Process | None = None
    epmd: Process | None = None

    @property
    def url(self) -> str:
        return f"amqp://{self.user}:{quote(self.password, safe='')}@{LOOPBACK}:{self.port}/{VHOST}"

    @property
    def pid(self) -> int:
        """Of the Erlang machine. Raises `BrokerError` when the node does not run."""
        if self.server is None:
            raise BrokerError(f"the RabbitMQ node in {self.directory} does not run")
        return self.server.pid

    @property
    def log(self) -> Path:
        return self.directory / "log" / "rabbit.log"

    @property
    def running(self) -> bool:
        return self.server is not None and _alive(self.server)


def start(directory: Path, *, port: int = 0, timeout: float = 60.0) -> Node:
    """Starts the node of that folder and returns when it takes connections. One that runs already is returned as it is.

    `port`: of AMQP; 0: the one it had before, else a free one. Raises `BrokerError`.
    """
    directory = directory.resolve()
    known = read(directory)
    if known is not None and known.running:
        return known
    _find_programs()
    if known is not None:
        stop(known)  # a start or stop that was interrupted may have left its epmd
    wanted = port or (known.port if known is not None else 0)
    if wanted and not _comes_free(wanted, PORT_PATIENCE if known is not None else 0.0):
        raise BrokerError(f"cannot start RabbitMQ: port {wanted} on {LOOPBACK} is taken by another program")
    for attempt in range(PORT_ATTEMPTS):
        node = _settings(directory, wanted, known)
        _write_files(node)
        try:
            return _launch(node, timeout)
        except _PortTaken as error:
            if attempt == PORT_ATTEMPTS - 1 or wanted:
                raise BrokerError(str(error)) from error
    raise AssertionError("unreachable")


def load(directory: Path) -> Node | None:
    """The node of that folder if it runs now, else None."""
    node = read(directory.resolve())
    return node if node is not None and node.running else None


def read(directory: Path) -> Node | None:
    """The node of that folder, running or not; None if there never was one. Raises `BrokerError` when unreadable."""
    path = directory / "node.json"
    try:
        raw = json.loads(path.read_text())
        processes = {key: Process(**raw[key]) if raw[key] else None for key in ("server", "epmd")}
        return Node(**{**raw, "directory": directory, **processes})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BrokerError(f"{path} cannot be used: {error}") from error


def stop(node: Node, timeout: float = STOP_TIMEOUT) -> None:
    """Ends the node and its helper processes: SIGTERM, then SIGKILL after `timeout` seconds. The data stays."""
    helpers = [*_descendants(node.server), *_descendants(node.epmd)]
    for process in (node.server, node.epmd):
        if process is not None:
            _end(process, timeout)
    for helper in helpers:  # port programs end by themselves when their Erlang machine has gone
        if not _wait_gone(helper, 1.0):
            _end(helper, 1.0)
    _reap()
    _save(dataclasses.replace(node, server=None, epmd=None))


def kill9(node: Node) -> None:
    """SIGKILL to the Erlang machine, as a crash would look. `start(node.directory)` brings it back with its data."""
    if node.server is not None and _alive(node.server):
        os.kill(node.server.pid, signal.SIGKILL)
        _wait_gone(node.server, STOP_TIMEOUT)
        _reap()


# ---- starting


class _PortTaken(Exception):
    pass


def _find_programs() -> None:
    missing = [name for name in ("erl", "epmd") if shutil.which(name) is None]
    if missing or not SERVER.exists():
        what = ", ".join([*missing, *([] if SERVER.exists() else [str(SERVER)])])
        raise BrokerError(f"RabbitMQ is not installed ({what} not found): apt-get install rabbitmq-server")


def _settings(directory: Path, port: int, known: Node | None) -> Node:
    """New ports for a new node; name and credentials stay those of the data folder."""
    free = _free_ports(3)
    if known is not None:
        return dataclasses.replace(
            known, port=port or free[0], epmd_port=free[1], dist_port=free[2], server=None, epmd=None
        )
    return Node(
        directory=directory,
        name=f"xapi-{secrets.token_hex(4)}@localhost",
        port=port or free[0],
        epmd_port=free[1],
        dist_port=free[2],
        user="xapi",
        password=secrets.token_urlsafe(24),
    )


def _write_files(node: Node) -> None:
    try:
        node.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name in ("data", "log", "home"):
            (node.directory / name).mkdir(exist_ok=True, mode=0o700)
        cookie = node.directory / "home" / ".erlang.cookie"
        if not cookie.exists():
            _write_private(cookie, secrets.token_hex(20), 0o400)
        _write_private(node.directory / "enabled_plugins", "[].\n")
        # Names come from this file, not from a resolver process outside the Erlang machine.
        names = f'["localhost", "{socket.gethostname()}"]'
        inetrc = f"{{lookup, [file]}}.\n{{host, {{127,0,0,1}}, {names}}}.\n"
        _write_private(node.directory / "inetrc", inetrc)
        _write_private(node.directory / "rabbitmq.conf", _configuration(node))
        _save(node)
    except OSError as error:
        raise BrokerError(f"cannot prepare the RabbitMQ node in {node.directory}: {error}") from error


def _configuration(node: Node) -> str:
    """Without the default user `guest`: with `default_user` it is never made."""
    return f"""\
listeners.tcp.1 = {LOOPBACK}:{node.port}
num_acceptors.tcp = 2
tcp_listen_options.nodelay = true
default_user = {node.user}
default_pass = {node.password}
default_vhost = {VHOST}
default_permissions.configure = .*
default_permissions.read = .*
default_permissions.write = .*
vm_memory_high_watermark.relative = 0.3
disk_free_limit.absolute = 50MB
consumer_timeout = 86400000
collect_statistics = none
log.dir = {node.directory}/log
log.file = rabbit.log
log.file.level = info
log.console = false
"""


def _environment(node: Node) -> dict[str, str]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("RABBITMQ_", "ERL_"))}
    inherited.pop("NOTIFY_SOCKET", None)
    folder = node.directory
    return {
        **inherited,
        "HOME": f"{folder}/home",
        "RABBITMQ_NODENAME": node.name,
        "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq.conf",
        "RABBITMQ_ADVANCED_CONFIG_FILE": f"{folder}/advanced.config",
        "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/enabled_plugins",
        "RABBITMQ_MNESIA_BASE": f"{folder}/data",
        "RABBITMQ_LOG_BASE": f"{folder}/log",
        "RABBITMQ_PID_FILE": f"{folder}/rabbit.pid",
        "RABBITMQ_DIST_PORT": str(node.dist_port),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        "ERL_EPMD_PORT": str(node.epmd_port),
        "ERL_EPMD_ADDRESS": LOOPBACK,
        "ERL_INETRC": f"{folder}/inetrc",
        "ERL_CRASH_DUMP": f"{folder}/log/erl_crash.dump",
        "RUNNING_UNDER_SYSTEMD": "true",  # makes the script replace itself by the Erlang machine: its pid is ours
    }


def _launch(node: Node, timeout: float) -> Node:
    environment = _environment(node)
    output = node.directory / "log" / "start.log"
    epmd = server = None
    try:
        with output.open("wb") as file:
            epmd = subprocess.Popen(
                ["epmd", "-port", str(node.epmd_port), "-address", LOOPBACK],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
            server = subprocess.Popen(
                [str(SERVER)],
                env=environment,
                cwd=node.directory,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
    except OSError as error:
        if epmd is not None:
            _end_child(epmd)
        raise BrokerError(f"cannot start RabbitMQ: {error}") from error
    _children.extend((server, epmd))
    node = dataclasses.replace(node, server=_process(server.pid), epmd=_process(epmd.pid))
    _save(node)
    try:
        _wait_ready(node, server, timeout)
    except BaseException:
        stop(node)
        raise
    return node


def _wait_ready(node: Node, server: subprocess.Popen[bytes], timeout: float) -> None:
    deadline = time.monotonic() + timeout
    parameters = pika.URLParameters(node.url + "?connection_attempts=1&socket_timeout=5&stack_timeout=10")
    while True:
        status = server.poll()
        if status is not None:
            text = _log_tail(node)
            if "eaddrinuse" in text or "address already in use" in text:
                raise _PortTaken(f"cannot start RabbitMQ: a port of it is taken.\n{text}")
            raise BrokerError(f"RabbitMQ ended with status {status} while it started. The end of its log:\n{text}")
        if time.monotonic() > deadline:
            raise BrokerError(f"RabbitMQ is not ready after {timeout:g} s. The end of its log:\n{_log_tail(node)}")
        if not _free(node.port):
            try:
                pika.BlockingConnection(parameters).close()
                return
            except (pika.exceptions.AMQPError, OSError):
                time.sleep(0.1)  # its port is open before its users are there
        time.sleep(0.05)


def _log_tail(node: Node) -> str:
    lines: list[str] = []
    for path in (node.directory / "log" / "start.log", node.log):
        if path.exists():
            lines += [f"{path}:", *path.read_text(errors="replace").splitlines()[-LOG_TAIL:]]
    return "\n".join(line for line in lines if line.strip())


# ---- files and ports


def _save(node: Node) -> None:
    record = {**dataclasses.asdict(node), "directory": str(node.directory)}
    _write_private(node.directory / "node.json", json.dumps(record, indent=1))


def _write_private(path: Path, text: str, mode: int = 0o600) -> None:
    """Whole or not at all, and never readable by others."""
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        file.write(text)
    new.replace(path)


def _free(port: int) -> bool:
    """Whether nobody listens there. A connection of the past in TIME_WAIT does not count."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def _comes_free(port: int, patience: float) -> bool:
    deadline = time.monotonic() + patience
    while not _free(port):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind((LOOPBACK, 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


# ---- processes, always by pid and start time, so that a reused pid is never hit


def _stat(pid: int) -> tuple[str, int, int] | None:
    """State, parent and start time of a process; None when there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()
    return fields[0], int(fields[1]), int(fields[19])


def _process(pid: int) -> Process | None:
    stat = _stat(pid)
    return None if stat is None else Process(pid, stat[2])


def _alive(process: Process) -> bool:
    stat = _stat(process.pid)
    return stat is not None and stat[2] == process.started and stat[0] not in "ZX"


def _descendants(process: Process | None) -> list[Process]:
    if process is None or not _alive(process):
        return []
    children: dict[int, list[Process]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (stat := _stat(int(entry))) is not None:
            children.setdefault(stat[1], []).append(Process(int(entry), stat[2]))
    found, queue = [], [process.pid]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += [child.pid for child in below]
    return found


def _wait_gone(process: Process, timeout: float) -> bool:
    deadline = time.monotonic() + timeout
    while _alive(process):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _end(process: Process, timeout: float) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        if not _alive(process):
            return
        os.kill(process.pid, number)
        if _wait_gone(process, timeout):
            return
    raise BrokerError(f"process {process.pid} of RabbitMQ does not end")


def _end_child(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()


_children: list[subprocess.Popen[bytes]] = []


def _reap() -> None:
    """Collects the exit status of nodes that this very process had started, so that no zombie stays."""
    _children[:] = [child for child in _children if child.poll() is None]
