"""Our files, as the original's program would take them."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.population import creations
from services.db.transaction import resolve
from shared.contracts.db import Create, Delta, Transact
from shared.database_dump.schema import TABLES
from shared.datamodel import values
from shared.store import Store
from tests.db.outputs.original import Refused, accept
from tests.shared.database_dump.test_round_trip import TEXTS, document, legal, row, store_of


def pool(vms: int) -> Store:
    store = Store()
    network = Create(cls="network", ref="OpaqueRef:network", fields={"name_label": "n", "bridge": "xenbr0"})
    sr = Create(cls="SR", ref="OpaqueRef:sr", fields={"name_label": "sr", "type": "ext"})
    wanted = [network, sr, *creations(vms, network=network.ref, sr=sr.ref)]
    changes = resolve(store, Transact(changes=list(wanted)))
    store.apply(Delta(term=1, generation=42, previous=0, changes=changes))
    return store


@settings(max_examples=6, deadline=None)
@given(TEXTS, st.integers(0, 2**32))
def test_rows_of_every_class_are_taken_as_they_are(texts: list[str], seed: int) -> None:
    random = Random(seed)
    persistent = [table for table in TABLES.values() if table.persistent]
    store = store_of([row(table, number, texts, random) for table in persistent for number in range(2)])
    found = accept(document(store))
    assert found.manifest == {"schema_major_vsn": 5, "schema_minor_vsn": 909, "generation_count": 77}
    assert {name for name, rows in found.tables.items() if rows} == {table.name for table in persistent}
    for table in persistent:
        for ref, shown in found.tables[table.name].items():
            fields = store.tables[table.name].rows[ref].fields
            for column in table.columns.values():
                if column.field is not None:
                    assert shown[column.name] == legal(values.to_text(column.field.type, fields[column.field.name]))


def test_a_pool_is_taken_with_both_ends_of_its_relations() -> None:
    found = accept(document(pool(20)))
    machines = found.tables["VM"]
    assert len(machines) == 20
    for ref, vbd in found.tables["VBD"].items():
        assert f"'{ref}'" in machines[vbd["VM"]]["VBDs"]


def broken(old: bytes, new: bytes) -> bytes:
    data = document(pool(1))
    assert old in data
    return data.replace(old, new, 1)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (b'<table name="Bond"/>', b'<table name="Bond"/><table name="Zebra"/>', "a table Zebra"),
        (b'<table name="Bond"/>', b"", "no tables"),
        (b"<manifest>", b"\n<manifest>", "text between elements"),
        (b'key="generation_count" value="42"', b'value="42" key="generation_count"', "an element pair"),
        (b' power_state="', b' power_status="', "columns in the order|unexpected column"),
        (b' VBDs="(', b' VBDs="(x', "a bare symbol"),
        (b' bridge="xenbr0"', b' bridge="xen br0"', "not guarded"),
        (b' _ref="OpaqueRef:network"', b"", "no _ref, which has no default"),
        (b"</database>", b"", "no XML"),
    ],
)
def test_what_the_original_refuses_is_noticed(old: bytes, new: bytes, why: str) -> None:
    """The checks would find something."""
    with pytest.raises(Refused, match=why):
        accept(broken(old, new))
