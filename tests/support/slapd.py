"""A real LDAP server of a test's own: Debian's slapd on a port of the loopback, its data in a temporary folder."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

SLAPD = shutil.which("slapd") or "/usr/sbin/slapd"
SCHEMAS = Path("/etc/ldap/schema")
MODULES = Path("/usr/lib/ldap")

SUFFIX = "dc=example,dc=test"
ADMIN = f"cn=admin,{SUFFIX}"
ADMIN_PASSWORD = "the admin's"

START_PATIENCE = 60.0


def required() -> None:
    """Skips where Debian's packages slapd and ldap-utils are not installed."""
    if not Path(SLAPD).exists() or not SCHEMAS.is_dir():
        pytest.skip("needs slapd (apt-get install slapd ldap-utils)")


class Slapd:
    """`schemas`: files, or names of Debian's. `extra`: lines of its configuration for the database."""

    def __init__(self, folder: Path, ldif: str, schemas: Sequence[str | Path] = (), extra: Sequence[str] = ()) -> None:
        self.folder = folder
        self.port, self.tls_port = _free_port(), _free_port()
        self.base = SUFFIX
        self._process: subprocess.Popen[bytes] | None = None
        (folder / "data").mkdir(parents=True)
        (folder / "data.ldif").write_text(ldif)
        self._configuration = folder / "slapd.conf"
        self._write_configuration(schemas, extra)
        self._run("-Ta", "-l", str(folder / "data.ldif"))

    @property
    def url(self) -> str:
        return f"ldap://127.0.0.1:{self.port}"

    @property
    def tls_url(self) -> str:
        return f"ldaps://127.0.0.1:{self.tls_port}"

    def certificate(self, certificate: str, key: str) -> None:
        """PEM texts of the server's certificate and key; from the next start it speaks TLS on both ports."""
        for name, text in (("server.pem", certificate), ("server.key", key)):
            (self.folder / name).write_text(text)
        lines = [f"TLSCertificateFile {self.folder}/server.pem", f"TLSCertificateKeyFile {self.folder}/server.key"]
        self._configuration.write_text("\n".join((*lines, self._configuration.read_text())))

    def _write_configuration(self, schemas: Sequence[str | Path], extra: Sequence[str]) -> None:
        names: tuple[str | Path, ...] = ("core", "cosine", "inetorgperson", *schemas)
        files = [name if isinstance(name, Path) else SCHEMAS / f"{name}.schema" for name in names]
        lines = [
            *(f"include {file}" for file in files),
            f"modulepath {MODULES}",
            *(f"moduleload {name}" for name in ("back_mdb", "memberof", "ppolicy")),
            f"pidfile {self.folder}/pid",
            "allow bind_anon_dn bind_anon_cred",  # a bind without a password succeeds: nobody may take it for a login
            "database mdb",
            "maxsize 33554432",
            f"suffix {SUFFIX}",
            f"rootdn {ADMIN}",
            f'rootpw "{ADMIN_PASSWORD}"',
            f"directory {self.folder}/data",
            *extra,
        ]
        self._configuration.write_text("\n".join(lines) + "\n")

    def _run(self, *arguments: str, text: str = "") -> None:
        command = [SLAPD, *arguments, "-f", str(self._configuration)]
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr

    def start(self) -> None:
        """Returns when it answers."""
        urls = self.url
        if (self.folder / "server.pem").exists():
            urls += f" {self.tls_url}"
        log = self.folder / "log"
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [SLAPD, "-f", str(self._configuration), "-h", urls, "-d", "0"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        _wait_for_port(self.port, self._process, log)

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            process.wait(30)

    def change(self, ldif: str) -> None:
        """Applies changes as the administrator, while it runs."""
        command = ["ldapmodify", "-x", "-H", self.url, "-D", ADMIN, "-w", ADMIN_PASSWORD]
        done = subprocess.run(command, input=ldif, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr

    def set(self, dn: str, attribute: str, value: str) -> None:
        self.change(f"dn: {dn}\nchangetype: modify\nreplace: {attribute}\n{attribute}: {value}\n")

    def delete(self, dn: str) -> None:
        self.change(f"dn: {dn}\nchangetype: delete\n")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """There is no event to wait for: the server tells nobody that it listens."""
    deadline = time.monotonic() + START_PATIENCE
    while time.monotonic() < deadline:
        assert process.poll() is None, f"slapd ended: {log.read_text()}"
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                return
        except OSError:
            time.sleep(0.02)
    raise AssertionError(f"slapd does not listen: {log.read_text()}")
