import asyncio
import socket
import stat
from pathlib import Path

import pytest
from cryptography import x509

from services.api.edge.endpoint import Endpoint, Kind
from services.api.edge.listeners import ListenError
from services.api.edge.tls import Certificates
from shared.config import ConfigError, HostConfig
from tests.api.edge.conftest import HOST, Running, Start
from tests.api.edge.fakes import Client, call, post, unverified


async def test_a_port_that_is_taken_is_named(edge: Running) -> None:
    taken = Endpoint(HOST.uuid, Kind.PLAIN, "127.0.0.1", edge.port)
    with pytest.raises(ListenError, match=rf"HTTP on 127.0.0.1 port {edge.port}: another process uses it"):
        await edge.edge.listen(HOST, [taken])


async def test_an_address_of_another_machine_is_named(edge: Running) -> None:
    with pytest.raises(ListenError, match=r"192.0.2.1 port 0: this machine has no such address"):
        await edge.edge.listen(HOST, [Endpoint(HOST.uuid, Kind.PLAIN, "192.0.2.1")])


async def test_a_port_that_is_not_permitted_is_named(edge: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: socket.socket, address: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", refuse, raising=False)
    with pytest.raises(ListenError, match=r"HTTPS on 127.0.0.1 port 443: not permitted"):
        await edge.edge.listen(HOST, [Endpoint(HOST.uuid, Kind.TLS, "127.0.0.1", 443)])


async def test_a_socket_in_use_is_not_taken_away(edge: Running) -> None:
    with pytest.raises(ListenError, match="another process uses it"):
        await edge.edge.listen(HOST, [Endpoint(HOST.uuid, Kind.UNIX, path=str(edge.socket))])


async def test_a_socket_left_behind_is_replaced_and_only_its_owner_may_use_it(edge: Running, tmp_path: Path) -> None:
    path = tmp_path / "old"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    await edge.edge.listen(HOST, [Endpoint(HOST.uuid, Kind.UNIX, path=str(path))])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_path_too_long_for_a_socket_is_named(edge: Running, tmp_path: Path) -> None:
    with pytest.raises(ListenError, match="longer than a socket's address"):
        await edge.edge.listen(HOST, [Endpoint(HOST.uuid, Kind.UNIX, path=str(tmp_path / ("x" * 120)))])


async def test_the_listener_tells_which_host_is_meant(edge: Running) -> None:
    other = HostConfig(uuid="host-2", name="host2", address="127.0.0.1", simulated=True)
    [opened] = await edge.edge.listen(other, [Endpoint(other.uuid, Kind.TLS, other.address)])
    client = Client(*await asyncio.open_connection(other.address, opened.port, ssl=unverified()))
    await client.ask(post(call("test.echo", "s", "x")))
    await (await edge.client()).ask(post(call("test.echo", "s", "x")))
    assert [caller.host for caller, _, _ in edge.dispatcher.calls] == ["host-2", HOST.uuid]
    client.close()


# ---- certificates


def test_certificates_are_made_once_and_kept(tmp_path: Path) -> None:
    Certificates(tmp_path).context(HOST)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    Certificates(tmp_path).context(HOST)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in before)


def test_a_certificate_names_its_host(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    certificates.context(HOST)
    certificate = x509.load_pem_x509_certificate(certificates.pem(HOST).encode())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["host1"]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
    assert len(certificates.fingerprint(HOST, "sha-256")) == 64
    assert len(certificates.fingerprint(HOST, "sha-1")) == 40


@pytest.mark.parametrize("name", ["key.pem", f"{HOST.uuid}.pem"])
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, name: str) -> None:
    Certificates(tmp_path).context(HOST)
    (tmp_path / name).write_text("rubbish")
    with pytest.raises(ConfigError, match=name):
        Certificates(tmp_path).context(HOST)


async def test_a_client_that_speaks_no_tls_disturbs_nobody(edge: Running) -> None:
    client = Client(*await asyncio.open_connection("127.0.0.1", edge.tls_port))
    await client.send(post(call("test.echo", "s", "x")))
    await client.reader.read()
    client.close()
    good = await edge.client(Kind.TLS)
    assert (await good.ask(post(call("test.echo", "s", "x")))).value == "x"


async def test_two_edges_do_not_disturb_each_other(start: Start, tmp_path: Path) -> None:
    first = await start()
    with pytest.raises(ListenError):
        await start()
    assert (await (await first.client()).ask(post(call("test.echo", "s", "x")))).value == "x"
