"""The `xen-api` package from npm, which Xen Orchestra is built on, against a pool."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pool import install
from tests.support.pool import PoolUnderTest

JOB = Path(__file__).parent / "job.mjs"
TEMPLATE = "Tiny guest"
PATIENCE = 120.0


@pytest.fixture(scope="module")
def modules() -> Path:
    """The folder with the package, as `make test` installs it."""
    if shutil.which("node") is None or not install.NODE_MODULES.is_dir():
        pytest.skip("there is no Node.js here, or the package could not be installed")
    return install.NODE_MODULES.parent


@pytest.mark.pool
@pytest.mark.parametrize("transport", ["json-rpc", "xml-rpc"])
def test_it_connects_watches_events_and_runs_a_vm(simulator_pool: PoolUnderTest, modules: Path, transport: str) -> None:
    seen = run(simulator_pool, modules, transport)
    assert seen["pool"] == "pool"
    assert seen["sessions"] is True
    assert seen["other_config"] == "xen-api"
    assert seen["record"] == {
        "power_state": "Running",
        "VCPUs_max": "number" if transport == "json-rpc" else "string",
        "is_a_template": False,
    }
    assert seen["resident"] == "host"
    assert seen["refused"] == {"code": "HANDLE_INVALID", "params": ["VM", "the VM"]}
    assert seen["events"]["add"] > 10
    assert seen["events"]["update"] > 0
    assert seen["events"]["remove"] > 0


def run(pool: PoolUnderTest, modules: Path, transport: str) -> dict[str, Any]:
    environment = {**os.environ, "XAPI_PASSWORD": pool.password, "NODE_MODULES": str(modules)}
    done = subprocess.run(
        ["node", str(JOB), pool.url, transport, TEMPLATE],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
