"""The SR type `smb`: a folder of an SMB share, used by the hosts of a pool."""

from __future__ import annotations

from services.storage.plugins.errors import Failure, backend_failure
from services.storage.plugins.interface import Probed
from services.storage.plugins.mounted import Kind, MediumSkeleton
from services.storage.plugins.mounted_point import Failures, Mount, Mounted
from services.storage.plugins.program import run

HELPER = "mount.cifs"
VERSION = "3.0"
SMBCLIENT_TIMEOUT = 60.0

KIND = Kind(
    type="smb",
    name="SMB",
    description="Disks as qcow2 images in a folder of an SMB share",
    configuration={
        "server": "path of the share, //server/share (required)",
        "username": "who logs in, also as DOMAIN\\user (default: a guest)",
        "password": "the password; the database keeps it as a secret",
    },
    failures=Failures(mount=Failure.SMB_MOUNT, unmount=Failure.SMB_UNMOUNT),
    features=("SR_PROBE",),
    lacks=("VDI_ATTACH_OFFLINE",),  # the password is in the database
)


def share_of(text: str, failure: Failure) -> tuple[str, str]:
    """Server and path of a share, the path "" when only the server is given. `failure`: what it raises otherwise."""
    plain = text.replace("\\", "/")
    server, _, path = plain.removeprefix("//").partition("/")
    if not plain.startswith("//") or not server or server.startswith("-") or not plain.isprintable() or "," in server:
        raise backend_failure(failure, f"not a share, which is written //server/share: {text!r}")
    return server, path.strip("/")


def credentials(configuration: dict[str, str], password_key: str) -> tuple[str, dict[str, str]]:
    """Domain ("" for none), and what the programs take user and password from; empty for a guest.

    Raises SR_BACKEND_FAILURE_20 for a secret that nobody has looked up, _1.
    """
    name, password = configuration.get("username", ""), configuration.get(password_key, "")
    if not name:
        return "", {}
    if not password and configuration.get(f"{password_key}_secret"):
        raise backend_failure(Failure.INVALID_SECRET, f"No such secret: nobody looked up {password_key}_secret")
    if "\0" in name + password or "\n" in name + password:
        raise backend_failure(Failure.INVALID_ARGUMENT, "username and password are single lines")
    domain, _, user = name.rpartition("\\")
    if "," in domain:
        raise backend_failure(Failure.INVALID_ARGUMENT, f"not a domain: {domain!r}")
    return domain, {"USER": user, "PASSWD": password}


def mount_share(server: str, path: str, version: str, domain: str, environment: dict[str, str]) -> Mount:
    """Nothing is kept in this host's cache, as other hosts write there too."""
    return Mount(
        kind="cifs",
        source=f"//{server}/{path}",
        options=(
            f"vers={version}",
            *("cache=none", "actimeo=0", "nosuid", "nodev", "noexec"),
            *((f"domain={domain}",) if domain else ()),
            *(() if environment else ("guest",)),
        ),
        helper=HELPER,
        environment=environment,
    )


def parse_shares(text: str) -> list[str]:
    """`smbclient --grepable --list`: Type|name|comment lines; names of shares that hold files."""
    rows = (line.split("|") for line in text.splitlines())
    return [row[1] for row in rows if len(row) >= 2 and row[0] == "Disk" and not row[1].endswith("$")]


class SmbMedium(MediumSkeleton):
    @property
    def kind(self) -> Kind:
        return KIND

    def mount(self, configuration: dict[str, str], uuid: str) -> Mount:
        """Raises SR_BACKEND_FAILURE_102, _1, _20."""
        server, path = _share(configuration)
        if not path:
            raise backend_failure(Failure.INVALID_ARGUMENT, f"server names no share: {configuration['server']!r}")
        domain, environment = credentials(configuration, "password")
        return mount_share(server, path, VERSION, domain, environment)

    def same(self, mount: Mount, found: Mounted) -> bool:
        return found.source.replace("\\", "/").rstrip("/") == mount.source

    async def probe(self, configuration: dict[str, str]) -> list[Probed] | None:
        """Of a server without a share: its shares, each to be probed again."""
        server, path = _share(configuration)
        if path:
            return None
        domain, environment = credentials(configuration, "password")
        identity = (["--workgroup", domain] if domain else []) if environment else ["--no-pass"]
        output = await run(
            ["smbclient", "--grepable", *identity, "--list", f"//{server}"], environment, timeout=SMBCLIENT_TIMEOUT
        )
        if output.status:
            raise backend_failure(Failure.SMB_MOUNT, f"cannot list the shares of {server}", output.words)
        return [
            Probed(configuration={**configuration, "server": f"//{server}/{share}"}, uuid="", complete=False)
            for share in parse_shares(output.stdout)
        ]


def _share(configuration: dict[str, str]) -> tuple[str, str]:
    if not configuration.get("server"):
        raise backend_failure(Failure.SERVER_MISSING, "The request is missing the server parameter")
    return share_of(configuration["server"], Failure.INVALID_ARGUMENT)
