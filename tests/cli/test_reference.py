"""Every command and field that is declared agrees with the tables of the original."""

from __future__ import annotations

import re

import pytest

from services.cli.commands import command_table
from services.cli.records import RECORDS
from tests.cli.reference import table

COMMANDS = table("xe-commands.tsv")
FIELDS = [row for row in table("xe-records.tsv") if not row["class"].startswith("(")]
OURS = command_table()
KINDS = {"vm": "Vm_selectors", "host": "Host_selectors", "sr": "Sr_selectors"}


def words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


@pytest.mark.parametrize("row", COMMANDS, ids=lambda row: row["command"])
def test_a_command_has_the_parameters_and_flags_of_the_original(row: dict[str, str]) -> None:
    command = OURS[row["command"]]
    assert list(command.required) == words(row["required"])
    assert set(command.optional) == set(words(row["optional"]))
    flags = {flag for flag in words(re.sub(r"Deprecated\([^)]*\)", "", row["flags"])) if flag != "No_fd"}
    expected = {flag.replace("No_fd_local", "local").replace("With_fd_local", "local") for flag in flags}
    if "With_fd_local_session" in flags:
        expected.add("With_fd")
    ours = {str(flag) for flag in command.flags} | ({KINDS[command.selector.kind]} if command.selector else set())
    assert ours == expected
    assert bool(command.deprecated) == ("Deprecated(" in row["flags"])


OWN = {"help", "diagnostic-db-history"}
"""Commands of ours: the original's help is no row of its table, and it keeps no history."""


def test_there_are_no_other_commands_that_the_original_lacks() -> None:
    assert set(OURS) - {row["command"] for row in COMMANDS} == OWN


@pytest.mark.parametrize("row", FIELDS, ids=lambda row: f"{row['class']}/{row['field']}")
def test_a_field_is_shown_and_written_as_in_the_original(row: dict[str, str]) -> None:
    field = RECORDS[row["class"]].fields[row["field"]]
    assert field.qualifier.strip() == row["qualifier"]
    assert set(field.write) == {word for word in words(row["write"]) if word != "-"}
    flags = set(words(row["flags"])) - {"-"}
    ours = {"hidden": field.hidden, "deprecated": field.deprecated, "expensive": field.expensive}
    assert {name for name, on in {**ours, "case-insensitive": field.ignore_case}.items() if on} == flags
    assert (field.joiner == ", ") == ('join", "' in row["source"])
    defaults = (
        [RECORDS[name] for name in ("vm", "template", "snapshot")] if row["class"] == "vm" else [RECORDS[row["class"]]]
    )
    shown = {records.prefix for records in defaults if row["field"] in records.defaults}
    expected = (
        set(row["default"].split("+")) if row["class"] == "vm" else {row["class"]} if row["default"] == "yes" else set()
    )
    assert shown == expected - {"no"}


@pytest.mark.parametrize("prefix", sorted({row["class"] for row in FIELDS}))
def test_the_fields_of_a_record_come_in_the_order_of_the_original(prefix: str) -> None:
    assert list(RECORDS[prefix].fields) == [row["field"] for row in FIELDS if row["class"] == prefix]
