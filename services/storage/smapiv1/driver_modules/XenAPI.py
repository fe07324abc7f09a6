"""The module by which drivers of SMAPIv1 and plug-ins call the XenAPI, with the standard library alone.

    session = XenAPI.xapi_local()
    session.login_with_password("root", "", "", "SM")
    session.xenapi.SR.get_by_uuid(uuid)

`session._session` (also `session.handle`) is the reference; methods of the proxy add it as the first argument. Without
`.xenapi`, a session is the bare proxy, whose answers keep their envelope (`Status`, `Value`, `ErrorDescription`).
"""

import http.client
import os
import socket
import xmlrpc.client

API_VERSION_1_1 = "1.1"
API_VERSION_1_2 = "1.2"
SOCKET = "/var/lib/xcp/xapi"
RETRIES = 3
"""How often a call is made again whose session has ended."""


class Failure(Exception):
    """`details`: code and parameters."""

    def __init__(self, details):
        super().__init__(details)
        self.details = details

    def __str__(self):
        return f"{self.details}"

    def _details_map(self):
        return {str(number): detail for number, detail in enumerate(self.details)}


class UDSHTTPConnection(http.client.HTTPConnection):
    """To a Unix socket; the host's name is the socket's path."""

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self.host.replace("#", "/"))


class UDSTransport(xmlrpc.client.Transport):
    def __init__(self, use_datetime=False, use_builtin_types=False, path=SOCKET):
        super().__init__(use_datetime, use_builtin_types)
        self._path = path
        self._extra_headers = []

    def add_extra_header(self, key, value):
        self._extra_headers.append((key, value))

    def with_tracecontext(self):
        context = os.environ.get("TRACEPARENT")
        if context:
            self.add_extra_header("traceparent", context)

    def make_connection(self, host):
        if self._connection and host == self._connection[0]:
            return self._connection[1]
        self._connection = host, UDSHTTPConnection(self._path.replace("/", "#"))
        return self._connection[1]

    def send_headers(self, connection, headers):
        super().send_headers(connection, [*self._extra_headers, *headers])


def notimplemented(name, *args, **kwargs):
    raise NotImplementedError("XMLRPC proxies do not support python magic methods", name, *args, **kwargs)


class Session(xmlrpc.client.ServerProxy):
    """`uri`: http(s)://HOST, or anything with a `transport` of one's own."""

    def __init__(
        self,
        uri,
        transport=None,
        encoding=None,
        verbose=False,
        allow_none=True,
        ignore_ssl=False,
    ):
        context = None
        if ignore_ssl:
            import ssl

            context = ssl._create_unverified_context()
        if transport is None and uri.startswith("http+unix://"):
            transport, uri = UDSTransport(path=uri[len("http+unix://") :].rstrip("/") or SOCKET), "http://localhost"
        super().__init__(uri, transport, encoding, verbose, allow_none, context=context)
        self.transport = transport
        self._session = None
        self.last_login_method = None
        self.last_login_params = None
        self.API_version = API_VERSION_1_2

    def xenapi_request(self, methodname, params):
        if methodname.startswith("login") or methodname.startswith("slave_local_login"):
            self._login(methodname, params)
            return None
        if methodname in ("logout", "session.logout"):
            self._logout()
            return None
        for _ in range(RETRIES):
            reply = getattr(self, methodname)(self._session, *params)
            try:
                return _value(reply)
            except _SessionEnded:
                if self.last_login_method is None:
                    raise Failure(reply["ErrorDescription"]) from None
                self._login(self.last_login_method, self.last_login_params)
        raise Failure(["SESSION_INVALID", str(self._session)])

    def _login(self, method, params):
        self._session = _value(getattr(self, f"session.{method}")(*params))
        self.last_login_method = method
        self.last_login_params = params

    def _logout(self):
        try:
            if self.last_login_method is not None and self.last_login_method.startswith("slave_local"):
                _value(self.session.local_logout(self._session))
            else:
                _value(self.session.logout(self._session))
        finally:
            self._session = None
            self.last_login_method = None
            self.last_login_params = None

    def __getattr__(self, name):
        if name == "handle":
            return self._session
        if name == "xenapi":
            return _Dispatcher(self.xenapi_request, None)
        if name.startswith("login") or name.startswith("slave_local"):
            return lambda *params: self._login(name, params)
        if name == "logout":
            return lambda *params: self._logout()
        if name.startswith("__") and name.endswith("__"):
            return lambda *args, **kwargs: notimplemented(name, *args, **kwargs)
        return super().__getattr__(name)


def xapi_local():
    """On the host's own socket, where root needs no password."""
    return Session("http://_var_lib_xcp_xapi/", transport=UDSTransport())


class _SessionEnded(Exception):
    pass


def _value(reply):
    if not isinstance(reply, dict) or "Status" not in reply:
        raise xmlrpc.client.Fault(500, f"Missing Status in response from server: {reply!r}")
    if reply["Status"] == "Success":
        return reply["Value"]
    details = reply["ErrorDescription"]
    if details and details[0] == "SESSION_INVALID":
        raise _SessionEnded
    raise Failure(details)


class _Dispatcher:
    """Collects the dotted name of a method."""

    def __init__(self, send, name):
        self._send = send
        self._name = name

    def __repr__(self):
        return f"<XenAPI._Dispatcher for {self._name or ''}>"

    def __getattr__(self, name):
        return _Dispatcher(self._send, name if self._name is None else f"{self._name}.{name}")

    def __call__(self, *args):
        return self._send(self._name, args)
