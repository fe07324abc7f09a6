"""The module by which programs on a host call the XenAPI.

    session = XenAPI.xapi_local()
    session.login_with_password("root", "", "", "SM")
    session.xenapi.SR.get_by_uuid(uuid)

`session._session` (also `session.handle`) is the session's reference; calls by way of `.xenapi` have it as their first
argument. Calls on the session itself are bare: answers keep their envelope (`Status`, `Value`, `ErrorDescription`).
"""

from __future__ import annotations

import http.client
import os
import socket
import xmlrpc.client
from collections.abc import Callable
from typing import Any

API_VERSION_1_1 = "1.1"
API_VERSION_1_2 = "1.2"
SOCKET = "/var/lib/xcp/xapi"
ATTEMPTS = 3
"""How often a call is made whose session has ended each time."""


class Failure(Exception):
    """`details`: code and parameters."""

    def __init__(self, details: list[str]) -> None:
        super().__init__(details)
        self.details = details

    def __str__(self) -> str:
        return str(self.details)


class UDSHTTPConnection(http.client.HTTPConnection):
    """To a Unix socket, whose path is `path`."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self._path)


class UDSTransport(xmlrpc.client.Transport):
    """XML-RPC over a Unix socket, with headers of the caller's own."""

    def __init__(self, use_datetime: bool = False, path: str = SOCKET) -> None:
        super().__init__(use_datetime)
        self._path = path
        self._added: list[tuple[str, str]] = []

    def add_extra_header(self, key: str, value: str) -> None:
        self._added.append((key, value))

    def with_tracecontext(self) -> None:
        context = os.environ.get("TRACEPARENT")
        if context:
            self.add_extra_header("traceparent", context)

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        kept: Any = self._connection
        if not kept or kept[0] != host:
            kept = (host, UDSHTTPConnection(self._path))
            self._connection = kept
        connection: http.client.HTTPConnection = kept[1]
        return connection

    def send_headers(self, connection: http.client.HTTPConnection, headers: list[tuple[str, str]]) -> None:
        super().send_headers(connection, [*self._added, *headers])


class Session(xmlrpc.client.ServerProxy):
    """`uri`: of a host; with a `transport` for it, any. `ignore_ssl`: whatever certificate the host has."""

    def __init__(
        self,
        uri: str,
        transport: xmlrpc.client.Transport | None = None,
        encoding: str | None = None,
        verbose: bool = False,
        allow_none: bool = True,
        ignore_ssl: bool = False,
    ) -> None:
        context = None
        if ignore_ssl:
            import ssl  # takes longer than all the rest

            context = ssl._create_unverified_context()
        super().__init__(uri, transport, encoding, verbose, allow_none, context=context)
        self.transport = transport
        self._session: str | None = None
        self.last_login_method: str | None = None
        self.last_login_params: tuple[Any, ...] = ()
        self.API_version = API_VERSION_1_2

    def xenapi_request(self, methodname: str, params: tuple[Any, ...]) -> Any:
        """Raises `Failure`. A session of a password that has ended is made again."""
        if methodname.startswith(("login", "slave_local")):
            return self._login(methodname, params)
        if methodname in ("logout", "session.logout"):
            return self._logout()
        for _ in range(ATTEMPTS):
            try:
                return _value(getattr(self, methodname)(self._session, *params))
            except Failure as failure:
                if failure.details[0] != "SESSION_INVALID" or self.last_login_method is None:
                    raise
            self._login(self.last_login_method, self.last_login_params)
        raise Failure(["SESSION_INVALID", str(self._session)])

    def _login(self, method: str, params: tuple[Any, ...]) -> None:
        self._session = _value(getattr(self, f"session.{method}")(*params))
        self.last_login_method = method
        self.last_login_params = params

    def _logout(self) -> None:
        local = (self.last_login_method or "").startswith("slave_local")
        try:
            _value(getattr(self, "session.local_logout" if local else "session.logout")(self._session))
        finally:
            self._session = self.last_login_method = None
            self.last_login_params = ()

    def __getattr__(self, name: str) -> Any:
        if name == "handle":
            return self._session
        if name == "xenapi":
            return _Method(self.xenapi_request, "")
        if name.startswith(("login", "slave_local")):
            return lambda *params: self._login(name, params)
        if name == "logout":
            return self._logout
        if name.startswith("__"):
            raise AttributeError(name)
        return super().__getattr__(name)


def xapi_local() -> Session:
    """On the host's own socket, where root needs no password. `$XAPI_SOCKET` names another one."""
    return Session("http://localhost/", UDSTransport(path=os.environ.get("XAPI_SOCKET") or SOCKET))


def _value(reply: Any) -> Any:
    if not isinstance(reply, dict) or "Status" not in reply:
        raise xmlrpc.client.Fault(500, f"there is no Status in the answer {reply!r}")
    if reply["Status"] == "Success":
        return reply["Value"]
    raise Failure(reply["ErrorDescription"])


class _Method:
    """Collects the dotted name of a message, and sends it when it is called."""

    def __init__(self, send: Callable[[str, tuple[Any, ...]], Any], name: str) -> None:
        self._send = send
        self._name = name

    def __getattr__(self, name: str) -> _Method:
        return _Method(self._send, f"{self._name}.{name}" if self._name else name)

    def __call__(self, *args: Any) -> Any:
        return self._send(self._name, args)
