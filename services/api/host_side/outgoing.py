"""Requests that a host makes to servers outside the pool, checked as the host's trust says."""

from __future__ import annotations

import http.client
import ssl
from typing import IO, Final
from urllib.parse import urlsplit

from services.api.host_side.trust import TrustFolder
from shared.errors import ApiError

TIMEOUT: Final = 30.0
"""Seconds between two bytes."""
LARGEST: Final = 1 << 20
"""Bytes of an answer that are read."""
DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class Outgoing:
    """Blocking: to be called in a thread."""

    def __init__(self, trust: TrustFolder) -> None:
        self._trust = trust

    def post(self, host: str, port: int, body: str) -> str:
        """What a server answers to a POST of its root over HTTPS: status line, headers, body.

        Raises TLS_CONNECTION_FAILED [host, port], SSL_VERIFY_ERROR [reason], INVALID_VALUE for what is no host's name.
        """
        try:
            connection = http.client.HTTPSConnection(host, port, timeout=TIMEOUT, context=self._trust.client())
        except http.client.InvalidURL:
            raise ApiError("INVALID_VALUE", "host", host) from None
        try:
            self._connect(connection)
            connection.request("POST", "/", body.encode(), {"Connection": "close"})
            answer = connection.getresponse()
            lines = [f"HTTP/1.1 {answer.status} {answer.reason}", *(f"{name}: {v}" for name, v in answer.getheaders())]
            return "\r\n".join([*lines, "", answer.read(LARGEST).decode(errors="replace")])
        except ssl.SSLCertVerificationError as error:
            raise ApiError("SSL_VERIFY_ERROR", error.verify_message) from None
        except UnicodeError:
            raise ApiError("INVALID_VALUE", "host", host) from None
        except (OSError, http.client.HTTPException):
            raise ApiError("TLS_CONNECTION_FAILED", host, port) from None
        finally:
            connection.close()

    def upload(self, url: str, content: IO[bytes], proxy: str) -> int:
        """The status of a PUT. `proxy`: URL of one for HTTP, "" for none. Raises OSError, `HTTPException`, ValueError
        for what is no URL of HTTP or HTTPS, SSL_VERIFY_ERROR.
        """
        parts = urlsplit(url)
        if parts.scheme not in DEFAULT_PORTS or not parts.hostname:
            raise ValueError(url)
        port = parts.port or DEFAULT_PORTS[parts.scheme]
        via = urlsplit(proxy) if proxy else None
        if via is not None and not via.hostname:
            raise ValueError(proxy)
        host, at = (via.hostname, via.port or DEFAULT_PORTS["http"]) if via is not None else (parts.hostname, port)
        connection: http.client.HTTPConnection
        target = parts.path or "/"
        target += f"?{parts.query}" if parts.query else ""
        if parts.scheme == "https":
            connection = http.client.HTTPSConnection(host or "", at, timeout=TIMEOUT, context=self._trust.client())
            if via is not None:
                connection.set_tunnel(parts.hostname, port)
        else:
            connection = http.client.HTTPConnection(host or "", at, timeout=TIMEOUT)
            target = url if via is not None else target
        try:
            self._connect(connection)
            size = content.seek(0, 2)
            content.seek(0)
            headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream", "Connection": "close"}
            connection.request("PUT", target, content, headers)
            return connection.getresponse().status
        except ssl.SSLCertVerificationError as error:
            raise ApiError("SSL_VERIFY_ERROR", error.verify_message) from None
        finally:
            connection.close()

    def _connect(self, connection: http.client.HTTPConnection) -> None:
        connection.connect()
        if isinstance(connection.sock, ssl.SSLSocket) and self._trust.verify:
            shown = connection.sock.getpeercert(binary_form=True)
            if shown is not None and self._trust.is_revoked(shown):
                raise ApiError("SSL_VERIFY_ERROR", "certificate revoked")
