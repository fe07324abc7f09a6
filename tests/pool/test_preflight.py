"""What is found before anything is started."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest

from pool import plan, preflight
from pool.plan import Plan, Wanted
from pool.preflight import PreflightError


@pytest.fixture
def taken() -> Any:
    with socket.create_server(("127.0.0.95", 0)) as listener:
        yield listener.getsockname()[1]


def single(http_port: int) -> Plan:
    wanted = Wanted(hosts=1, base_address="127.0.0.95", http_port=http_port, https_port=http_port + 1)
    return plan.make(Path("/srv"), wanted, plan.defaults(root=True, qemu=False))


def test_a_port_that_is_taken_is_named_with_its_owner(tmp_path: Path, taken: int) -> None:
    with pytest.raises(PreflightError, match=rf"port taken: 127\.0\.0\.95:{taken} by pid {os.getpid()}: .*python"):
        preflight.check(tmp_path, single(taken))


def test_a_full_disk_is_told_with_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=100 * 2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(PreflightError, match=r"100 MiB are free .* a pool needs 512 MiB"):
        preflight.check(tmp_path, single(39000))


def test_free_ports_and_enough_space_are_fine(tmp_path: Path) -> None:
    preflight.check(tmp_path, single(39000))


def test_pam_without_its_service_file_is_refused(tmp_path: Path) -> None:
    wanted = Wanted(hosts=1, base_address="127.0.0.95", http_port=39000, auth="pam", pam_service="xapi-is-not-there")
    made = plan.make(Path("/srv"), wanted, plan.defaults(root=True, qemu=False))
    with pytest.raises(PreflightError, match=r"there is no /etc/pam\.d/xapi-is-not-there"):
        preflight.check(tmp_path, made)
