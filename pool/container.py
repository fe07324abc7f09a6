"""What the containers of docker-compose.yml run: `python -m pool.container broker|host|check-broker|check-host`.

A container is one host of the pool, its processes under one supervisor. All hosts are given the same list of hosts and
share one volume for what they must agree on (pool uuid, password, the broker's password): whoever needs one of
these first makes it.

    XAPI_HOST          this host's name
    XAPI_POOL_HOSTS    "name=address ...", the first coordinator first
    XAPI_BROKER        the broker's address
    XAPI_BACKEND       qemu | simulator
"""

from __future__ import annotations

import argparse
import os
import pwd
import secrets
import shutil
import socket
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pika
from pika.exceptions import AMQPError

from pool import configuration, plan, programs, ready, roles, supervisor
from pool.configuration import Guest
from pool.folder import USER, share_pool_secret, write_env
from pool.guest import find as find_guest
from pool.guest.build import ARGS
from pool.plan import Backend, Host, Network, Plan, Settings, Sr
from pool.service_tools import ModuleFailed
from shared import host_role, passwords, pool_secret

STATE = Path("/var/lib/xapi")
SHARED = Path("/var/lib/xapi-shared")
"""Of all hosts: secrets in it, and the default SR."""
BROKER_DATA = Path("/var/lib/rabbitmq")
RABBITMQ = "/usr/lib/rabbitmq/bin/rabbitmq-server"
VHOST = "pool"
AMQP_PORT = 5672


