"""What happened after a token, from the rows alone."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from services.api.events.changes import Changes, counts, since
from services.api.events.subscription import Subscription
from services.api.events.tokens import BEGINNING, Token
from shared.contracts.db import Delta, RowChange, RowCreated, RowDeleted, RowModified, SnapshotRow
from shared.datamodel import model
from shared.store import Store

EVERYTHING = Subscription.parse(["*"])


class Rows:
    """A store, and its commits one after the other."""

    def __init__(self) -> None:
        self.store = Store()

    def commit(self, *changes: RowChange) -> int:
        now = self.store.generation
        self.store.apply(Delta(term=1, generation=now + 1, previous=now, changes=list(changes)))
        return now + 1

    def make(self, ref: str, cls: str = "network") -> int:
        return self.commit(RowCreated(cls=cls, ref=ref, fields={}))

    def change(self, ref: str, cls: str = "network", text: str = "changed") -> int:
        field = "body" if cls == "message" else "name_description"
        return self.commit(RowModified(cls=cls, ref=ref, fields={field: text}))

    def drop(self, ref: str, cls: str = "network") -> int:
        return self.commit(RowDeleted(cls=cls, ref=ref))

    def loaded(self) -> Store:
        """The same rows as a process has them that has just started: nothing of the past is known."""
        fresh = Store()
        fresh.load(
            [
                SnapshotRow(cls=row.cls, ref=row.ref, created=row.created, modified=row.modified, fields=row.fields)
                for row in self.store.snapshot()
            ],
            self.store.generation,
            1,
        )
        return fresh


def told(changes: Changes) -> list[tuple[str, str]]:
    return [(section.kind, ref) for section in changes.sections for ref in section.refs]


def after(generation: int) -> Token:
    return Token(generation, generation)


def test_made_is_add_changed_is_mod_gone_is_del() -> None:
    rows = Rows()
    rows.make("changed")
    known = rows.make("gone")
    rows.make("new")
    rows.change("changed")
    rows.drop("gone")
    for text in ("*", "network"):
        subscription = Subscription.parse([text])
        assert told(since(rows.store, subscription, after(known))) == [
            ("add", "new"),
            ("mod", "changed"),
            ("del", "gone"),
        ]


def test_the_kind_depends_on_what_the_client_knew() -> None:
    rows = Rows()
    made = rows.make("n")
    changed = rows.change("n")
    gone = rows.drop("n")
    assert told(since(rows.store, EVERYTHING, after(made - 1))) == []
    assert told(since(rows.store, EVERYTHING, after(made))) == [("del", "n")]
    assert told(since(rows.store, EVERYTHING, after(changed))) == [("del", "n")]
    assert told(since(rows.store, EVERYTHING, after(gone))) == []


def test_several_changes_are_one() -> None:
    rows = Rows()
    known = rows.make("n")
    for number in range(5):
        rows.change("n", text=str(number))
    assert told(since(rows.store, EVERYTHING, after(known))) == [("mod", "n")]


def test_one_that_was_made_again_under_its_reference_is_new() -> None:
    rows = Rows()
    known = rows.make("n")
    rows.drop("n")
    rows.make("n")
    assert told(since(rows.store, EVERYTHING, after(known))) == [("add", "n")]


def test_one_that_was_made_again_and_went_again_is_gone_for_who_knew_the_first() -> None:
    rows = Rows()
    known = rows.make("n")
    rows.drop("n")
    second = rows.make("n")
    last = rows.drop("n")
    assert told(since(rows.store, EVERYTHING, after(known))) == [("del", "n")]
    assert told(since(rows.store, EVERYTHING, after(second))) == [("del", "n")]
    assert told(since(rows.store, EVERYTHING, after(last))) == []


def test_nobody_hears_of_the_end_of_what_he_never_saw() -> None:
    rows = Rows()
    rows.make("never seen")
    rows.make("n")
    rows.drop("never seen")
    for text in ("*", "network"):
        subscription = Subscription.parse([text])
        changes = since(rows.store, subscription, BEGINNING)
        assert told(changes) == [("add", "n")]
        assert told(since(rows.store, subscription, changes.after(BEGINNING, subscription))) == []


def test_messages_come_first_and_have_a_generation_of_their_own() -> None:
    rows = Rows()
    first = rows.make("m1", "message")
    network = rows.make("n")
    second = rows.make("m2", "message")
    rows.drop("m1", "message")
    changes = since(rows.store, EVERYTHING, Token(first, first))
    assert told(changes) == [("add", "m2"), ("del", "m1"), ("add", "n")]
    assert (changes.generation, changes.messages) == (network, second + 1)
    assert told(since(rows.store, EVERYTHING, Token(network, first))) == [("add", "m2"), ("del", "m1")]
    assert told(since(rows.store, EVERYTHING, Token(first, second + 1))) == [("add", "n")]
    assert told(since(rows.store, EVERYTHING, Token(network, 0))) == [("add", "m2")]


def test_from_generation_zero_all_messages_that_are_kept_come_again() -> None:
    rows = Rows()
    for number in range(5):
        rows.make(f"m{number}", "message")
    rows.drop("m2", "message")
    kept = [("add", f"m{number}") for number in (0, 1, 3, 4)]
    assert told(since(rows.store, Subscription.parse(["message"]), BEGINNING)) == kept


def test_negative_tokens_are_before_everything_and_future_ones_after() -> None:
    rows = Rows()
    rows.make("a")
    now = rows.make("b")
    assert told(since(rows.store, EVERYTHING, Token(-1, -1))) == [("add", "a"), ("add", "b")]
    for ahead in (now + 1, 2**63 - 1):
        assert told(since(rows.store, EVERYTHING, Token(ahead, ahead))) == []


def test_single_objects_are_looked_up_whatever_else_happened() -> None:
    rows = Rows()
    rows.make("gone")
    known = rows.make("changed")
    rows.make("other")
    rows.change("changed")
    rows.drop("gone")
    rows.make("new")
    wanted = Subscription.parse(["network/changed", "network/gone", "network/new", "network/never"])
    assert told(since(rows.store, wanted, after(known))) == [("add", "new"), ("mod", "changed"), ("del", "gone")]


def test_a_process_that_has_just_started_tells_what_came_and_changed_but_not_what_went() -> None:
    """As the original after a restart: who overslept a deletion sees it in the counts."""
    rows = Rows()
    rows.make("changed")
    known = rows.make("gone")
    rows.make("new")
    rows.change("changed")
    rows.drop("gone")
    fresh = rows.loaded()
    assert told(since(fresh, EVERYTHING, after(known))) == [("add", "new"), ("mod", "changed")]
    assert counts(fresh)["network"] == 2


def test_a_table_remembers_at_least_its_last_256_deletions_and_512_of_messages() -> None:
    for cls, least, most in (("network", 256, 512), ("message", 512, 1024)):
        rows = Rows()
        for number in range(1500):
            rows.make(f"r{number}", cls)
        known = rows.store.generation
        for number in range(1500):
            rows.drop(f"r{number}", cls)
            if number % 50 == 49:
                kept = told(since(rows.store, Subscription.parse([cls]), after(known)))
                assert min(number + 1, least) <= len(kept) < most
                assert kept[0] == ("del", f"r{number}")


STEPS = st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(["make", "change", "drop", "look"])), max_size=40)


@given(STEPS, st.booleans())
@settings(max_examples=100, deadline=None)
def test_whoever_follows_with_tokens_has_the_rows_whatever_happens_between(
    steps: list[tuple[str, str]], whole_class: bool
) -> None:
    subscription = Subscription.parse(["network"] if whole_class else [f"network/{ref}" for ref in "abcd"])
    rows = Rows()
    copy: dict[str, int] = {}
    token = BEGINNING

    def look() -> None:
        nonlocal token
        changes = since(rows.store, subscription, token)
        token = changes.after(token, subscription)
        for section in changes.sections:
            for place, ref in enumerate(section.refs):
                assert section.kind == "add" or ref in copy
                if section.kind == "del":
                    del copy[ref]
                else:
                    copy[ref] = section.rows[place].modified

    for ref, step in steps:
        there = ref in rows.store.rows("network")
        if step == "look":
            look()
        elif step == "make" and not there:
            rows.make(ref)
        elif step == "change" and there:
            rows.change(ref, text=str(rows.store.generation))
        elif step == "drop" and there:
            rows.drop(ref)
    look()
    assert copy == {ref: row.modified for ref, row in rows.store.tables["network"].rows.items()}


def test_counts_are_of_all_classes_in_lower_case() -> None:
    rows = Rows()
    rows.make("n")
    rows.make("m", "message")
    found = counts(rows.store)
    assert set(found) == {name.lower() for name in model.classes}
    assert (found["network"], found["message"], found["vm"], found["event"]) == (1, 1, 0, 0)


def test_the_end_of_a_change_is_the_highest_generation_of_what_is_told() -> None:
    rows = Rows()
    rows.make("n1")
    highest = rows.make("n2")
    rows.make("p", "SR")
    changes = since(rows.store, Subscription.parse(["network"]), BEGINNING)
    assert changes.generation == highest
    assert since(rows.store, Subscription.parse(["network/n1"]), BEGINNING).generation == highest - 1
