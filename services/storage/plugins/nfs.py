"""The SR type `nfs`: a folder of an NFS export, shared by the hosts of a pool."""

from __future__ import annotations

from xml.sax.saxutils import escape

from services.storage.plugins.errors import Failure, backend_failure
from services.storage.plugins.interface import Probed
from services.storage.plugins.mounted import Kind, MediumSkeleton
from services.storage.plugins.mounted_point import Failures, Mount, Mounted
from services.storage.plugins.program import run
from shared.bus.contract import Record

VERSIONS = ("3", "4", "4.0", "4.1", "4.2")
HELPER = "mount.nfs"
TIMEOUT = 100
"""Tenths of a second until a request is sent again; with `RETRANSMISSIONS`, minutes until I/O fails for good."""

RETRANSMISSIONS = 12
SHOWMOUNT_TIMEOUT = 60.0

KIND = Kind(
    type="nfs",
    name="NFS",
    description="Disks as qcow2 images in a folder of an NFS export",
    configuration={
        "server": "host name or address of the server (required)",
        "serverpath": "path of the export (required)",
        "nfsversion": f"version of the protocol: {', '.join(VERSIONS)} (default: 3)",
        "options": "more options for mount.nfs, separated by commas",
    },
    failures=Failures(mount=Failure.NFS_MOUNT, unmount=Failure.NFS_UNMOUNT),
    features=("SR_PROBE",),
)


class Export(Record, frozen=True):
    """A line of showmount: `access` says who may mount it."""

    path: str
    access: str


def mount_export(server: str, path: str, version: str, options: str) -> Mount:
    """As SM mounts it: requests are given up in the end, folders are always asked for again.

    A look needs no locks: for those of version 3 a daemon may be started, which would keep the look's namespace.
    """
    address = server.strip("[]")
    v6 = ":" in address
    return Mount(
        kind="nfs",
        source=f"[{address}]:{path}" if v6 else f"{address}:{path}",
        options=(
            "soft",
            f"proto={'tcp6' if v6 else 'tcp'}",
            f"vers={version}",
            *("acdirmin=0", "acdirmax=0", f"timeo={TIMEOUT}", f"retrans={RETRANSMISSIONS}"),
            *("nosuid", "nodev", "noexec"),
            *(option for option in options.split(",") if option),
        ),
        helper=HELPER,
        visiting=("nolock",) if version == "3" else (),
    )


def version_of(configuration: dict[str, str]) -> str:
    """Raises SR_BACKEND_FAILURE_72."""
    version = configuration.get("nfsversion", "") or "3"
    if version not in VERSIONS:
        raise backend_failure(Failure.NFS_VERSION, f"nfsversion is one of {', '.join(VERSIONS)}, not {version!r}")
    return version


def server_of(configuration: dict[str, str]) -> str:
    """Raises SR_BACKEND_FAILURE_102, _108."""
    server = configuration.get("server", "")
    if not server:
        raise backend_failure(Failure.SERVER_MISSING, "The request is missing the server parameter")
    if server.startswith("-") or not server.isprintable() or any(c in server for c in " /,"):
        raise backend_failure(Failure.NFS_TARGET, f"not the name or address of a server: {server!r}")
    return server


def path_of(configuration: dict[str, str]) -> str:
    """Raises SR_BACKEND_FAILURE_101, _103."""
    path = configuration.get("serverpath", "")
    if not path:
        raise backend_failure(Failure.SERVERPATH_MISSING, "The request is missing the serverpath parameter")
    if not path.startswith("/") or not path.isprintable():
        raise backend_failure(Failure.SERVERPATH_INVALID, f"serverpath must be an absolute path: {path!r}")
    return path


def parse_showmount(text: str) -> list[Export]:
    """`showmount --no-headers --exports`: a path and who may mount it, which may be nobody in particular."""
    exports = []
    for line in text.splitlines():
        path, _, access = line.rstrip().rpartition(" ")
        if path.strip():
            exports.append(Export(path=path.strip(), access=access))
        elif access:
            exports.append(Export(path=access, access=""))
    return exports


def exports_xml(server: str, exports: list[Export]) -> str:
    """What clients of `SR.probe` look for exports in."""
    entries = "".join(
        f"<Export><Target>{escape(server)}</Target><Path>{escape(export.path)}</Path>"
        f"<Accesslist>{escape(export.access)}</Accesslist></Export>"
        for export in exports
    )
    return f'<?xml version="1.0" ?><nfs-exports>{entries}</nfs-exports>'


class NfsMedium(MediumSkeleton):
    @property
    def kind(self) -> Kind:
        return KIND

    def mount(self, configuration: dict[str, str], uuid: str) -> Mount:
        return mount_export(
            server_of(configuration),
            path_of(configuration),
            version_of(configuration),
            configuration.get("options", ""),
        )

    def same(self, mount: Mount, found: Mounted) -> bool:
        return found.source.rstrip("/") == mount.source.rstrip("/")

    async def probe(self, configuration: dict[str, str]) -> list[Probed] | None:
        """Without a path: SR_BACKEND_FAILURE_101 with the exports of the server, as its clients know it."""
        server = server_of(configuration)
        if configuration.get("serverpath"):
            return None
        listed = exports_xml(server, await exports(server))
        raise backend_failure(Failure.SERVERPATH_MISSING, "The request is missing the serverpath parameter", listed)


async def exports(server: str) -> list[Export]:
    """Raises SR_BACKEND_FAILURE_108."""
    output = await run(["showmount", "--no-headers", "--exports", "--", server], timeout=SHOWMOUNT_TIMEOUT)
    if output.status:
        raise backend_failure(Failure.NFS_TARGET, f"cannot list the exports of {server}", output.words)
    return parse_showmount(output.stdout)
