"""Fixtures: a user of this system, and the project's PAM service. Both need root and are gone afterwards."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

SERVICE_FILE = Path(__file__).resolve().parents[2] / "pool" / "pam" / "xapi"


class Account(NamedTuple):
    name: str
    password: str


@pytest.fixture
def account() -> Iterator[Account]:
    if os.geteuid() != 0 or shutil.which("useradd") is None:
        pytest.skip("needs root and useradd")
    made = Account(f"xapi-{secrets.token_hex(4)}", secrets.token_hex(12))
    subprocess.run(["useradd", "--no-create-home", "--shell", "/usr/sbin/nologin", made.name], check=True)
    try:
        subprocess.run(["chpasswd"], input=f"{made.name}:{made.password}", text=True, check=True)
        yield made
    finally:
        subprocess.run(["userdel", made.name], check=True)


@pytest.fixture
def pam_service() -> Iterator[str]:
    """The name under which the project's PAM service file is installed for this test."""
    if os.geteuid() != 0:
        pytest.skip("only root installs PAM services")
    path = Path("/etc/pam.d") / f"xapi-{secrets.token_hex(4)}"
    path.write_text(SERVICE_FILE.read_text())
    try:
        yield path.name
    finally:
        path.unlink()
