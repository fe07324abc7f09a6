"""Servers outside the pool that hosts connect to, and whom they trust there; the pool secret."""

from __future__ import annotations

import http.server
import ssl
import tarfile
import threading
from collections.abc import AsyncIterator, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from shared import pool_secret
from tests.api.harness import Client, Pool
from tests.api.messages.pki import Authority, certificate, key_pem, rsa_key

SECRET = "old-" + "x" * 40


@pytest.fixture
async def pool(tmp_path: Path) -> AsyncIterator[Pool]:
    running = await Pool.start(tmp_path)
    pool_secret.write(running.secret_file, [SECRET])
    await running.start_api(1)
    yield running
    await running.stop()


class Outside(http.server.ThreadingHTTPServer):
    """A server on loopback with a certificate of `authority`."""

    def __init__(self, folder: Path, tls: bool) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.authority = Authority("outside")
        self.certificate = certificate("127.0.0.1", issuer=self.authority, key=2)
        self.got: list[tuple[str, str, bytes]] = []
        if tls:
            (folder / "outside.pem").write_text(self.certificate + key_pem(rsa_key(2)))
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(folder / "outside.pem")
            self.socket = context.wrap_socket(self.socket, server_side=True)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away because of the certificate are what is tested."""


class _Answers(http.server.BaseHTTPRequestHandler):
    server: Outside

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((self.command, self.path, body))
        self.send_response(200)
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"done")

    do_POST = do_PUT = _answer

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


def running(server: Outside) -> Iterator[Outside]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[Outside]:
    yield from running(Outside(tmp_path, tls=True))


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[Outside]:
    yield from running(Outside(tmp_path, tls=False))


async def test_servers_outside_are_checked_once_the_pool_says_so(pool: Pool, client: Client, secure: Outside) -> None:
    test = ("pool.send_test_post", "127.0.0.1", secure.server_port, "hello")
    answer = await client.call(*test)
    assert answer.startswith("HTTP/1.1 200 OK\r\n")
    assert answer.endswith("\r\n\r\ndone")
    assert secure.got == [("POST", "/", b"hello")]
    await client.call("pool.enable_tls_verification")
    assert (await client.refusal(*test))[0] == "SSL_VERIFY_ERROR"
    await client.call("host.emergency_disable_tls_verification")
    await client.call(*test)


async def test_a_server_that_does_not_answer(pool: Pool, client: Client) -> None:
    refused = await client.refusal("pool.send_test_post", "127.0.0.1", 1, "hello")
    assert refused == ["TLS_CONNECTION_FAILED", "127.0.0.1", "1"]


async def test_a_pinned_certificate_needs_no_authority_and_a_revoked_one_has_none(
    pool: Pool, client: Client, secure: Outside
) -> None:
    await client.call("pool.enable_tls_verification")
    trust = pool.core.host_side.trust(pool.hosts[0].uuid)
    shown = x509.load_pem_x509_certificate(secure.certificate.encode())
    ref = next(iter(pool.store.rows("pool")))
    await client.call("pool.install_trusted_certificate", ref, False, secure.certificate, ["ldaps"])
    assert trust.client().verify_flags & ssl.VERIFY_X509_PARTIAL_CHAIN
    der = ssl.PEM_cert_to_DER_cert(secure.certificate)
    assert not trust.is_revoked(der)
    await client.call("pool.crl_install", "ours.pem", secure.authority.crl(shown.serial_number))
    assert trust.is_revoked(der)
    await client.call("pool.crl_uninstall", "ours.pem")
    await client.call("pool.crl_install", "others.pem", Authority("another").crl(shown.serial_number))
    assert not trust.is_revoked(der)


@pytest.mark.parametrize(("host", "port", "code"), [("x" * 70, 1, "INVALID_VALUE"), ("127.0.0.1", 0, "INVALID_VALUE")])
async def test_what_is_no_servers_address(pool: Pool, client: Client, host: str, port: int, code: str) -> None:
    assert (await client.refusal("pool.send_test_post", host, port, ""))[0] == code


async def test_a_report_about_a_host_is_sent_to_who_can_help(pool: Pool, client: Client, plain: Outside) -> None:
    url = f"http://127.0.0.1:{plain.server_port}/reports/new?ticket=1"
    await client.call("host.bugreport_upload", pool.host_ref(1), url, {})
    await client.call(
        "host.bugreport_upload",
        pool.host_ref(0),
        "http://nowhere.invalid/",
        {"http_proxy": f"http://127.0.0.1:{plain.server_port}"},
    )
    paths = [path for _, path, _ in plain.got]
    assert paths == ["/reports/new?ticket=1", "http://nowhere.invalid/"]
    with tarfile.open(fileobj=BytesIO(plain.got[0][2])) as archive:
        assert any(name.endswith("versions") for name in archive.getnames())
    assert await client.refusal("host.bugreport_upload", pool.host_ref(0), "x", {}) == ["INVALID_VALUE", "url", "x"]
    code, _ = await client.refusal("host.bugreport_upload", pool.host_ref(0), "http://127.0.0.1:1/", {})
    assert code == "SYSTEM_STATUS_RETRIEVAL_FAILED"


# ---- the pool secret


def pending(pool: Pool) -> Path:
    return pool.secret_file.with_name(f"{pool.secret_file.name}.pending")


async def test_the_pool_secret_is_exchanged_for_a_new_one(pool: Pool, client: Client) -> None:
    await client.call("pool.rotate_secret")
    [new] = pool_secret.read(pool.secret_file)
    assert new != SECRET
    assert not next(iter(pool.store.rows("pool").values()))["is_psr_pending"]
    assert not pending(pool).exists()


async def test_an_exchange_that_was_interrupted_goes_on_with_the_same_secret(pool: Pool, client: Client) -> None:
    await pool.stop_api(1)
    assert (await client.refusal("pool.rotate_secret"))[0] == "HOST_OFFLINE"
    _, new = pool_secret.read(pending(pool))
    assert next(iter(pool.store.rows("pool").values()))["is_psr_pending"]
    await pool.start_api(1)
    await client.call("pool.rotate_secret")
    assert pool_secret.read(pool.secret_file) == [new]


async def test_hosts_are_told_of_a_new_secret_step_by_step(pool: Pool, client: Client) -> None:
    new = "new-" + "y" * 40
    for step, known in (
        ("notify_accept_new_pool_secret", [SECRET, new]),
        ("notify_send_new_pool_secret", [new, SECRET]),
        ("cleanup_pool_secret", [new]),
    ):
        await client.call(f"host.{step}", pool.host_ref(1), SECRET, new)
        assert pool_secret.read(pool.secret_file) == known
    refused = await client.refusal("host.cleanup_pool_secret", pool.host_ref(1), SECRET, "short")
    assert refused == ["INVALID_VALUE", "new_ps", ""]


async def test_memory_is_kept_for_a_vm_that_will_come(pool: Pool, client: Client) -> None:
    vm, host = await pool.vm(client), pool.host_ref(1)
    before = await client.call("host.compute_free_memory", host)
    await client.call("host.allocate_resources_for_vm", host, vm, False)
    assert await client.call("host.compute_free_memory", host) < before
    await client.call("host.disable", host)
    assert (await client.refusal("host.allocate_resources_for_vm", host, vm, False))[0] == "HOST_DISABLED"
