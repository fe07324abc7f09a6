"""LDAP servers that the tests of a module share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.directory import people
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
