"""What a check finds, and which repair has no alternative."""

from __future__ import annotations

from typing import Any

import pytest

from services.db.check.findings import DropField, DropRow, Finding, Kind, Rebuild, SetField, Severity, Stamp, damage
from services.db.check.repair import repaired
from services.db.check.soundness import check_rows, check_store
from shared.frozen import FrozenList
from shared.store import NULL
from tests.db.check import sample
from tests.db.check.sample import GROUP, HOST, METRICS, NETWORK, POOL, SR, VBD, VDI, VM, Kept


@pytest.fixture
def kept() -> Kept:
    return Kept()


def found(kept: Kept) -> list[Finding]:
    return check_rows(kept.rows, kept.generation)


def only(kept: Kept) -> Finding:
    findings = found(kept)
    assert len(findings) == 1, findings
    return findings[0]


def after_repair(kept: Kept) -> tuple[dict[str, Any], list[Finding]]:
    """The fields of each row, and what is left."""
    rows, _ = repaired(kept.rows, kept.generation)
    return {row.ref: row.fields for row in rows}, check_rows(rows, kept.generation)


def test_a_sound_database_has_no_findings(kept: Kept) -> None:
    assert found(kept) == []
    assert check_store(sample.store()) == []
    assert check_rows([], 0) == []


# ---- fields


def test_a_missing_field_gets_its_default(kept: Kept) -> None:
    kept.lose(NETWORK, "MTU")
    finding = only(kept)
    assert (finding.kind, finding.cls, finding.ref, finding.field) == (Kind.MISSING_FIELD, "network", NETWORK, "MTU")
    assert finding.repair == SetField(1500)
    fields, left = after_repair(kept)
    assert (fields[NETWORK]["MTU"], left) == (1500, [])


def test_a_missing_field_without_default_has_no_repair(kept: Kept) -> None:
    kept.lose(VBD, "VM")
    assert (only(kept).kind, only(kept).repair) == (Kind.MISSING_FIELD, None)


def test_a_field_that_no_class_has_is_left_out(kept: Kept) -> None:
    kept.set(NETWORK, nothing=1)
    assert (only(kept).kind, only(kept).repair) == (Kind.UNKNOWN_FIELD, DropField())
    assert "nothing" not in after_repair(kept)[0][NETWORK]


def test_rows_of_a_class_that_nobody_knows_are_left_out(kept: Kept) -> None:
    kept.again(NETWORK, cls="Nonsense", ref="OpaqueRef:x", fields={"uuid": "u"})
    assert (only(kept).kind, only(kept).repair) == (Kind.UNKNOWN_CLASS, DropRow())
    assert "OpaqueRef:x" not in after_repair(kept)[0]


@pytest.mark.parametrize(
    ("field", "value", "right"),
    [
        ("MTU", "9000", 9000),
        ("MTU", "big", None),
        ("MTU", True, None),
        ("MTU", 2**63, None),
        ("name_label", 5, None),
        ("name_label", None, None),
        ("tags", "a", None),
        ("tags", ["a", 1], None),
        ("other_config", {"a": 1}, None),
        ("other_config", [["a", "b"]], None),
        ("managed", "true", None),
    ],
)
def test_a_value_of_another_type_is_damage(kept: Kept, field: str, value: Any, right: Any) -> None:
    """It is put right where it says without doubt what was meant."""
    kept.set(NETWORK, **{field: value})
    finding = next(finding for finding in found(kept) if finding.field == field)
    assert finding.kind is Kind.WRONG_TYPE
    assert finding.repair == (None if right is None else SetField(right))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), None, 1])
def test_a_number_that_is_none_is_damage(kept: Kept, number: object) -> None:
    kept.set(VM, HVM_shadow_multiplier=number)
    assert only(kept).kind is Kind.WRONG_TYPE
    assert only(kept).repair == (SetField(1.0) if number == 1 else None)


def test_what_does_not_outlive_a_restart_may_be_emptied(kept: Kept) -> None:
    kept.set(VM, allowed_operations="start")
    assert only(kept).repair == SetField([])


def test_times_are_in_their_plain_form(kept: Kept) -> None:
    kept.set(VM, snapshot_time="2026-01-02T03:04:05Z")
    assert only(kept).repair == SetField("20260102T03:04:05Z")
    kept.set(VM, snapshot_time="yesterday")
    assert only(kept).repair is None


def test_a_word_that_no_enum_has_may_be_a_newer_programs(kept: Kept) -> None:
    kept.set(VM, power_state="Floating")
    assert (only(kept).kind, only(kept).severity) == (Kind.UNKNOWN_WORD, Severity.NOTE)
    kept.set(VM, power_state="running")
    assert (only(kept).kind, only(kept).repair) == (Kind.WRONG_TYPE, SetField("Running"))


def test_text_that_xml_cannot_hold_is_cut(kept: Kept) -> None:
    kept.set(NETWORK, name_label="a\x00b", other_config={"k": "v\x01"})
    assert {finding.kind for finding in found(kept)} == {Kind.UNSTORABLE_TEXT}
    fields, left = after_repair(kept)
    assert (fields[NETWORK]["name_label"], fields[NETWORK]["other_config"], left) == ("a", {"k": "v"}, [])


# ---- references and uuids


def test_a_row_that_is_there_twice_is_there_once(kept: Kept) -> None:
    kept.again(NETWORK)
    assert (only(kept).kind, only(kept).repair) == (Kind.SHARED_REFERENCE, DropRow())
    rows, _ = repaired(kept.rows, kept.generation)
    assert [row.ref for row in rows].count(NETWORK) == 1


def test_two_different_rows_of_one_reference_are_left_to_people(kept: Kept) -> None:
    kept.again(NETWORK, fields={**kept.row(NETWORK).fields, "name_label": "other"})
    assert (only(kept).kind, only(kept).repair) == (Kind.SHARED_REFERENCE, None)


