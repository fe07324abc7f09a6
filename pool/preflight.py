"""What would make a start fail, found before anything is started."""

from __future__ import annotations

import errno
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil

from pool import processes
from pool.plan import Plan

SPACE_NEEDED = 512 * 1024 * 1024
"""Bytes: the broker refuses to work with less than 50 MB free, the rest is for the database and small disks."""
ANY = ("0.0.0.0", "::")
PAM = Path("/etc/pam.d")


class PreflightError(Exception):
    """The pool cannot start here; one line per reason."""


def check(directory: Path, plan: Plan) -> None:
    """Raises `PreflightError`."""
    free = shutil.disk_usage(directory).free
    if free < SPACE_NEEDED:
        raise PreflightError(
            f"no space: {free // 2**20} MiB are free in {directory}, a pool needs {SPACE_NEEDED // 2**20} MiB"
        )
    own = frozenset(processes.marked(directory))
    if problems := [*_pam(plan), *_ports(plan, own)]:
        raise PreflightError("\n".join(problems))


def _pam(plan: Plan) -> Iterator[str]:
    """Without a file of that name PAM asks the service `other`, which on Debian lets every account in."""
    service = PAM / plan.settings.pam_service
    if plan.settings.auth == "pam" and not service.is_file():
        yield f"AUTH=pam: there is no {service}; read pool/pam/xapi, then copy it there"


def _ports(plan: Plan, own: frozenset[int]) -> Iterator[str]:
    for host in plan.hosts:
        for port in (plan.http_port, plan.https_port):
            if (number := _refusal(host.address, port)) is None:
                continue
            if number == errno.EADDRINUSE:
                owner = _owner(host.address, port)
                if owner in own:
                    continue
                by = f"pid {owner}: {_command(owner)}" if owner else "a process that only root can see"
                yield f"port taken: {host.address}:{port} by {by}"
            elif number == errno.EACCES:
                yield f"{host.address}:{port}: only root may listen there (--http-port, --https-port choose others)"
            else:
                yield f"{host.address}:{port}: {os.strerror(number)}"


def _refusal(address: str, port: int) -> int | None:
    """The error number of listening there; None when it is possible."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((address, port))
            listener.listen(1)
        except OSError as error:
            return error.errno
    return None


def _owner(address: str, port: int) -> int | None:
    """Pid of who listens there, if this user may know."""
    try:
        connections = psutil.net_connections("tcp")
    except psutil.AccessDenied:
        return None
    for connection in connections:
        local = connection.laddr
        if connection.status != psutil.CONN_LISTEN or not local:
            continue
        if local.port == port and local.ip in (address, *ANY):
            return connection.pid
    return None


def _command(pid: int) -> str:
    return " ".join(processes.command_line(pid))[:200] or "?"
