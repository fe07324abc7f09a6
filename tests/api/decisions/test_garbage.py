"""Which rows are garbage, what goes with them, and given what."""

from __future__ import annotations

from typing import Any

import pytest

from services.api.decisions import garbage
from services.api.decisions.garbage import RULES
from services.db.transaction import check, resolve
from shared.contracts.db import Delta, Transact
from shared.datamodel.dependents import DEPENDS_ON
from shared.errors import DatabaseConflict
from shared.store import NULL, Store
from tests.api.decisions.sample import Sample


def collect(pool: Sample) -> list[str]:
    """One pass: what each rule wants is written, then the next one looks. Returns the classes that were concerned."""
    concerned = []
    for rule in RULES:
        refs = list(garbage.found(pool.rows, rule, list(pool.rows.rows(rule.cls))))
        changes, given, count = garbage.removal(pool.rows, rule, refs)
        assert count == len(refs)
        if changes:
            commit(pool.rows, Transact(changes=changes, preconditions=given))
            concerned.append(rule.cls)
    return concerned


def commit(store: Store, request: Transact) -> None:
    at = store.generation
    store.apply(Delta(term=1, generation=at + 1, previous=at, changes=resolve(store, request)))


def there(pool: Sample, *keys: tuple[str, str]) -> list[bool]:
    return [pool.rows.row(cls, ref) is not None for cls, ref in keys]


@pytest.fixture
def pool() -> Sample:
    made = Sample()
    made.host("host")
    made.vm()
    made.sr()
    made.vdi()
    made.vbd()
    made.add("network", "network")
    made.vif()
    return made


def test_every_class_that_depends_on_others_has_a_rule_and_their_order_is_the_same() -> None:
    ruled = [rule.cls for rule in RULES]
    assert [cls for cls in ruled if cls in DEPENDS_ON] == list(DEPENDS_ON)
    assert len(set(ruled)) == len(ruled)


def test_a_whole_pool_has_no_garbage(pool: Sample) -> None:
    assert collect(pool) == []


def test_with_an_sr_its_disks_go_and_with_these_their_devices(pool: Sample) -> None:
    pool.add("VBD_metrics", "m")
    pool.set("VBD", "vbd", metrics="m")
    pool.drop("SR", "sr")
    assert collect(pool) == ["VDI", "VBD"]
    assert there(pool, ("VDI", "vdi"), ("VBD", "vbd"), ("VBD_metrics", "m"), ("VM", "vm")) == [False] * 3 + [True]


def test_a_drive_whose_disc_is_gone_is_emptied(pool: Sample) -> None:
    pool.set("VBD", "vbd", type="CD")
    pool.drop("VDI", "vdi")
    assert collect(pool) == ["VBD"]
    row = pool.row("VBD", "vbd")
    assert (row["VDI"], row["empty"]) == (NULL, True)
    assert collect(pool) == []


def test_a_drive_of_a_vm_that_is_gone_goes(pool: Sample) -> None:
    pool.set("VBD", "vbd", type="CD", empty=True, VDI=NULL)
    pool.drop("VM", "vm")
    assert collect(pool) == ["VBD", "VIF"]


def test_an_empty_drive_misses_nothing(pool: Sample) -> None:
    pool.set("VBD", "vbd", type="CD", empty=True, VDI=NULL)
    assert collect(pool) == []


@pytest.mark.parametrize("lost", ["host", "network"])
def test_with_an_interface_go_its_metrics_and_what_it_is_the_upper_end_of(pool: Sample, lost: str) -> None:
    pool.add("host", "other", metrics="host-metrics")
    pool.add("network", "net2")
    gone = {"host": "host", "network": "network"} | {lost: "nothing"}
    pool.add("PIF_metrics", "m")
    pool.add("PIF", "card", host="other", network="net2", metrics="m")
    pool.add("PIF", "bond", **gone, metrics="m")
    pool.add("Bond", "b", master="bond")
    pool.add("PIF", "vlan", **gone, metrics="shared", VLAN_master_of="v")
    pool.add("PIF_metrics", "shared")
    pool.add("VLAN", "v", tagged_PIF="card", untagged_PIF="vlan")
    pool.add("PIF", "upper", **gone, metrics="shared")
    pool.add("tunnel", "t", access_PIF="upper", transport_PIF="card")
    pool.add("PIF", "virtual", **gone)
    pool.add("network_sriov", "s", physical_PIF="card", logical_PIF="virtual")
    collect(pool)
    assert set(pool.rows.rows("PIF")) == {"card"}
    assert set(pool.rows.rows("PIF_metrics")) == {"shared"}
    for cls in ("Bond", "VLAN", "tunnel", "network_sriov"):
        assert not pool.rows.rows(cls)