@pytest.mark.parametrize("ref", ["", NULL])
def test_a_row_has_a_reference(kept: Kept, ref: str) -> None:
    kept.again(NETWORK, ref=ref, fields={**kept.row(NETWORK).fields, "uuid": "other"})
    assert only(kept).kind is Kind.NO_REFERENCE


def test_a_uuid_is_of_one_row_of_the_whole_database(kept: Kept) -> None:
    kept.set(VM, uuid="u-network")
    assert (only(kept).kind, only(kept).repair) == (Kind.SHARED_UUID, None)
    assert {VM, NETWORK} <= {only(kept).ref, *only(kept).what.split()}


def test_a_row_has_a_uuid(kept: Kept) -> None:
    kept.set(VM, uuid="")
    assert (only(kept).kind, only(kept).repair) == (Kind.NO_UUID, None)


def test_a_reference_to_a_row_that_is_gone_is_a_note(kept: Kept) -> None:
    kept.set(VM, affinity="OpaqueRef:gone")
    finding = only(kept)
    assert (finding.kind, finding.severity, finding.field) == (Kind.DANGLING, Severity.NOTE, "affinity")
    kept.drop(SR)
    garbage = next(finding for finding in found(kept) if finding.cls == "VDI")
    assert "garbage" in garbage.what
    assert damage(found(kept)) == []


def test_references_in_sets_and_maps_are_followed(kept: Kept) -> None:
    kept.set(NETWORK, blobs={"a": "OpaqueRef:gone"}, assigned_ips={"OpaqueRef:vif": "10.0.0.1"})
    kept.set(HOST, updates_requiring_reboot=["OpaqueRef:update"])
    assert {finding.field for finding in found(kept)} == {"blobs", "assigned_ips", "updates_requiring_reboot"}


def test_a_reference_to_a_row_of_another_class_is_damage(kept: Kept) -> None:
    kept.set(VBD, VDI=NETWORK)
    assert (only(kept).kind, only(kept).severity, only(kept).repair) == (Kind.WRONG_CLASS, Severity.DAMAGE, None)


@pytest.mark.parametrize("metrics", ["OpaqueRef:gone", NULL, ""])
def test_a_host_without_its_metrics_is_damaged(kept: Kept, metrics: str) -> None:
    kept.set(HOST, metrics=metrics)
    assert (only(kept).kind, only(kept).severity) == (Kind.DANGLING, Severity.DAMAGE)


# ---- relations


def test_the_right_end_of_a_relation_is_set_to_what_the_left_ends_say(kept: Kept) -> None:
    kept.set(GROUP, VMs=[])
    assert (only(kept).kind, only(kept).ref, only(kept).repair) == (Kind.ONE_SIDED, GROUP, SetField([VM]))
    kept.set(GROUP, VMs=[VM, "OpaqueRef:other"])
    assert after_repair(kept)[0][GROUP]["VMs"] == [VM]
    kept.set(GROUP, VMs=[VM, VM])
    assert after_repair(kept)[0][GROUP]["VMs"] == [VM]


def test_a_list_that_follows_from_references_is_worked_out_and_compared() -> None:
    made = sample.store()
    row = made.tables["VM"].rows[VM]
    row.fields = {**row.fields, "VBDs": FrozenList()}
    (finding,) = check_store(made)
    assert (finding.kind, finding.cls, finding.field, finding.repair) == (Kind.WRONG_LIST, "VM", "VBDs", Rebuild())


# ---- generations, pool, indexes


@pytest.mark.parametrize(("created", "modified"), [(-1, 1), (2, 1), (0, 99)])
def test_generations_that_cannot_be_are_those_of_now(kept: Kept, created: int, modified: int) -> None:
    kept.again(NETWORK, created=created, modified=modified)
    kept.drop(NETWORK)
    assert only(kept).kind is Kind.WRONG_GENERATION
    assert isinstance(only(kept).repair, Stamp)
    assert after_repair(kept)[1] == []


def test_a_table_was_touched_when_its_newest_row_was() -> None:
    made = sample.store()
    made.tables["VM"].touched = 0
    made.tables["VDI"].touched = made.generation + 1
    assert {finding.kind for finding in check_store(made)} == {Kind.WRONG_GENERATION}
    assert {finding.cls for finding in check_store(made)} == {"VM", "VDI"}


def test_there_is_one_pool_and_its_coordinator_is_one_of_its_hosts(kept: Kept) -> None:
    kept.set(POOL, master="OpaqueRef:gone")
    finding = next(finding for finding in found(kept) if finding.kind is Kind.POOL)
    assert finding.repair == SetField(HOST)
    kept.again(HOST, ref="OpaqueRef:host2", fields={**kept.row(HOST).fields, "uuid": "u-host2"})
    finding = next(finding for finding in found(kept) if finding.kind is Kind.POOL)
    assert finding.repair is None
    kept.drop(POOL)
    assert [finding.kind for finding in damage(found(kept))] == [Kind.POOL]


def test_indexes_tell_the_truth() -> None:
    made = sample.store()
    del made.by_uuid["u-vm"]
    made.by_ref["OpaqueRef:nobody"] = "VM"
    made.tables["VM"].by_name["vm"] = {VDI: None}
    found = check_store(made)
    assert {finding.kind for finding in found} == {Kind.WRONG_INDEX}
    assert len(found) == 3


def test_repairs_leave_the_rows_they_were_given_alone(kept: Kept) -> None:
    kept.set(NETWORK, MTU="9000")
    repaired(kept.rows, kept.generation)
    assert kept.row(NETWORK).fields["MTU"] == "9000"
    assert METRICS in {row.ref for row in kept.rows}
