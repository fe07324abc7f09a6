"""What VDI.get_nbd_info says of a host's certificate is enough for clients that check it, strict ones too."""

from __future__ import annotations

import asyncio
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from services.storage.nbd.address import Address
from services.storage.nbd.client import NbdClient
from tests.storage.nbd_front import served as there
from tests.storage.nbd_front.served import ADDRESS, served

STARTTLS = b"IHAVEOPT" + struct.pack(">II", 5, 0)


async def openssl(*words: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *("openssl", *words),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode is not None
    return process.returncode, said.decode()


@asynccontextmanager
async def inside_tls(port: int) -> AsyncIterator[int]:
    """A port for programs that know TLS and not NBD: it says what comes before TLS."""

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(ADDRESS, port)
        await there.readexactly(18)
        back.write(struct.pack(">I", 1) + STARTTLS)
        await there.readexactly(20)
        await asyncio.gather(pass_on(reader, back), pass_on(there, writer), return_exceptions=True)

    server = await asyncio.start_server(serve, ADDRESS, 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_strict_clients_believe_the_certificate_for_its_subject_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(there, "HAGGLE_WITHIN", 20.0)  # other programs take a while to begin
    async with served(tmp_path, monkeypatch) as host:
        vdi = await host.disk()
        await host.purpose("nbd")
        info = await host.info(vdi)
        authority = tmp_path / "authority.pem"
        authority.write_text(info["cert"])

        trust = ("-CAfile", str(authority), "-x509_strict", "-purpose", "sslserver")
        assert (await openssl("verify", *trust, "-verify_hostname", info["subject"], str(authority)))[0] == 0
        async with inside_tls(host.port) as port:
            connect = ("s_client", "-connect", f"{ADDRESS}:{port}", *trust, "-verify_return_error")
            status, said = await openssl(*connect, "-verify_hostname", info["subject"])
            assert (status, "Verify return code: 0 (ok)" in said) == (0, True), said
            assert (await openssl(*connect, "-verify_hostname", "somebody.else"))[0] != 0

        tls = ssl.create_default_context(cadata=info["cert"])
        tls.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
        address = Address(host=ADDRESS, port=host.port, export=info["exportname"])
        client = await NbdClient.connect(address, tls=tls, server_name=info["subject"])
        assert await client.read(0, 512) == bytes(512)
        await client.close()
        with pytest.raises(OSError, match=r"somebody\.else|certificate"):
            await NbdClient.connect(address, tls=tls, server_name="somebody.else")
        await host.until_closed()
