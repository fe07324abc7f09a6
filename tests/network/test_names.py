from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.network import names

prefixes = st.from_regex(r"[a-zA-Z0-9-]{0,6}", fullmatch=True)


def test_a_bridge_that_fits_keeps_its_name() -> None:
    assert names.bridge_device("", "xenbr0") == "xenbr0"
    assert names.bridge_device("p1-", "xenbr0") == "p1-xenbr0"


@given(prefix=prefixes, bridge=st.text(max_size=40))
def test_every_bridge_has_a_legal_name_that_begins_with_the_prefix(prefix: str, bridge: str) -> None:
    name = names.bridge_device(prefix, bridge)
    assert len(name.encode()) <= names.LENGTH
    assert name.startswith(prefix)
    assert name.isascii()
    assert "/" not in name
    assert name.split() == [name]


@given(prefix=prefixes, one=st.text(min_size=16, max_size=40), other=st.text(min_size=16, max_size=40))
def test_long_names_stay_different(prefix: str, one: str, other: str) -> None:
    assert (names.bridge_device(prefix, one) == names.bridge_device(prefix, other)) == (one == other)


@given(prefix=prefixes, vm=st.uuids(), device=st.integers(min_value=0, max_value=7))
def test_a_tap_is_named_by_its_vm_and_device_and_its_mark_leads_back(prefix: str, vm: object, device: int) -> None:
    name = names.tap_device(prefix, str(vm), str(device))
    assert len(name) == names.LENGTH
    assert name == names.tap_device(prefix, str(vm), str(device))
    assert name != names.tap_device(prefix, str(vm), str(device + 1))
    assert names.tap_of(prefix, names.tap_mark(prefix, str(vm), str(device))) == (str(vm), str(device))
    assert names.tap_of(prefix + "x", names.tap_mark(prefix, str(vm), str(device))) is None