def agreed(name: str, make: Callable[[], str]) -> str:
    """The text that all containers share under that name, made by the first to ask."""
    path = SHARED / "secrets" / name
    path.parent.mkdir(mode=0o700, exist_ok=True)
    if not path.exists():
        own = path.with_name(f"{name}.{socket.gethostname()}.{os.getpid()}")
        with os.fdopen(os.open(own, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(make() + "\n")
        try:
            os.link(own, path)  # fails when another one was first: then theirs counts
        except FileExistsError:
            pass
        finally:
            own.unlink()
    return path.read_text().strip()


def broker_url() -> str:
    password = agreed("broker", lambda: secrets.token_urlsafe(24))
    return f"amqp://xapi:{password}@{os.environ['XAPI_BROKER']}:{AMQP_PORT}/{VHOST}"


def broker() -> None:
    """Becomes the RabbitMQ node."""
    user = pwd.getpwnam("rabbitmq")
    password = agreed("broker", lambda: secrets.token_urlsafe(24))
    path = BROKER_DATA / "rabbitmq.conf"
    path.write_text(
        f"listeners.tcp.default = {AMQP_PORT}\n"
        f"default_user = xapi\ndefault_pass = {password}\ndefault_vhost = {VHOST}\n"
        "default_permissions.configure = .*\ndefault_permissions.read = .*\ndefault_permissions.write = .*\n"
        "disk_free_limit.absolute = 50MB\nconsumer_timeout = 86400000\nlog.console = true\nlog.file = false\n"
    )
    for entry in (BROKER_DATA, *BROKER_DATA.rglob("*")):
        shutil.chown(entry, user.pw_uid, user.pw_gid)
    path.chmod(0o600)
    os.initgroups(user.pw_name, user.pw_gid)
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)
    environment = {
        **os.environ,
        "HOME": str(BROKER_DATA),
        "RABBITMQ_NODENAME": "rabbit@localhost",  # the data folder belongs to the name; a container's changes
        "RABBITMQ_CONFIG_FILE": str(path),
        "RABBITMQ_MNESIA_BASE": str(BROKER_DATA / "mnesia"),
        "RABBITMQ_LOG_BASE": str(BROKER_DATA / "log"),
    }
    os.execve(RABBITMQ, [RABBITMQ], environment)


def check_broker() -> None:
    parameters = pika.URLParameters(broker_url() + "?connection_attempts=1&socket_timeout=3&stack_timeout=4")
    pika.BlockingConnection(parameters).close()


def pool_plan() -> Plan:
    """The same in every container. Raises `PlanError`."""
    identity = uuid.UUID(agreed("pool", lambda: str(uuid.uuid4())))
    qemu = shutil.which("qemu-system-x86_64") is not None and find_guest() is not None
    backend = os.environ.get("XAPI_BACKEND") or ("qemu" if qemu else "simulator")
    if backend not in ("qemu", "simulator"):
        raise plan.PlanError(f"XAPI_BACKEND={backend} is neither qemu nor simulator")
    pairs = [pair.partition("=")[::2] for pair in os.environ["XAPI_POOL_HOSTS"].split()]
    hosts = [
        Host(
            uuid=str(uuid.uuid5(identity, name)),
            name=name,
            address=address,
            backend=cast(Backend, backend),
            coordinator=number == 0,
        )
        for number, (name, address) in enumerate(pairs)
    ]
    return Plan(
        uuid=str(identity),
        name_label="pool",
        settings=Settings(
            hosts=len(hosts),
            simulate=0,
            backend=cast(Backend, backend),
            base_address=hosts[0].address,
            simulated_address="",
            http_port=80,
            https_port=443,
        ),
        hosts=hosts,
        sr=Sr(
            uuid=str(uuid.uuid5(identity, "sr")),
            name_label="Local files",
            type="file",
            location=str(SHARED / "sr"),
        ),
        network=Network(
            uuid=str(uuid.uuid5(identity, "network")),
            name_label="Pool-wide network associated with eth0",
            bridge="xenbr0",
        ),
    )


def this_host(pool: Plan) -> Host:
    name = os.environ["XAPI_HOST"]
    for one in pool.hosts:
        if one.name == name:
            return one
    raise plan.PlanError(f"XAPI_HOST={name} is not in XAPI_POOL_HOSTS ({' '.join(host.name for host in pool.hosts)})")


def host() -> None:
    """Becomes the supervisor of this host's processes."""
    pool = pool_plan()
    this = this_host(pool)
    url = broker_url()
    password = agreed("password", lambda: secrets.token_urlsafe(12))
    (STATE / "password").write_text(password + "\n")
    (STATE / "password").chmod(0o600)
    if not configuration.users_file(STATE).exists():  # a client may have changed it since
        passwords.write(configuration.users_file(STATE), {USER: passwords.hash_password(password)})
    share_pool_secret(STATE, [this.name], lambda: agreed("pool-secret", pool_secret.generate))
    roles.write_missing(STATE, pool)
    if this.coordinator and not configuration.seed_file(STATE, pool).exists():
        configuration.write_seed(STATE, pool, _guest())
    listed = [program for program in programs.programs(STATE, pool) if program.group == this.name]
    configuration.write(STATE, pool, listed, url)
    plan.save(STATE, pool)
    programs.save(STATE, listed)
    write_env(STATE, pool)
    os.execv(sys.executable, supervisor.argv(STATE))


def check_host() -> None:
    """The coordinator lets root in; a member says who the coordinator is."""
    pool = pool_plan()
    this = this_host(pool)
    session = ready.Session(f"http://{this.address}")
    try:
        session.login(USER, agreed("password", lambda: secrets.token_urlsafe(12)))
        session.logout()
    except ready.Failure as error:
        coordinator = host_role.read(roles.role_file(STATE, this.name)).is_coordinator
        if error.code != ("SESSION_AUTHENTICATION_FAILED" if coordinator else "HOST_IS_SLAVE"):
            raise


def _guest() -> Guest:
    found = find_guest()
    return Guest(str(found.kernel), str(found.initramfs), ARGS) if found is not None else Guest()


COMMANDS: dict[str, Callable[[], None]] = {
    "broker": broker,
    "host": host,
    "check-broker": check_broker,
    "check-host": check_host,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pool.container", description="What a pool's containers run.")
    parser.add_argument("command", choices=sorted(COMMANDS))
    command = parser.parse_args().command
    try:
        COMMANDS[command]()
    except KeyError as error:
        sys.exit(f"container: {error.args[0]} is not set")
    except (plan.PlanError, ModuleFailed, ready.Failure, AMQPError, OSError) as error:
        sys.exit(f"container: {time.strftime('%H:%M:%S')} {error or repr(error)}")


if __name__ == "__main__":
    main()