def test_a_tunnel_without_its_lower_end_takes_the_upper_one_along(pool: Sample) -> None:
    pool.add("PIF", "upper", host="host", network="network")
    pool.add("tunnel", "t", access_PIF="upper", transport_PIF="gone")
    assert collect(pool) == ["tunnel"]
    assert there(pool, ("PIF", "upper")) == [False]


def test_a_group_of_gpus_has_the_types_of_those_it_still_has(pool: Sample) -> None:
    for kind in ("a", "b", "c"):
        pool.add("VGPU_type", kind)
    types = {"supported_VGPU_types": ["a", "b", "c"], "enabled_VGPU_types": ["a", "b", "c"]}
    pool.add("GPU_group", "g", **types)
    here = {"supported_VGPU_types": ["a"], "enabled_VGPU_types": ["a"]}
    pool.add("PGPU", "p", host="host", GPU_group="g", **here)
    for number, kind in enumerate(("b", "c")):
        there_ = {"supported_VGPU_types": [kind], "enabled_VGPU_types": [kind]}
        pool.add("PGPU", f"q{number}", host="gone", GPU_group="g", **there_)
    pool.add("VGPU", "used", VM="vm", GPU_group="g", type="b")
    assert collect(pool) == ["PGPU", "VGPU_type"]
    group = pool.row("GPU_group", "g")
    assert (group["supported_VGPU_types"], group["enabled_VGPU_types"]) == (["a"], ["a"])
    assert set(pool.rows.rows("VGPU_type")) == {"a", "b"}


def test_metrics_of_no_host_go(pool: Sample) -> None:
    pool.add("host_metrics", "lost")
    assert collect(pool) == ["host_metrics"]
    assert there(pool, ("host_metrics", "lost"), ("host_metrics", "host-metrics")) == [False, True]


def test_certificates_of_hosts_go_and_those_of_authorities_stay(pool: Sample) -> None:
    for kind in ("host", "host_internal", "ca", "pinned"):
        pool.add("Certificate", kind, type=kind, host=NULL if kind == "ca" else "gone")
    pool.add("Certificate", "kept", type="host", host="host")
    assert collect(pool) == ["Certificate"]
    assert set(pool.rows.rows("Certificate")) == {"ca", "pinned", "kept"}


def test_the_contents_of_a_vtpm_go_with_it(pool: Sample) -> None:
    pool.add("secret", "s", value="contents")
    pool.add("VTPM", "v", VM="gone", contents="s")
    assert collect(pool) == ["VTPM"]
    assert there(pool, ("secret", "s")) == [False]


def test_a_host_needs_no_reboot_for_updates_that_are_gone(pool: Sample) -> None:
    pool.add("pool_update", "u")
    pool.set("host", "host", updates_requiring_reboot=["u", "gone"])
    assert collect(pool) == ["host"]
    assert pool.row("host", "host")["updates_requiring_reboot"] == ["u"]


ORPHANS = [(cls, field) for cls, fields in DEPENDS_ON.items() for field in fields if cls != "VBD"]


@pytest.mark.parametrize("lost", ["gone", NULL, ""])
@pytest.mark.parametrize(("cls", "field"), ORPHANS, ids=[f"{cls}.{field}" for cls, field in ORPHANS])
def test_a_row_goes_when_either_end_is_gone(pool: Sample, cls: str, field: str, lost: str) -> None:
    fields: dict[str, Any] = {}
    for name in DEPENDS_ON[cls]:
        target = garbage.target(cls, name)
        fields[name] = f"needed-{target}"
        if pool.rows.row(target, fields[name]) is None:
            pool.add(target, fields[name])
    if cls == "Certificate":
        fields["type"] = "host"
    pool.add(cls, "row", **fields)
    rule = next(rule for rule in RULES if rule.cls == cls)
    assert list(garbage.found(pool.rows, rule, ["row"])) == []
    pool.set(cls, "row", **{field: lost})
    changes, given, _ = garbage.removal(pool.rows, rule, ["row"])
    check(pool.rows, given)
    pool.set(cls, "row", **{field: fields[field]})
    with pytest.raises(DatabaseConflict):
        commit(pool.rows, Transact(changes=changes, preconditions=given))


def test_a_row_that_comes_back_meanwhile_keeps_those_that_need_it(pool: Sample) -> None:
    pool.drop("SR", "sr")
    rule = RULES[0]
    changes, given, count = garbage.removal(pool.rows, rule, ["vdi"])
    assert count == 1
    pool.sr()
    with pytest.raises(DatabaseConflict):
        commit(pool.rows, Transact(changes=changes, preconditions=given))
