"""What the tests' drivers share: reading the call, calling back, answering. On the system's Python, like any driver.

`device_config:log`: a file that gets each call as a line of JSON.
"""

import json
import os
import signal
import sys
import time
import xmlrpc.client
from typing import Any

import XenAPI

EPOCH = "19700101T00:00:00Z"
NULL = "OpaqueRef:NULL"
SIZE = 1 << 40


class Fault(Exception):
    """`code` of the table of error codes."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(code, text)
        self.code = code
        self.text = text


def new_uuid() -> str:
    with open("/proc/sys/kernel/random/uuid") as file:
        return file.read().strip()


class Driver:
    """Methods are named as commands. `call`: the struct of the call; `args`: its `args`."""

    NAME = "test"
    CAPABILITIES: tuple[str, ...] = ()
    CONFIGURATION = (("location", "where it is"), ("log", "a file that is told of calls"))

    def __init__(self, call: dict[str, Any]) -> None:
        self.call = call
        self.args = call["args"]
        self.config = call["device_config"]
        self.session = XenAPI.xapi_local()
        self.session._session = call.get("session_ref")
        self.xapi = self.session.xenapi

    def sr_get_driver_info(self) -> dict[str, Any]:
        return {
            "name": self.NAME,
            "description": "a driver of the tests",
            "vendor": "tests",
            "copyright": "none",
            "driver_version": "1.0",
            "required_api_version": "1.0",
            "capabilities": list(self.CAPABILITIES),
            "configuration": [{"key": key, "description": text} for key, text in self.CONFIGURATION],
        }

    # ---- rows

    def row(self) -> Any:
        return self.xapi.VDI.get_record(self.call["vdi_ref"])

    def introduce(
        self,
        location: str,
        size: int,
        name: str = "",
        description: str = "",
        kind: str = "user",
        sm_config: dict[str, str] | None = None,
        read_only: bool = False,
        new: str | None = None,
    ) -> dict[str, str]:
        new = new or new_uuid()
        when = xmlrpc.client.DateTime(EPOCH)
        self.xapi.VDI.db_introduce(
            new,
            name,
            description,
            self.call["sr_ref"],
            kind,
            False,
            read_only,
            {},
            location,
            {},
            sm_config or {},
            True,
            str(size),
            str(size),
            NULL,
            False,
            when,
            "",
            False,
        )
        return {"uuid": new, "location": location}

    def account(self, used: int = 0) -> None:
        sr = self.call["sr_ref"]
        self.xapi.SR.set_physical_size(sr, str(SIZE))
        self.xapi.SR.set_physical_utilisation(sr, str(used))
        self.xapi.SR.set_virtual_allocation(sr, str(used))

    def tag(self) -> str:
        return f"host_{self.call['host_ref']}"


def hostile(behaviour: str) -> None:
    """What goes wrong, as `device_config:hostile` has it: `<command>=<behaviour>`. Returns if nothing does."""
    name, _, argument = behaviour.partition(":")
    if name == "hang":
        while True:
            time.sleep(60)
    elif name == "garbage":
        print("<html>this is no answer")
        print("said on stderr", file=sys.stderr)
        sys.exit(0)
    elif name == "half":
        print(xmlrpc.client.dumps(({"uuid": "u"},), methodresponse=True)[:60], end="")
        sys.exit(0)
    elif name == "exit":
        print("why on stderr", file=sys.stderr)
        sys.exit(int(argument))
    elif name == "signal":
        os.kill(os.getpid(), signal.Signals[argument])
    elif name == "fault":
        print("detail on stderr", file=sys.stderr)
        raise Fault(int(argument), "told to fail")
    elif name == "answer":
        print(xmlrpc.client.dumps((json.loads(argument),), methodresponse=True, allow_none=True))
        sys.exit(0)
    elif name == "leak":
        child = os.spawnlp(os.P_NOWAIT, "sleep", "sleep", "300")
        with open(argument, "w") as file:
            file.write(str(child))
    elif name == "wait":
        with open(f"{argument}.{os.getpid()}", "w") as file:
            file.write(str(os.getpid()))
        while not os.path.exists(argument):
            time.sleep(0.005)


def main(kind: type[Driver]) -> None:
    loaded: Any = xmlrpc.client.loads(sys.argv[1])
    (call,), command = loaded
    config = call.get("device_config", {})
    if "log" in config:
        with open(config["log"], "a") as file:
            file.write(json.dumps(call) + "\n")
    try:
        told, _, behaviour = config.get("hostile", "").partition("=")
        if told == command:
            hostile(behaviour)
        work = getattr(kind(call), command, None)
        if work is None:
            raise Fault(38, f"{command} is not implemented")
        answer = work()
        print(xmlrpc.client.dumps((answer,), methodresponse=True, allow_none=True))
    except Fault as fault:
        print(xmlrpc.client.dumps(xmlrpc.client.Fault(fault.code, fault.text)))
    except XenAPI.Failure as failure:
        print(xmlrpc.client.dumps(xmlrpc.client.Fault(153, str(failure))))
