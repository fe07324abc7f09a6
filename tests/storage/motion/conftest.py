from __future__ import annotations

from pathlib import Path

import pytest

from services.api.edge.tls import Certificates, Shown
from tests.storage.motion.two_hosts import HOSTS
from tests.vm.conftest import guest_dir, short_folder

__all__ = ["guest_dir", "short_folder"]


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two hosts show each other, as their API processes make it."""
    folder = tmp_path_factory.mktemp("certificates")
    made = Certificates(folder)
    for host in HOSTS.values():
        made.pem(host, Shown.HOSTS)
    return folder
