"""Which certificates of clients count, and a TLS context that can be exchanged while it is in use."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from services.api.edge.handshakes import Handshakes
from shared.config import ConfigError


def _none(_: bytes) -> bool:
    return False


class ClientTrust(msgspec.Struct, frozen=True):
    """Certificates count that one of `authorities` (PEM) has signed and that are made out to `name`.

    `is_revoked`: gets one that is all that, as DER.
    """

    authorities: str
    name: str
    is_revoked: Callable[[bytes], bool] = _none

    def apply(self, context: ssl.SSLContext) -> None:
        """Has clients asked for a certificate; those without one go on. Raises `ConfigError`.

        A certificate that nobody vouches for ends the handshake: OpenSSL goes on only where the application takes the
        verification over, and Python's has no way for that.
        """
        try:
            context.load_verify_locations(cadata=self.authorities)
        except (ssl.SSLError, ValueError) as error:
            raise ConfigError(f"cannot use the authorities for clients' certificates: {error}") from None
        context.verify_mode = ssl.CERT_OPTIONAL

    def accepts(self, connection: ssl.SSLObject | None) -> bool:
        """Whether the client at the other end of this connection has shown such a certificate."""
        certificate = connection.getpeercert() if connection is not None else None
        if connection is None or not certificate or not self._is_named(certificate):
            return False
        whole = connection.getpeercert(binary_form=True)
        return whole is not None and not self.is_revoked(whole)

    def _is_named(self, certificate: Mapping[str, Any]) -> bool:
        if not self.name:
            return False
        names = [value for kind, value in certificate.get("subjectAltName", ()) if kind == "DNS"]
        if not names:
            subject = [pair for part in certificate.get("subject", ()) for pair in part]
            names = [value for kind, value in subject if kind == "commonName"]
        return any(_is_name(self.name.lower(), name.lower()) for name in names)


def _is_name(name: str, pattern: str) -> bool:
    """A pattern's first label may be `*`, for any one label (RFC 6125)."""
    if not pattern.startswith("*."):
        return name == pattern
    first, dot, rest = name.partition(".")
    return bool(first and dot) and rest == pattern[2:]


class ListenerContext(ssl.SSLContext):
    """What a listener holds; each new connection is wrapped by what `choose` gives then.

    Loops ask the context they were given for every connection's TLS, and take nothing but an `SSLContext`.
    """

    choose: Callable[[], ssl.SSLContext]
    handshakes: Handshakes

    @staticmethod
    def of(choose: Callable[[], ssl.SSLContext], handshakes: Handshakes) -> ListenerContext:
        """Raises what `choose` raises, the first time."""
        choose()
        made = ListenerContext(ssl.PROTOCOL_TLS_SERVER)
        made.choose = choose
        made.handshakes = handshakes
        return made

    def wrap_bio(self, *args: Any, **named: Any) -> ssl.SSLObject:
        """Raises `TooManyHandshakes`."""
        self.handshakes.check()
        made = self.choose().wrap_bio(*args, **named)
        self.handshakes.begin(made)
        return made
