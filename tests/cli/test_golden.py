"""Recorded answers of the original to commands that only read, replayed against a small pool in memory."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.cli.fake_xenapi import FakeXenApi
from tests.cli.reference import lines
from tests.cli.thin_client import ThinClient

CORPUS = {case["case"]: case for case in lines("corpus/xe.jsonl")}
GOLDEN = {case["case"]: case["answers"] for case in lines("golden/xe.jsonl")}

_READS = re.compile(
    r"(help|nothing|a=b|--minimal|.*-list|.*-param-\w+|event-wait|blob-list|dr-task-list|log-set-output)"
)
_FAILS_EARLY = {
    "vm-start", "vm-destroy", "vm-shutdown", "vm-suspend", "vm-reset-powerstate", "vm-clone", "vm-install",
    "vm-cd-list",
    "sr-scan", "sr-create", "vdi-create", "vdi-destroy", "vif-create", "network-create", "pif-scan", "vlan-create",
    "message-create", "message-destroy", "host-reboot", "host-call-plugin", "pool-enable-redo-log", "snapshot-destroy",
    "snapshot-revert", "appliance-create", "audit-log-get", "host-get-vms-which-prevent-evacuation", "secret-create",
    "pool-sync-database", "vm-is-bios-customized",
}  # fmt: skip
_NEEDS_A_DRIVER = {"xe/plain/46"}
_NEEDS_MORE_ROLES = {"xe/plain/98"}
_NEEDS_PLUGINS = {"xe/plain/81"}


def _chosen(name: str) -> bool:
    steps = CORPUS[name]["steps"]
    if name not in GOLDEN or len(steps) != 1 or name in _NEEDS_A_DRIVER | _NEEDS_MORE_ROLES | _NEEDS_PLUGINS:
        return False
    word = steps[0]["xe"][0]
    return bool(_READS.fullmatch(word)) or word in _FAILS_EARLY


@pytest.mark.parametrize("name", [name for name in CORPUS if name.startswith("xe/plain/") and _chosen(name)])
async def test_a_command_answers_as_the_original_did(name: str, api: FakeXenApi, xe: ThinClient) -> None:
    api.on["secret.create"] = lambda record: api.add("secret", **record)
    api.on["pool.sync_database"] = lambda: ""
    (step,) = CORPUS[name]["steps"]
    (expected,) = GOLDEN[name]
    (host,), (pool,), (dom0,) = api.rows["host"].values(), api.rows["pool"].values(), api.rows["VM"].values()
    known = {"dom0_uuid": dom0["uuid"], "host_uuid": host["uuid"], "pool_uuid": pool["uuid"]}
    words = [re.sub(r"\$\{(\w+)\}", lambda match: known[match[1]], word) for word in step["xe"]]
    outcome = await xe(*words)
    symbols = {uuid: f"<{symbol}>" for symbol, uuid in known.items()} | {host["name_label"]: "<host name>"}
    answer: dict[str, Any] = {"stdout": outcome.stdout, "stderr": outcome.stderr, "exit": outcome.status}
    for each in api.rows["secret"].values():
        symbols[each["uuid"]] = "<uuid1>"
    for plain, symbol in symbols.items():
        answer["stdout"] = answer["stdout"].replace(plain, symbol)
    if expected["stdout"] == "<ignored>":
        answer["stdout"] = "<ignored>"
    if expected["stderr"].startswith("<description>"):
        answer["stderr"] = "\n".join(["<description>", *answer["stderr"].split("\n")[1:]])
    assert answer == expected
