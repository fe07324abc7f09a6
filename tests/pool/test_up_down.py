"""A real pool through its commands: what it leaves, what comes back, what it says."""

from __future__ import annotations

import os
import signal
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pika
import pytest
from pika.exceptions import ChannelClosedByBroker

from pool import broker, processes, programs, rabbitmq, ready, supervisor
from tests.pool.conditions import eventually
from tests.support.pool import PoolUnderTest, addresses

pytestmark = [pytest.mark.pool, pytest.mark.timeout(400)]

WORDS = "printed"


def remains(pool: PoolUnderTest) -> dict[str, list[str]]:
    """What the pool has left on the machine, where others may run: what has its name or its folder."""
    folder, prefixes = pool.directory, tuple(host.device_prefix for host in pool.plan.hosts)
    namespaces = Path("/run/netns")
    found = {
        "links": [link.name for link in Path("/sys/class/net").iterdir() if link.name.startswith(prefixes)],
        "mounts": [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(folder) in line],
        "namespaces": [entry.name for entry in namespaces.iterdir() if entry.name.startswith(prefixes)]
        if namespaces.exists()
        else [],
        "processes": [" ".join(processes.command_line(pid)) for pid in processes.marked(folder)],
        "sockets": [str(path) for path in folder.rglob("*") if stat.S_ISSOCK(path.lstat().st_mode)],
        "pid files": [str(path) for path in folder.rglob("*.pid")],
    }
    return {kind: names for kind, names in found.items() if names}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[PoolUnderTest]:
    """A pool that this module's tests may hurt."""
    directory = tmp_path_factory.mktemp("updown")
    pool = PoolUnderTest(
        directory, "--hosts", "2", "--simulate", "3", "--backend", "simulator", *addresses(worker_id, 71)
    )
    (directory / WORDS).write_text(pool.up().stdout)
    yield pool
    pool.command("down", timeout=200)


@pytest.fixture
def first_words(running: PoolUnderTest) -> str:
    """What was printed when it was started."""
    return (running.directory / WORDS).read_text()


def test_a_started_pool_prints_and_keeps_what_a_client_needs(running: PoolUnderTest, first_words: str) -> None:
    env = running.env
    assert env["XAPI_URL"] in first_words
    assert env["XAPI_PASSWORD"] in first_words
    assert "RabbitMQ: starting" in first_words
    assert set(env) == {"XAPI_URL", "XAPI_USER", "XAPI_PASSWORD", "XAPI_COORDINATOR", "XAPI_HOSTS", "XE_SOCKET"}
    assert Path(env["XE_SOCKET"]).is_socket()
    for name in ("env", "password", "users"):
        assert (running.directory / name).stat().st_mode & 0o077 == 0, f"{name} can be read by others"


def test_a_second_start_says_that_it_runs(running: PoolUnderTest) -> None:
    supervised = processes.read_pid(running.directory / "supervisor.pid")
    output = running.up().stdout
    assert "runs already" in output
    assert running.url in output
    assert processes.read_pid(running.directory / "supervisor.pid") == supervised


def test_other_options_for_a_running_pool_are_refused(running: PoolUnderTest) -> None:
    done = running.command("up", "--hosts", "5")
    assert done.returncode == 1
    assert "HOSTS=5 (it has 2)" in done.stderr


def test_simulated_hosts_are_live_and_answer_at_their_own_addresses(running: PoolUnderTest) -> None:
    assert list(running.hosts) == ["host1", "host2", "sim1", "sim2", "sim3"]
    for name in ("host2", "sim3"):
        with pytest.raises(ready.Failure, match=f"HOST_IS_SLAVE {running.hosts['host1']}"):
            ready.Session(running.host_url(name)).login("root", running.password)


def test_status_shows_every_process_with_its_pid(running: PoolUnderTest) -> None:
    done = running.command("status")
    assert done.returncode == 0, done.stdout
    lines = {line.split()[0]: line.split() for line in done.stdout.splitlines()[3:]}
    assert lines["host1/db"][1:3] == [str(running.pid("db")), "running"]
    assert lines["supervisor"][2] == "running"
    assert "simulated/vm" in lines


@pytest.mark.parametrize("service", ["db", "api", "vm"])
def test_a_killed_service_comes_back_and_the_pool_answers_again(running: PoolUnderTest, service: str) -> None:
    killed = running.kill(service)
    running.wait_restarted(service, other_than=killed)
    running.wait_ready()


