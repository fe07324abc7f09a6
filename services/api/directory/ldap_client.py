"""Conversations with LDAP servers, by ldap3. Everything here blocks: it is called in threads.

A conversation is one connection: made, used and closed. Servers are tried in order until one can be reached.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import ldap3
from ldap3.core import results
from ldap3.core.exceptions import LDAPException, LDAPStartTLSError
from pyasn1.error import PyAsn1Error

from services.api.directory.ldap_settings import PORTS, LdapSettings, Server
from services.api.directory.plugin import AuthFailure, ServiceError, Tag

PAGE: Final = 500
MOST: Final = 20_000
"""Entries that one search may find."""

_REFUSED: Final = frozenset(
    {
        results.RESULT_INVALID_CREDENTIALS,
        results.RESULT_NO_SUCH_OBJECT,
        results.RESULT_INAPPROPRIATE_AUTHENTICATION,
        results.RESULT_CONSTRAINT_VIOLATION,
        results.RESULT_INSUFFICIENT_ACCESS_RIGHTS,
        results.RESULT_UNWILLING_TO_PERFORM,
        results.RESULT_INVALID_DN_SYNTAX,
    }
)
"""How servers refuse a user's bind: a wrong password, an account that is locked or closed."""

_TAGS: Final = {
    results.RESULT_INVALID_CREDENTIALS: Tag.E_CREDENTIALS,
    results.RESULT_INAPPROPRIATE_AUTHENTICATION: Tag.E_CREDENTIALS,
    results.RESULT_INVALID_DN_SYNTAX: Tag.E_INVALID_ACCOUNT,
    results.RESULT_INSUFFICIENT_ACCESS_RIGHTS: Tag.E_DENIED,
    results.RESULT_NO_SUCH_OBJECT: Tag.E_INVALID_OU,
    results.RESULT_BUSY: Tag.E_UNAVAILABLE,
    results.RESULT_UNAVAILABLE: Tag.E_UNAVAILABLE,
    results.RESULT_STRONGER_AUTH_REQUIRED: Tag.E_TLS,
    results.RESULT_CONFIDENTIALITY_REQUIRED: Tag.E_TLS,
}

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Entry:
    """`attributes`: values as the server sent them, by lower-case name."""

    dn: str
    attributes: Mapping[str, list[bytes]]

    def text(self, name: str) -> str:
        """The first value, "" if there is none."""
        return next(iter(self.texts(name)), "")

    def texts(self, name: str) -> list[str]:
        return [value.decode("utf-8", "replace") for value in self.attributes.get(name.lower(), ())]

    def number(self, name: str) -> int | None:
        """None for what is absent or no number."""
        text = self.text(name)
        digits = text.removeprefix("-")
        return int(text) if digits.isascii() and digits.isdecimal() and len(digits) < 20 else None


class Conversation:
    """A connection, bound as the pool's own user."""

    def __init__(self, connection: ldap3.Connection, base: str) -> None:
        self._connection = connection
        self.base = base

    def find(self, filter: str, attributes: Iterable[str]) -> list[Entry]:
        """All entries below the base."""
        return self._search(self.base, ldap3.SUBTREE, filter, attributes)

    def read(self, dn: str, attributes: Iterable[str]) -> Entry | None:
        """One entry; None if it is not there, or not for us."""
        try:
            found = self._search(dn, ldap3.BASE, "(objectClass=*)", attributes)
        except ServiceError as error:
            if error.tag in (Tag.E_INVALID_OU, Tag.E_DENIED, Tag.E_INVALID_ACCOUNT):
                return None
            raise
        return found[0] if found else None

    def _search(self, base: str, scope: Any, filter: str, attributes: Iterable[str]) -> list[Entry]:
        wanted = list(attributes)
        entries: list[Entry] = []
        cookie: Any = None
        while True:
            with _translated(base):
                self._connection.search(
                    base,
                    filter,
                    scope,
                    ldap3.DEREF_NEVER,
                    attributes=wanted,
                    paged_size=PAGE if scope == ldap3.SUBTREE else None,
                    paged_cookie=cookie,
                )
            result = self._connection.result
            if result["result"] != results.RESULT_SUCCESS:
                raise _unserved(result, f"search below {base}")
            entries += _entries(self._connection.response or ())
            if len(entries) > MOST:
                raise ServiceError(Tag.E_GENERIC, f"a search finds more than {MOST} entries")
            controls = result.get("controls") or {}
            cookie = controls.get(_PAGED, {}).get("value", {}).get("cookie")
            if not cookie:
                return entries


_PAGED: Final = "1.2.840.113556.1.4.319"


def _entries(response: Iterable[Mapping[str, Any]]) -> list[Entry]:
    """References to other servers are not followed."""
    return [
        Entry(item["dn"], {name.lower(): list(values) for name, values in item["raw_attributes"].items()})
        for item in response
        if item["type"] == "searchResEntry"
    ]


