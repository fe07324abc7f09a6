"""External authentication on one host: the API process of each host has its own plug-in, the coordinator tells it what
to do.
"""

from __future__ import annotations

from shared.bus.contract import Empty, Method, Record


class Enable(Record, frozen=True):
    """`auth_type`, `service_name`, `config`: as in `host.enable_external_auth`, secrets included."""

    auth_type: str
    service_name: str
    config: dict[str, str]


class Disable(Record, frozen=True):
    config: dict[str, str]


class SetLdaps(Record, frozen=True):
    """`force`: without trying whether it works."""

    ldaps: bool
    force: bool


class Configuration(Record, frozen=True):
    """What clients may see as `host.external_auth_configuration`. What is secret stays on the host."""

    configuration: dict[str, str]


_A = "api"
_LONG = 180.0
"""Seconds: a directory may be asked several times, and each of its servers."""

ENABLE = Method(
    _A,
    "directory_enable",
    Enable,
    Configuration,
    "Joins the directory. It is used from when the host's row says so.",
    timeout=_LONG,
    errors=("AUTH_UNKNOWN_TYPE", "AUTH_ENABLE_FAILED"),
)
DISABLE = Method(
    _A,
    "directory_disable",
    Disable,
    Empty,
    "Leaves the directory. It is used until the host's row says otherwise.",
    timeout=_LONG,
    errors=("AUTH_DISABLE_FAILED",),
)
SET_LDAPS = Method(
    _A,
    "directory_set_ldaps",
    SetLdaps,
    Configuration,
    "Chooses between LDAP over TLS and plain LDAP, from when the host's row says so.",
    timeout=_LONG,
    errors=("AUTH_SET_LDAPS_FAILED", "AUTH_IS_DISABLED"),
)
