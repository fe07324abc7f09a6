"""What readers of the model rely on."""

from __future__ import annotations

import subprocess
import sys

import pytest

from shared.datamodel import MISSING, model
from shared.datamodel.declare import declare, rw, setter
from shared.datamodel.derive import build
from shared.datamodel.roles import READ_ONLY
from shared.datamodel.types import BOOL, NULL_REF, STRING, STRING_MAP, STRING_SET, RefType


def test_a_message_is_found_under_both_spellings() -> None:
    assert model.message("VM.start") is model.message("VM_start") is not None
    assert model.message("Cluster_host_destroy") is model.messages["Cluster_host.destroy"]
    assert model.message("VM.fly") is None


def test_no_two_messages_share_the_underscored_spelling() -> None:
    assert len(model.underscored) == len(model.messages)


def test_namespaces_show_as_one_underscore_on_the_wire_and_two_in_the_database() -> None:
    fields = model.classes["VM"].fields
    assert fields["memory_static_max"].column == "memory__static_max"
    assert fields["power_state"].column == "power_state"


def test_an_initial_value_is_never_shared() -> None:
    field = model.classes["VM"].fields["blocked_operations"]
    field.initial()["a"] = "b"
    assert field.initial() == {}
    assert field.default == {}


def test_a_field_without_default_starts_with_its_types_empty_value() -> None:
    field = model.classes["VBD"].fields["VM"]
    assert field.default is MISSING
    assert field.initial() == NULL_REF


@pytest.mark.parametrize(
    ("type", "text"),
    [
        (BOOL, "bool"),
        (STRING_SET, "string set"),
        (STRING_MAP, "(string -> string) map"),
        (RefType("VM"), "VM ref"),
    ],
)
def test_types_are_spelt_as_in_the_api(type: object, text: str) -> None:
    assert str(type) == text


def test_accessors_know_their_field() -> None:
    setter = model.messages["VM.set_name_label"]
    assert setter.field is model.classes["VM"].fields["name_label"]
    assert model.messages["VM.start"].field is None


def test_optional_parameters_come_last_and_are_not_required() -> None:
    assert model.messages["session.login_with_password"].required == 2
    for message in model.messages.values():
        assert all(p.default is not MISSING for p in message.params[message.required :]), message.wire_name


def test_every_reference_names_a_declared_class() -> None:
    named = {f.type.cls for c in model.classes.values() for f in c.fields.values() if isinstance(f.type, RefType)}
    assert named <= set(model.classes)


def test_removed_messages_say_so() -> None:
    assert model.messages["VBD.get_metrics"].removed
    assert not model.messages["VDI.resize_online"].removed, "it was published again after its removal"


def test_a_message_that_a_field_implies_already_cannot_be_declared_again() -> None:
    broken = declare(
        "Thing",
        "Something.",
        roles=READ_ONLY,
        fields=[rw("colour", STRING, "What it looks like.")],
        messages=[setter("colour", "Paints it.")],
    )
    with pytest.raises(ValueError, match=r"Thing\.set_colour"):
        build([broken])


def test_everything_is_described_in_a_short_line() -> None:
    for cls in model.classes.values():
        described = [(cls.name, cls.doc)]
        described += [(f"{cls.name}.{f.name}", f.doc) for f in cls.fields.values()]
        described += [(m.wire_name, m.doc) for m in cls.messages.values() if m.kind == "custom"]
        for name, doc in described:
            assert doc.endswith("."), name
            assert 7 <= len(doc) <= 160, name


def test_the_model_is_quick_to_import() -> None:
    """It is part of every process's start. Processor time, since other tests may be running."""
    program = "import time; start = time.process_time(); import shared.datamodel; print(time.process_time() - start)"
    runs = [float(subprocess.check_output([sys.executable, "-c", program])) for _ in range(3)]
    assert min(runs) < 0.25