class LdapClient:
    """Opens conversations with the servers of one directory."""

    def __init__(self, settings: LdapSettings, account: str, trusted: Sequence[Path] = ()) -> None:
        """`account`: what the pool's own user is called when it binds; "" to ask as nobody. `trusted`: folders of
        certificates, which count with the machine's own unless the settings bring some.
        """
        self.settings = settings
        self._trusted = tuple(trusted)
        self._account = account
        self._base = settings.base

    def converse(self, work: Callable[[Conversation], Result]) -> Result:
        """Raises `ServiceError`, and what `work` raises."""

        def bound(connection: ldap3.Connection) -> Result:
            with _translated(self._account):
                accepted = connection.bind()
            if not accepted:
                raise _unserved(connection.result, f"bind as {self._account or 'nobody'}")
            self._base = self._base or _own_base(connection)
            return work(Conversation(connection, self._base))

        return self._with_connection(self._account, self.settings.password, bound)

    def check_password(self, dn: str, password: str) -> None:
        """Raises `AuthFailure`, `ServiceError`. An empty password would be a bind as nobody, which succeeds."""
        if not dn or not password:
            raise AuthFailure("a name and a password are needed")

        def bind(connection: ldap3.Connection) -> None:
            with _translated(dn):
                accepted = connection.bind()
            if accepted:
                return
            if connection.result["result"] in _REFUSED:
                raise AuthFailure(_words(connection.result))
            raise _unserved(connection.result, "bind as a user")

        self._with_connection(dn, password, bind)

    def _with_connection(self, user: str, password: str, work: Callable[[ldap3.Connection], Result]) -> Result:
        unreachable = ServiceError(Tag.E_LOOKUP, "no server is named")
        for server in self.settings.servers:
            try:
                connection = self._connected(server, user, password)
            except ServiceError as error:
                unreachable = error
                continue
            try:
                return work(connection)
            finally:
                _closed(connection)
        raise unreachable

    def _connected(self, address: Server, user: str, password: str) -> ldap3.Connection:
        settings = self.settings
        server = ldap3.Server(
            address.host,
            port=address.port or PORTS["ldaps" if settings.ldaps else "ldap"],
            use_ssl=settings.ldaps,
            tls=_CheckedTls(address.host, _context(settings, self._trusted))
            if settings.ldaps or settings.starttls
            else None,
            connect_timeout=settings.timeout,
            get_info=ldap3.NONE,
        )
        # As bytes it is sent as it is. Of text the library leaves out what SASLprep does not keep, a soft hyphen for
        # one, and a password of nothing else would be a bind as nobody.
        secret: Any = password.encode(errors="surrogatepass") or None
        connection = ldap3.Connection(
            server,
            user=user or None,
            password=secret,
            authentication=ldap3.SIMPLE if user else ldap3.ANONYMOUS,
            auto_bind=ldap3.AUTO_BIND_NONE,
            auto_referrals=False,
            check_names=False,
            read_only=True,
            receive_timeout=settings.timeout,
        )
        try:
            with _translated(address.host):
                connection.open()
                if settings.starttls and not settings.ldaps:
                    connection.start_tls()
        except BaseException:
            _closed(connection)
            raise
        return connection


def _closed(connection: ldap3.Connection) -> None:
    """The server may have gone first; there is nothing left to lose then."""
    try:
        connection.unbind()
    except (LDAPException, OSError):
        connection.strategy.close()


class _CheckedTls(ldap3.Tls):
    """TLS whose certificate is checked against the server's name or address by the standard library: ldap3's own check
    knows no addresses.
    """

    def __init__(self, host: str, context: ssl.SSLContext) -> None:
        super().__init__(validate=ssl.CERT_REQUIRED)
        self._host, self._context = host, context

    def wrap_socket(self, connection: ldap3.Connection, do_handshake: bool = False) -> None:
        connection.socket = self._context.wrap_socket(
            connection.socket, do_handshake_on_connect=do_handshake, server_hostname=self._host
        )


def _context(settings: LdapSettings, trusted: Sequence[Path]) -> ssl.SSLContext:
    own = bool(settings.ca_file or settings.ca_certificates)
    try:
        context = ssl.create_default_context(cafile=settings.ca_file or None, cadata=settings.ca_certificates or None)
        for file in sorted(file for folder in trusted if not own for file in folder.glob("*.pem")):
            context.load_verify_locations(file)
    except FileNotFoundError as error:
        raise ServiceError(Tag.E_NO_TRUSTED_CERTS, f"there is no file {error.filename or settings.ca_file}") from error
    except (OSError, ValueError) as error:  # SSLError is an OSError
        raise ServiceError(Tag.E_INVALID_TRUSTED_CERTS, f"the trusted certificates cannot be used: {error}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _own_base(connection: ldap3.Connection) -> str:
    """What the server serves: its default naming context, or its only one."""
    with _translated("the root entry"):
        connection.search("", "(objectClass=*)", ldap3.BASE, attributes=["defaultNamingContext", "namingContexts"])
    found = _entries(connection.response or ())
    if found:
        contexts = found[0].texts("defaultNamingContext") or found[0].texts("namingContexts")
        if len(contexts) == 1:
            return contexts[0]
    raise ServiceError(Tag.E_INVALID_OU, "the server does not tell where to search: give base")


# ---- what went wrong


@contextmanager
def _translated(what: str) -> Iterator[None]:
    """Whatever the library and the network raise, as `ServiceError`."""
    try:
        yield
    except (LDAPException, OSError) as error:
        raise ServiceError(_tag(error), f"{what}: {error}") from error
    except _UNREADABLE as error:
        raise ServiceError(Tag.E_GENERIC, f"{what}: the server does not speak LDAP: {error!r}") from error


_UNREADABLE: Final = (PyAsn1Error, LookupError, ValueError, TypeError, AttributeError)
"""What the library's decoder raises for bytes that are no LDAP message."""


def _tag(error: BaseException) -> Tag:
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None and len(causes) < 10:
        causes.append(cause)
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
        return Tag.E_INVALID_TRUSTED_CERTS
    if any(isinstance(cause, ssl.SSLError | LDAPStartTLSError) for cause in causes):
        return Tag.E_TLS
    return Tag.E_UNAVAILABLE


def _unserved(result: Mapping[str, Any], what: str) -> ServiceError:
    return ServiceError(_TAGS.get(result["result"], Tag.E_GENERIC), f"{what}: {_words(result)}")


def _words(result: Mapping[str, Any]) -> str:
    message = str(result.get("message") or "").strip("\x00 ")
    return f"{result['description']} ({message})" if message else str(result["description"])