def test_a_killed_broker_comes_back_and_the_pool_answers_again(running: PoolUnderTest) -> None:
    node = rabbitmq.load(running.directory / "rabbitmq")
    assert node is not None
    rabbitmq.kill9(node)

    def again() -> rabbitmq.Node | None:
        found = rabbitmq.load(node.directory)
        return found if found is not None and found.pid != node.pid else None

    eventually("the broker is back", again, timeout=40)
    running.wait_ready()


def test_a_pool_whose_supervisor_was_killed_goes_on_and_is_taken_over(running: PoolUnderTest) -> None:
    killed = processes.read_pid(running.directory / "supervisor.pid")
    services = {name: running.pid(name) for name in ("db", "api", "vm")}
    os.kill(killed, signal.SIGKILL)
    eventually("the supervisor is gone", lambda: not supervisor.runs(running.directory))
    assert {name: running.pid(name) for name in services} == services

    assert "supervisor" in running.up().stdout
    assert supervisor.runs(running.directory)
    assert {name: running.pid(name) for name in services} == services


def test_a_pool_without_its_supervisor_is_stopped_all_the_same(running: PoolUnderTest) -> None:
    os.kill(processes.read_pid(running.directory / "supervisor.pid"), signal.SIGKILL)
    eventually("the supervisor is gone", lambda: not supervisor.runs(running.directory))
    running.down()
    assert remains(running) == {}
    assert not (running.directory / "env").exists()
    assert "no pool runs" in running.down().stdout


def test_a_pool_comes_back_with_what_it_had(running: PoolUnderTest) -> None:
    """The last of those that share a pool: it has stopped before, and stops for good."""
    uuid, password = running.plan.uuid, (running.directory / "password").read_text().strip()
    running.up()
    assert (running.plan.uuid, running.password) == (uuid, password)
    session = ready.Session(running.url)
    session.login("root", running.password)
    pools = session.call("pool.get_all_records")
    session.logout()
    assert [pool["uuid"] for pool in pools.values()] == [uuid]
    running.down()
    assert remains(running) == {}


def test_a_pool_on_a_broker_elsewhere_leaves_nothing_on_it(new_pool: PoolUnderTest, broker_node: rabbitmq.Node) -> None:
    new_pool.up("--amqp-url", broker_node.url)
    assert rabbitmq.read(new_pool.directory / "rabbitmq") is None
    assert "elsewhere" in new_pool.command("status").stdout
    services = {program.service for program in programs.load(new_pool.directory)}
    hosts = [host.uuid for host in new_pool.plan.hosts]
    assert is_there(broker_node, "queue_declare", "db")
    new_pool.down()
    names = [*services, *(f"{service}.{host}" for service in services for host in hosts), *broker.QUEUES]
    assert [name for name in names if is_there(broker_node, "queue_declare", name)] == []
    assert [name for name in broker.EXCHANGES if is_there(broker_node, "exchange_declare", name)] == []


def is_there(node: rabbitmq.Node, declare: str, name: str) -> bool:
    """Whether the broker has that queue or exchange."""
    connection = pika.BlockingConnection(pika.URLParameters(node.url))
    try:
        getattr(connection.channel(), declare)(name, passive=True)
        return True
    except ChannelClosedByBroker:
        return False
    finally:
        connection.close()


def test_a_port_that_is_taken_stops_the_start_before_it_begins(new_pool: PoolUnderTest, worker_id: str) -> None:
    address = addresses(worker_id, 91)[1]
    with socket.create_server((address, 0)) as listener:
        port = listener.getsockname()[1]
        done = new_pool.command("up", *new_pool.options, "--http-port", str(port))
    assert done.returncode == 1
    assert f"port taken: {address}:{port} by pid {os.getpid()}" in done.stderr
    assert not (new_pool.directory / "rabbitmq").exists()


def test_a_failed_start_names_the_service_shows_its_log_and_stops_the_rest(new_pool: PoolUnderTest) -> None:
    done = new_pool.command("up", *new_pool.options, timeout=150, environment={"XAPI_OPTION_NONSENSE": "1"})
    assert done.returncode == 1
    assert "does not start (exit status 1). The end of" in done.stderr
    assert "unknown field `nonsense`" in done.stderr
    assert remains(new_pool) == {}


def test_what_is_not_there_yet_is_refused(new_pool: PoolUnderTest) -> None:
    done = new_pool.command("up", "--netns")
    assert done.returncode == 1
    assert "--netns is not supported yet" in done.stderr


def test_an_unknown_backend_is_refused(new_pool: PoolUnderTest) -> None:
    done = new_pool.command("up", "--backend", "xen")
    assert done.returncode == 1
    assert "unsupported option" in done.stderr
    assert "xen" in done.stderr
