"""LDAP servers that the tests of a module share, and pools of a test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.api.directory import people
from tests.api.harness import Client, Pool
from tests.support import slapd
from tests.support.slapd import Slapd

AD_SCHEMA = Path(__file__).with_name("ad.schema")


@pytest.fixture(scope="module")
def openldap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slapd]:
    """Started; with the overlays that write `memberOf` and know password policies."""
    slapd.required()
    server = Slapd(
        tmp_path_factory.mktemp("openldap"), people.openldap(), ["nis"], ["overlay memberof", "overlay ppolicy"]
    )
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def active_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slapd]:
    slapd.required()
    server = Slapd(tmp_path_factory.mktemp("ad"), people.active_directory(), [AD_SCHEMA])
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def pool(tmp_path: Path) -> AsyncIterator[Pool]:
    """One host; failed logins are not delayed."""
    pool = await Pool.start(tmp_path, hosts=1)
    pool.api.directory.logins.failure_delay = 0.0
    yield pool
    await pool.stop()


@pytest.fixture
async def root(pool: Pool) -> Client:
    return await pool.login()
