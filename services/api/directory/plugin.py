"""What a directory plug-in is. One object serves one host and one directory, from `on_enable` to `on_disable`, and is
made again at every start of the service.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, Protocol

from shared.datamodel.errors import CATALOGUE
from shared.errors import ApiError


class Tag(StrEnum):
    """Why a directory could not serve. The value is what it adds to an error code, where the catalogue has that."""

    E_GENERIC = ""
    E_LOOKUP = "_DOMAIN_LOOKUP_FAILED"
    E_DENIED = "_PERMISSION_DENIED"
    E_CREDENTIALS = "_WRONG_CREDENTIALS"
    E_UNAVAILABLE = "_UNAVAILABLE"
    E_INVALID_OU = "_INVALID_OU"
    E_INVALID_ACCOUNT = "_INVALID_ACCOUNT"
    E_NO_TRUSTED_CERTS = "_NO_TRUSTED_CERTS"
    E_INVALID_TRUSTED_CERTS = "_INVALID_TRUSTED_CERTS"
    E_TLS = "_SETUP_TLS_CONNECTION"


class AuthFailure(Exception):
    """These are not the credentials of anybody whom the directory lets in."""


class SubjectNotFound(Exception):
    """The directory knows no user or group of that name or identifier, or more than one."""


class ServiceError(Exception):
    """The directory could not be asked, or would not answer: nothing is said about the user."""

    def __init__(self, tag: Tag, message: str) -> None:
        super().__init__(message)
        self.tag = tag
        self.message = message


def tagged(code: str, error: ServiceError) -> str:
    """That error code, or what the catalogue has for it that says more."""
    return next((exact for exact in (code + error.tag, "AUTH" + error.tag) if exact in CATALOGUE), code)


def api_error(code: str, error: ServiceError) -> ApiError:
    """`<code> [message]`."""
    return ApiError(tagged(code, error), error.message)


class UnknownType(Exception):
    """There is no plug-in of that name on this host."""


Configuration = Mapping[str, str]


class Plugin(Protocol):
    """Identifiers are unique in the directory and never used again for somebody else.

    Every method may raise `ServiceError`. None blocks the event loop; each comes to an end by itself within a minute or
    two. `on_enable` and `on_disable` may be called again after a failure.
    """

    async def authenticate_username_password(self, name: str, password: str) -> str:
        """The user's identifier. Raises `AuthFailure`. Neither is ever empty or holds a zero character."""
        ...

    async def authenticate_ticket(self, ticket: str) -> str:
        """The same for what another system has vouched for. Raises `AuthFailure`."""
        ...

    async def get_subject_identifier(self, name: str) -> str:
        """Of a user or group. Raises `SubjectNotFound`."""
        ...

    async def query_subject_information(self, identifier: str) -> dict[str, str]:
        """See `subject_information`. Raises `SubjectNotFound`."""
        ...

    async def query_group_membership(self, identifier: str) -> list[str]:
        """All groups that it is in, through other groups too. Raises `SubjectNotFound`."""
        ...

    async def on_enable(self, config: Configuration) -> None:
        """The host joins the directory: everything is checked that can be, since from now on logins depend on it."""
        ...

    async def on_disable(self, config: Configuration) -> None: ...

    async def on_xapi_initialize(self, system_boot: bool) -> None:
        """The service has started. `system_boot`: for the first time since the machine did. Called until it succeeds;
        nobody is authenticated before.
        """
        ...

    async def on_xapi_exit(self) -> None:
        """The plug-in will not be used any more."""
        ...

    async def set_ldaps(self, ldaps: bool, force: bool) -> dict[str, str]:
        """What changes in the configuration. `force`: without trying whether it works."""
        ...


SECRET_KEYS: Final = frozenset({"pass", "password"})


def is_secret(key: str) -> bool:
    """Whether a configuration key's value is kept by the host alone and never shown to clients."""
    return key in SECRET_KEYS or key.endswith(("_password", "_pass", "_secret"))
