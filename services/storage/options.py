"""What the storage service alone is told."""

from __future__ import annotations

import msgspec


class StorageOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Times in seconds.

    `qemu_img`, `qemu_nbd`: names or paths of the programs. `client_patience`: for who is to take part in a
    transfer. `lock_timeout`: how long to wait for another host that rearranges images.
    `retry_interval`: between attempts to attach an SR again that should be attached.
    `coalesce`: whether images that are needless apart are merged; `coalesce_delay`: after a change, and
    `coalesce_interval`: without one; `coalesce_rate`: bytes a second that are copied at most, 0 for no limit.

    `xapi_socket`: where the host's API is, for SMAPIv1 drivers. `smapiv1_dir`: the folder of their executables;
    `smapiv1_drivers`: the names, without `SR`, of those that may be used, `*` is all; `smapiv1_interval`: between two
    looks there. `smapiv1_private`: they get a mount namespace of their own for each host, where that is possible.
    `smapiv3_root`: the folder of SMAPIv3 plug-ins, with `volume/` and `datapath/`.
    `left_types`: SR types that come with the service and that are left to drivers of that name, such as `nfs`.
    `nbd_certificates`: the folder with the certificates of its hosts, which NBD clients see: `<host uuid>.pem`, and
    `key.pem` for those without a key; "": disks are not served by NBD. `nbd_port`: 0 for any that is free.
    `nbd_haggle`: how long a client may take until it reads.
    `run_dir`: where sockets and mounts of this boot are, "" for a folder in that of the service's state.
    """

    qemu_img: str = "qemu-img"
    qemu_img_timeout: float = 120.0
    qemu_nbd: str = "qemu-nbd"
    client_patience: float = 60.0
    lock_timeout: float = 30.0
    retry_interval: float = 5.0
    coalesce: bool = True
    coalesce_delay: float = 5.0
    coalesce_interval: float = 300.0
    coalesce_rate: int = 256 << 20
    xapi_socket: str = ""
    smapiv1_dir: str = "/opt/xensource/sm"
    smapiv1_drivers: tuple[str, ...] = ("*",)
    smapiv1_interval: float = 3.0
    smapiv1_private: bool = True
    smapiv3_root: str = "/usr/libexec/xapi-storage-script"
    left_types: tuple[str, ...] = ()
    nbd_certificates: str = ""
    nbd_port: int = 10809
    nbd_haggle: float = 30.0
    run_dir: str = ""
