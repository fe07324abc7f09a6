"""Runs a VM from template to shutdown, with nothing but the XenAPI module. `. .pool/env`, then run it.

The same script works on QEMU and on the simulator.
"""

from __future__ import annotations

import os
import socket
import ssl
from typing import Any
from urllib.parse import urlsplit

import XenAPI


def wait_for(api: Any, vm: str, power_state: str) -> None:
    """Follows the VM's events until it is in that state."""
    token = ""
    while True:
        batch = getattr(api.event, "from")([f"vm/{vm}"], token, 30.0)
        token = batch["token"]
        for event in batch["events"]:
            print("event:", event["operation"], event["snapshot"]["power_state"])
            if event["snapshot"]["power_state"] == power_state:
                return


def read_console(api: Any, vm: str, session: str, until: str, timeout: float = 90.0) -> str:
    """The serial console's output up to the text `until`."""
    console = next(
        record
        for record in api.console.get_all_records().values()
        if record["VM"] == vm and record["protocol"] == "vt100"
    )
    location = urlsplit(console["location"])
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # the host's certificate is self-signed
    address = (location.hostname or "", location.port or 443)
    with socket.create_connection(address, timeout) as raw, context.wrap_socket(raw) as connection:
        request = f"CONNECT {location.path}?{location.query}&session_id={session} HTTP/1.0\r\n\r\n"
        connection.sendall(request.encode())
        text = b""
        while until.encode() not in text:
            received = connection.recv(4096)
            if not received:
                raise EOFError(f"the console was closed after: {text.decode(errors='replace')}")
            text += received
    return text.partition(b"\r\n\r\n")[2].decode(errors="replace")


def main() -> None:
    session = XenAPI.Session(os.environ["XAPI_URL"])
    session.login_with_password(os.environ["XAPI_USER"], os.environ["XAPI_PASSWORD"], "1.0", "first_vm")
    api = session.xenapi
    for cls in ("host", "SR", "network"):
        print(cls, [record["name_label"] for record in getattr(api, cls).get_all_records().values()])

    vm = api.VM.clone(api.VM.get_by_name_label("Tiny guest")[0], "first")
    api.VM.provision(vm)
    pool = next(iter(api.pool.get_all_records().values()))
    vdi = api.VDI.create(
        {
            "name_label": "first disk",
            "name_description": "",
            "SR": pool["default_SR"],
            "virtual_size": str(64 * 1024 * 1024),
            "type": "user",
            "sharable": False,
            "read_only": False,
            "other_config": {},
        }
    )
    api.VBD.create(
        {
            "VM": vm,
            "VDI": vdi,
            "userdevice": "0",
            "bootable": False,
            "mode": "RW",
            "type": "Disk",
            "empty": False,
            "other_config": {},
            "qos_algorithm_type": "",
            "qos_algorithm_params": {},
        }
    )
    network = next(ref for ref, record in api.network.get_all_records().items() if record["bridge"] == "xenbr0")
    api.VIF.create(
        {
            "VM": vm,
            "network": network,
            "device": "0",
            "MAC": "",
            "MTU": "1500",
            "other_config": {},
            "qos_algorithm_type": "",
            "qos_algorithm_params": {},
        }
    )

    api.VM.start(vm, False, False)
    wait_for(api, vm, "Running")
    print("on", api.host.get_name_label(api.VM.get_resident_on(vm)))
    print(read_console(api, vm, session._session, "login:"))
    api.VM.clean_shutdown(vm)
    wait_for(api, vm, "Halted")

    api.VM.destroy(vm)
    api.VDI.destroy(vdi)
    session.xenapi.session.logout()


if __name__ == "__main__":
    main()
