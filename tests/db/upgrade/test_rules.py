"""What each rule makes of the rows of an older release."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from services.db.transaction import resolve
from services.db.upgrade import run
from services.db.upgrade.rule import Rule, RuleError, Schema, Surroundings, before, through
from services.db.upgrade.table import RULES
from shared.contracts.db import Change, Create, Delta, Transact, Update
from shared.database_dump.schema import SCHEMA_VERSION
from shared.datamodel import model, values
from shared.store import NULL, Store
from shared.vm_defaults import GENERIC_BIOS_STRINGS, overhead
from tests.api.messages.pki import Authority

RIO = (5, 19)
NEWEST_OLD = (5, SCHEMA_VERSION[1] - 1)


class Old:
    """A database of an older release. Rows are named as their references."""

    def __init__(self) -> None:
        self.store = Store()
        self._wanted: list[Change] = []

    def add(self, cls: str, name: str, /, **fields: Any) -> str:
        ref = f"OpaqueRef:{name}"
        self._wanted.append(Create(cls=cls, ref=ref, fields={**_NEEDED.get(cls, {}), **fields}))
        return ref

    def upgraded(self, schema: tuple[int, int], around: Surroundings | None = None) -> Store:
        changes = resolve(self.store, Transact(changes=self._wanted))
        self.store.apply(Delta(term=1, generation=9, previous=0, changes=changes))
        run.apply(self.store, schema, around or Surroundings())
        return self.store

    def of(self, cls: str, ref: str, schema: tuple[int, int] = NEWEST_OLD) -> dict[str, Any]:
        row = self.upgraded(schema).row(cls, ref)
        assert row is not None
        return dict(row)


_NEEDED: dict[str, dict[str, Any]] = {"network": {"bridge": "b"}, "SR": {"type": "ext"}}


@pytest.fixture
def old() -> Old:
    return Old()


# ---- for which schemas


def test_a_present_schema_needs_nothing(old: Old) -> None:
    host = old.add("host", "h", ssl_legacy=True)
    assert old.of("host", host, SCHEMA_VERSION)["ssl_legacy"] is True


def test_a_newer_schema_is_left_alone(old: Old) -> None:
    host = old.add("host", "h", ssl_legacy=True)
    assert old.of("host", host, (5, SCHEMA_VERSION[1] + 1))["ssl_legacy"] is True


@pytest.mark.parametrize(("minor", "inclusive", "exclusive"), [(56, True, True), (57, True, False), (58, False, False)])
def test_bounds_are_with_or_without_the_schema_they_name(minor: int, inclusive: bool, exclusive: bool) -> None:
    bound = Schema(5, 57)
    assert through(bound).covers(Schema(5, minor)) is inclusive
    assert before(bound).covers(Schema(5, minor)) is exclusive


# ---- guarded


def test_a_rule_that_fails_changes_nothing_and_stops_no_other(old: Old) -> None:
    network = old.add("network", "n")
    store = old.upgraded(SCHEMA_VERSION)

    def half(_: Store, __: Surroundings) -> list[Change]:
        rename = Update(cls="network", ref=network, fields={"name_label": "half"})
        return [rename, Update(cls="network", ref="OpaqueRef:gone", fields={"name_label": "half"})]

    def broken(_: Store, __: Surroundings) -> list[Change]:
        raise RuleError("cannot")

    def fine(_: Store, __: Surroundings) -> list[Change]:
        return [Update(cls="network", ref=network, fields={"name_description": "done"})]

    rules = [Rule(name, before(Schema(5, 99)), changes) for name, changes in (("a", half), ("b", broken), ("c", fine))]
    assert run.apply(store, RIO, Surroundings(), rules) == ["c"]
    row = store.row("network", network)
    assert row is not None
    assert (row["name_label"], row["name_description"]) == ("", "done")


def test_rules_applied_twice_are_as_applied_once(old: Old) -> None:
    """All but the one that counts in another unit."""
    _a_pool(old)
    store = old.upgraded(RIO)
    before_again = {row.ref: row.fields for row in store.snapshot()}
    run.apply(store, RIO, Surroundings(), [rule for rule in RULES if "timeouts" not in rule.what])
    again = {row.ref: row.fields for row in store.snapshot()}
    changed = {
        (ref, name)
        for ref, fields in again.items()
        for name, value in fields.items()
        if before_again.get(ref, {}).get(name) != value
    }
    assert changed == {("OpaqueRef:ha", "ha_restart_priority"), ("OpaqueRef:ha", "order")}, "names are no numbers"


def _a_pool(old: Old) -> None:
    old.add("pool", "p", wlb_password="secret", vswitch_controller="10.0.0.1")
    old.add("host", "h", pending_guidances=["reboot_host"])
    old.add("VM", "v", HVM_boot_policy="BIOS order")
    old.add("VM", "ha", ha_restart_priority="2")
    old.add("PBD", "pbd", device_config={"password": "x", "SRmaster": "true"})
    old.add("PGPU", "g", PCI=NULL)
    old.add("VGPU", "vg")


# ---- VMs


@pytest.mark.parametrize(("policy", "kind"), [("", "pv"), ("BIOS order", "hvm")])
def test_the_domain_type_follows_from_the_boot_policy(old: Old, policy: str, kind: str) -> None:
    vm = old.add("VM", "v", HVM_boot_policy=policy, domain_type="unspecified")
    assert old.of("VM", vm, (5, 134))["domain_type"] == kind


def test_a_domain_type_that_is_known_stays(old: Old) -> None:
    vm = old.add("VM", "v", HVM_boot_policy="BIOS order", domain_type="pvh")
    assert old.of("VM", vm, (5, 134))["domain_type"] == "pvh"


def test_newer_releases_have_domain_types(old: Old) -> None:
    vm = old.add("VM", "v", domain_type="unspecified")
    assert old.of("VM", vm, (5, 135))["domain_type"] == "unspecified"


def test_a_vm_that_runs_is_of_its_type_now(old: Old) -> None:
    metrics = old.add("VM_metrics", "m", current_domain_type="unspecified")
    old.add("VM", "v", HVM_boot_policy="BIOS order", domain_type="unspecified", power_state="Running", metrics=metrics)
    halted = old.add("VM_metrics", "mh", current_domain_type="unspecified")
    old.add("VM", "h", HVM_boot_policy="BIOS order", domain_type="unspecified", metrics=halted)
    store = old.upgraded((5, 134))
    assert store.get("VM_metrics", metrics, "current_domain_type") == "hvm"
    assert store.get("VM_metrics", halted, "current_domain_type") == "unspecified"


def test_domain_zero_is_paravirtual_whatever_its_boot_policy_says(old: Old) -> None:
    host = old.add("host", "h", control_domain="OpaqueRef:d0")
    fields = {"is_control_domain": True, "HVM_boot_policy": "BIOS order", "domain_type": "unspecified"}
    old.add("VM", "d0", resident_on=host, **fields)
    other = old.add("VM", "driver", resident_on=host, **fields)
    store = old.upgraded((5, 134))
    assert store.get("VM", "OpaqueRef:d0", "domain_type") == "pv"
    assert store.get("VM", other, "domain_type") == "hvm"


def test_the_memory_overhead_is_of_this_programs_machines(old: Old) -> None:
    vm = old.add("VM", "v", domain_type="hvm", VCPUs_max=4, memory_overhead=1)
    assert old.of("VM", vm)["memory_overhead"] == overhead({"domain_type": "hvm", "VCPUs_max": 4, "platform": {}})


@pytest.mark.parametrize(("schema", "strings"), [((5, 57), GENERIC_BIOS_STRINGS), ((5, 58), {})])
def test_vms_have_generic_bios_strings(old: Old, schema: tuple[int, int], strings: dict[str, str]) -> None:
    vm = old.add("VM", "v")
    assert old.of("VM", vm, schema)["bios_strings"] == strings


def test_snapshots_are_a_line_in_time_that_ends_with_their_vm(old: Old) -> None:
    vm = old.add("VM", "v")
    for name, day in (("late", "20090303"), ("early", "20090101"), ("middle", "20090202")):
        old.add("VM", name, snapshot_of=vm, is_a_snapshot=True, snapshot_time=f"{day}T00:00:00Z")
    store = old.upgraded((5, 57))
    parents = {name: store.get("VM", f"OpaqueRef:{name}", "parent") for name in ("v", "late", "middle", "early")}
    assert parents == {"v": "OpaqueRef:late", "late": "OpaqueRef:middle", "middle": "OpaqueRef:early", "early": NULL}
    assert list(store.get("VM", "OpaqueRef:early", "children")) == ["OpaqueRef:middle"]


@pytest.mark.parametrize(
    ("priority", "expected"),
    [
        ("0", ("restart", 0)),
        ("3", ("restart", 3)),
        ("best-effort", ("best-effort", 0)),
        ("", ("", 0)),
        ("7", ("", 0)),
    ],
)
def test_restart_priorities_have_names(old: Old, priority: str, expected: tuple[str, int]) -> None:
    vm = old.add("VM", "v", ha_restart_priority=priority, order=5)
    row = old.of("VM", vm, (5, 61))
    assert (row["ha_restart_priority"], row["order"]) == expected


def test_vms_that_started_with_their_host_are_restarted_where_possible(old: Old) -> None:
    auto = old.add("VM", "auto", other_config={"auto_poweron": "true"})
    protected = old.add("VM", "ha", other_config={"auto_poweron": "true"}, ha_restart_priority="1")
    plain = old.add("VM", "plain", other_config={"auto_poweron": "false"})
    store = old.upgraded((5, 61))
    assert [store.get("VM", vm, "ha_restart_priority") for vm in (auto, protected, plain)] == [
        "best-effort",
        "restart",
        "",
    ]


def test_protection_policies_are_gone(old: Old) -> None:
    policy = old.add("VMPP", "p")
    vm = old.add("VM", "v", protection_policy=policy)
    store = old.upgraded((5, 66))
    assert store.get("VM", vm, "protection_policy") == NULL
    assert not store.rows("VMPP")


@pytest.mark.parametrize(("schema", "has"), [((5, 90), False), ((5, 91), True)])
def test_vms_from_before_vendor_devices_have_none(old: Old, schema: tuple[int, int], has: bool) -> None:
    vm = old.add("VM", "v", has_vendor_device=True)
    assert old.of("VM", vm, schema)["has_vendor_device"] is has


def test_guest_drivers_are_yet_to_be_detected(old: Old) -> None:
    metrics = old.add("VM_guest_metrics", "g", PV_drivers_detected=True)
    old.add("VM", "v", guest_metrics=metrics)
    old.add("VM", "none")
    assert old.of("VM_guest_metrics", metrics, (5, 92))["PV_drivers_detected"] is False


RECOMMENDED = (
    '<restrictions><restriction field="allow-gpu-passthrough" value="{}"/>{}<restriction max="7"/></restrictions>'
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (RECOMMENDED.format(0, ""), RECOMMENDED.format(1, '<restriction field="allow-vgpu" value="0"/>')),
        (RECOMMENDED.format(1, ""), RECOMMENDED.format(1, "")),
        ("", ""),
        ('<allow-gpu-passthrough value="0"', '<allow-gpu-passthrough value="0"'),
        (
            '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a x="allow-gpu-passthrough">&b;</a>',
            '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a x="allow-gpu-passthrough">&b;</a>',
        ),
    ],
)
def test_linux_guests_may_have_whole_gpus(old: Old, text: str, expected: str) -> None:
    vm = old.add("VM", "v", recommendations=text)
    assert old.of("VM", vm, (5, 72))["recommendations"] == expected


@pytest.mark.parametrize(
    ("fields", "platform"),
    [
        ({"domain_type": "hvm"}, {"device-model": "qemu-upstream-compat"}),
        ({"domain_type": "hvm", "platform": {"device-model": "qemu-trad"}}, {"device-model": "qemu-upstream-compat"}),
        ({"domain_type": "hvm", "platform": {"device-model": "own"}}, {"device-model": "own"}),
        ({"domain_type": "pv", "platform": {"a": "b"}}, {"a": "b"}),
        ({"domain_type": "hvm", "is_a_template": True}, {}),
    ],
)
def test_hvm_guests_have_a_device_model_that_there_is(
    old: Old, fields: dict[str, Any], platform: dict[str, str]
) -> None:
    vm = old.add("VM", "v", **fields)
    assert old.of("VM", vm)["platform"] == platform


def test_what_a_snapshot_remembers_has_one_too(old: Old) -> None:
    kind = model.classes["VM"].fields["platform"].type
    record = {"name_label": "it's", "platform": values.to_text(kind, {"device-model": "qemu-trad"})}
    vm = old.add("VM", "s", domain_type="hvm", snapshot_metadata=values.to_text(kind, record))
    strange = old.add("VM", "strange", domain_type="hvm", snapshot_metadata="what is this")
    store = old.upgraded(NEWEST_OLD)
    after = values.from_text(kind, store.get("VM", vm, "snapshot_metadata"))
    assert values.from_text(kind, after["platform"]) == {"device-model": "qemu-upstream-compat"}
    assert after["name_label"] == "it's"
    assert store.get("VM", strange, "snapshot_metadata") == "what is this"
    assert store.get("VM", strange, "platform"), "the other VMs are upgraded"


def test_uefi_guests_have_a_state_of_their_certificates(old: Old) -> None:
    uefi = {"HVM_boot_params": {"firmware": "uefi"}, "secureboot_certificates_state": "update_available"}
    guest = old.add("VM", "g", **uefi)
    template = old.add("VM", "t", is_default_template=True, **uefi)
    store = old.upgraded((5, 902))
    assert store.get("VM", guest, "secureboot_certificates_state") == "ok"
    assert store.get("VM", template, "secureboot_certificates_state") == "update_available"


# ---- storage, networks, GPUs


@pytest.mark.parametrize(("schema", "kind"), [((5, 61), "redo_log"), ((5, 62), "metadata")])
def test_disks_of_redo_logs_have_a_type_of_their_own(old: Old, schema: tuple[int, int], kind: str) -> None:
    vdi = old.add("VDI", "d", type="metadata", SR=NULL)
    assert old.of("VDI", vdi, schema)["type"] == kind


def test_passwords_of_storage_are_secrets(old: Old) -> None:
    pbd = old.add("PBD", "b", device_config={"chappassword": "x", "location": "y", "SRmaster": "true"})
    store = old.upgraded((5, 71))
    config = store.get("PBD", pbd, "device_config")
    assert set(config) == {"chappassword_secret", "location"}
    secret = store.ref_of_uuid("secret", config["chappassword_secret"])
    assert secret is not None
    assert store.get("secret", secret, "value") == "x"


@pytest.mark.parametrize(("password", "made"), [("plain", 1), ("", 0), (NULL, 0), ("OpaqueRef:s", 0)])
def test_the_password_of_workload_balancing_is_a_secret(old: Old, password: str, made: int) -> None:
    pool = old.add("pool", "p", wlb_password=password)
    store = old.upgraded(NEWEST_OLD)
    after = store.get("pool", pool, "wlb_password")
    secrets = store.rows("secret")
    assert len(secrets) == made
    if made:
        assert secrets[after]["value"] == password
    else:
        assert after == (password or NULL)


def test_the_guest_installer_network_becomes_the_internal_one(old: Old) -> None:
    former = old.add("network", "f", other_config={"is_guest_installer_network": "true"}, bridge="xapi0")
    plain = old.add("network", "n", bridge="xenbr0")
    store = old.upgraded(NEWEST_OLD)
    row = store.row("network", former)
    assert row is not None
    assert (row["name_label"], row["bridge"]) == ("Host internal management network", "xenapi")
    assert row["other_config"]["is_host_internal_management_network"] == "true"
    assert store.get("network", plain, "bridge") == "xenbr0"


def test_vlans_and_tunnels_share_the_metrics_of_their_card(old: Old) -> None:
    metrics = {name: old.add("PIF_metrics", f"m{name}") for name in ("card", "vlan", "access")}
    card = old.add("PIF", "card", physical=True, metrics=metrics["card"])
    for name in ("vlan", "access"):
        old.add("PIF", name, physical=False, metrics=metrics[name])
    old.add("VLAN", "l", tagged_PIF=card, untagged_PIF="OpaqueRef:vlan")
    old.add("tunnel", "t", transport_PIF=card, access_PIF="OpaqueRef:access")
    store = old.upgraded((5, 63))
    assert {row["metrics"] for row in store.rows("PIF").values()} == {metrics["card"]}
    assert set(store.rows("PIF_metrics")) == {metrics["card"]}


def test_cards_and_bonds_have_default_properties(old: Old) -> None:
    card = old.add("PIF", "card", physical=True)
    bond = old.add("PIF", "bond", physical=False)
    old.add("Bond", "b", master=bond)
    vlan = old.add("PIF", "vlan", physical=False, properties={"gro": "off"})
    store = old.upgraded((5, 71))
    assert [store.get("PIF", pif, "properties") for pif in (card, bond, vlan)] == [{"gro": "on"}, {"gro": "on"}, {}]


@pytest.mark.parametrize(("address", "controllers"), [("10.0.0.9", ["10.0.0.9"]), ("", []), ("nowhere", [])])
def test_the_vswitch_controller_is_an_sdn_controller(old: Old, address: str, controllers: list[str]) -> None:
    old.add("pool", "p", vswitch_controller=address)
    rows = old.upgraded((5, 119)).rows("SDN_controller").values()
    assert [row["address"] for row in rows] == controllers
    assert all((row["protocol"], row["port"]) == ("ssl", 6632) for row in rows)


def test_gpus_from_before_types_are_whole_ones(old: Old) -> None:
    gpu = old.add("PGPU", "g", PCI=NULL)
    display = old.add("PGPU", "d", PCI=NULL, is_system_display_device=True)
    virtual = old.add("VGPU", "v")
    store = old.upgraded((5, 67))
    [whole] = store.rows("VGPU_type")
    assert list(store.get("PGPU", gpu, "supported_VGPU_types")) == [whole]
    assert list(store.get("PGPU", gpu, "enabled_VGPU_types")) == [whole]
    assert not store.get("PGPU", display, "supported_VGPU_types")
    assert store.get("VGPU", virtual, "type") == whole


# ---- the pool


@pytest.mark.parametrize(
    ("former", "expected"),
    [("11", "0"), ("10", "1"), ("9", "2"), ("6", "2"), ("5", "3"), ("4", "4"), ("2", "4"), ("1", "5"), ("-3", "5")],
)
def test_mail_is_sent_by_the_new_scale(old: Old, former: str, expected: str) -> None:
    pool = old.add("pool", "p", other_config={"mail-min-priority": former})
    assert old.of("pool", pool, (5, 66))["other_config"] == {"mail-min-priority": expected}


def test_a_mail_priority_that_is_no_number_is_removed(old: Old) -> None:
    pool = old.add("pool", "p", other_config={"mail-min-priority": "high", "a": "b"})
    assert old.of("pool", pool, (5, 66))["other_config"] == {"a": "b"}


def test_messages_have_the_catalogues_priorities(old: Old) -> None:
    common = {"cls": "Pool", "obj_uuid": "p", "timestamp": "20100101T00:00:00Z", "body": ""}
    broken = old.add("message", "m", name="METADATA_LUN_BROKEN", priority=10, **common)
    own = old.add("message", "o", name="my own", priority=10, **common)
    store = old.upgraded(NEWEST_OLD)
    assert [store.get("message", ref, "priority") for ref in (broken, own)] == [3, 10]


def test_hosts_speak_no_legacy_ssl_and_certificates_come_with_the_program(old: Old) -> None:
    host = old.add("host", "h", ssl_legacy=True)
    pool = old.add("pool", "p", uefi_certificates="tar")
    store = old.upgraded(NEWEST_OLD)
    assert store.get("host", host, "ssl_legacy") is False
    assert store.get("pool", pool, "uefi_certificates") == ""


def test_pending_guidances_are_recommended_ones(old: Old) -> None:
    host = old.add("host", "h", pending_guidances=["reboot_host_on_livepatch_failure", "restart_toolstack"])
    row = old.of("host", host, (5, 774))
    assert list(row["pending_guidances"]) == []
    assert list(row["pending_guidances_recommended"]) == [
        "reboot_host_on_kernel_livepatch_failure",
        "reboot_host_on_xen_livepatch_failure",
        "restart_toolstack",
    ]


@pytest.mark.parametrize(("schema", "timeout"), [((5, 201), 20.0), ((5, 202), 20000.0)])
def test_timeouts_of_clusters_are_in_seconds(old: Old, schema: tuple[int, int], timeout: float) -> None:
    cluster = old.add("Cluster", "c", token_timeout=20000.0, token_timeout_coefficient=1000.0)
    assert old.of("Cluster", cluster, schema)["token_timeout"] == timeout


def test_authorities_have_the_fingerprints_of_their_files(old: Old, tmp_path: Path) -> None:
    pem = Authority().certificate.encode()
    (tmp_path / "there.pem").write_bytes(pem)
    (tmp_path.parent / "outside.pem").write_bytes(pem)
    there = old.add("Certificate", "there", name="there.pem", type="ca")
    gone = old.add("Certificate", "gone", name="gone.pem", type="ca", fingerprint="AB:CD")
    outside = old.add("Certificate", "outside", name="../outside.pem", type="ca")
    host = old.add("Certificate", "host", name="there.pem", type="host")
    store = old.upgraded((5, 782), Surroundings(certificates=tmp_path))
    certificate = x509.load_pem_x509_certificate(pem)
    sha256 = certificate.fingerprint(hashes.SHA256()).hex(":").upper()
    assert store.get("Certificate", there, "fingerprint_sha256") == sha256
    assert len(store.get("Certificate", there, "fingerprint_sha1")) == 59
    assert store.get("Certificate", gone, "fingerprint_sha256") == "AB:CD"
    assert store.get("Certificate", outside, "fingerprint_sha256") == ""
    assert store.get("Certificate", host, "fingerprint_sha256") == ""
