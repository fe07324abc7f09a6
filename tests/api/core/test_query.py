"""The query language of `get_all_records_where`, against a tiny evaluator written from its grammar."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.api import query
from shared.contracts.db import SnapshotRow
from shared.errors import ApiError
from shared.store import Store
from tests.api.harness import Client, Pool

ROW = {
    "name_label": "one",
    "name_description": "",
    "is_a_template": False,
    "memory_static_max": 128,
    "HVM_shadow_multiplier": 1.0,
    "tags": ["a", "it's"],
    "other_config": {"k": "v\\"},
    "power_state": "Halted",
}
COLUMNS = {
    "name__label": "one",
    "name__description": "",
    "is_a_template": "false",
    "memory__static_max": "128",
    "HVM__shadow_multiplier": "1",
    "tags": r"('a' 'it\'s')",
    "other_config": r"(('k' 'v\\'))",
    "power_state": "Halted",
    "_ref": "OpaqueRef:r",
}


def matches(expression: str) -> bool:
    return query.compile("VM", expression).selects("OpaqueRef:r", ROW)


@pytest.mark.parametrize(("column", "text"), COLUMNS.items())
def test_columns_compare_as_stored_text(column: str, text: str) -> None:
    assert matches(f'field "{column}"="{text}"')
    assert matches(f'"{text}"=field "{column}"')
    assert not matches(f'field "{column}"="{text}x"')


@pytest.mark.parametrize(
    ("expression", "holds"),
    [
        ("true", True),
        ("not true", False),
        ("not not true", True),
        ("true or true and false", False),  # (true or true) and false
        ("false and false or true", True),
        ("not false and false", True),  # not (false and false)
        ("not true or true", False),  # not (true or true)
        ("false or not false and false", True),
        ("(not false) and false", False),
        ("true and not true or true", False),
        ('"a"="a"', True),
        ('"a"="b"', False),
        ('""=""', True),
        (" \t\n( true )\n", True),
        ('(field "is_a_template"="false" and field "name__label"="one")', True),
        ("trueortrue", True),
    ],
)
def test_and_and_or_have_one_precedence_and_not_takes_all_that_follows(expression: str, holds: bool) -> None:
    assert matches(expression) is holds


@pytest.mark.parametrize(
    "expression",
    [
        "",
        " ",
        "maybe",
        "true true",
        "and true",
        "true and",
        "not",
        "(true",
        "true)",
        "()",
        '"a"',
        '"a"=',
        '="a"',
        'field "x"',
        'field x="a"',
        '"a"!="b"',
        '"a"<"b"',
        "'a'='a'",
        '"a"="b',
        "TRUE",
        "true\r",
        "(" * 3000 + "true" + ")" * 3000,
        "not " * 5000 + "true",
    ],
)
def test_what_is_not_of_the_language_is_named(expression: str) -> None:
    with pytest.raises(ApiError) as refused:
        matches(expression)
    assert refused.value.code == "INVALID_VALUE"
    assert refused.value.params[0] == expression


def test_an_unknown_field_is_missing_when_it_is_looked_at() -> None:
    found = query.compile("VM", 'field "name_label"="one"')
    with pytest.raises(ApiError) as refused:
        found.selects("OpaqueRef:r", ROW)
    assert refused.value.description == ["INTERNAL_ERROR", "missing field", "name_label", ""]


# ---- against a reference: expressions as trees that are written out and evaluated by two rules

Tree = tuple[Any, ...]

atoms = st.one_of(
    st.sampled_from([("true",), ("false",)]),
    st.tuples(st.just("="), st.sampled_from(sorted(COLUMNS)), st.sampled_from(sorted(set(COLUMNS.values()) | {"x"}))),
)
trees = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.tuples(st.just("group"), inner),
        st.tuples(st.just("not"), inner),
        st.tuples(st.just("chain"), inner, st.lists(st.tuples(st.sampled_from(["and", "or"]), inner), min_size=1)),
    ),
    max_leaves=12,
)
blanks = st.text(" \t\n", min_size=1, max_size=2)


def written(tree: Tree) -> str:
    match tree:
        case ("=", column, value):
            return f'field "{column}"="{value}"'
        case ("group", inner):
            return f"({written(inner)})"
        case ("not", inner):
            return f"not {written(inner)}"
        case ("chain", first, rest):
            return " ".join([written(first), *(f"{word} {written(item)}" for word, item in rest)])
    return str(tree[0])


def tokens(tree: Tree) -> list[Any]:
    """Flat: what a reader sees. Atoms are booleans already, groups are lists."""
    match tree:
        case ("=", column, value):
            return [COLUMNS[column] == value]
        case ("group", inner):
            return [evaluated(tokens(inner))]
        case ("not", inner):
            return ["not", *tokens(inner)]
        case ("chain", first, rest):
            return [*tokens(first), *(token for word, item in rest for token in (word, *tokens(item)))]
    return [tree[0] == "true"]


def evaluated(flat: list[Any]) -> bool:
    """From the right end of the left-most `not`: it takes all that follows it."""
    if "not" in flat:
        at = flat.index("not")
        return evaluated([*flat[:at], not evaluated(flat[at + 1 :])])
    value = bool(flat[0])
    for word, operand in zip(flat[1::2], flat[2::2], strict=True):
        value = (value and operand) if word == "and" else (value or operand)
    return value


@settings(max_examples=120, deadline=None)
@given(trees)
def test_any_expression_means_what_the_grammar_says(tree: Tree) -> None:
    assert matches(written(tree)) is evaluated(tokens(tree))


STORE = Store()
STORE.load(
    [
        SnapshotRow(cls="VM", ref=f"r{number}", created=1, modified=1, fields=fields)
        for number, fields in enumerate(
            {**ROW, "name_label": name, "uuid": f"u{number}", "is_a_template": number % 2 == 0}
            for number, name in enumerate(("one", "one", "two", ""))
        )
    ],
    1,
    1,
)
keys = st.sampled_from([*(("_ref", f"r{n}") for n in range(5)), *(("uuid", f"u{n}") for n in range(5)), ("uuid", "")])
names = st.tuples(st.just("name__label"), st.sampled_from(["one", "two", "", "three"]))
others = st.sampled_from([("is_a_template", "true"), ("is_a_template", "True"), ("nothing", "x")])
conditions = st.one_of(keys, names, others).map(lambda pair: f'field "{pair[0]}"="{pair[1]}"')
words = st.sampled_from([" and ", " or ", " and not "])


def scanned(expression: str) -> object:
    """What a look at every row gives."""
    selects = query.compile("VM", expression).selects
    try:
        return {ref for ref, row in STORE.rows("VM").items() if selects(ref, row)}
    except ApiError as error:
        return error.description


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(words, conditions), min_size=1, max_size=4))
def test_an_index_finds_what_a_look_at_every_row_finds(parts: list[tuple[str, str]]) -> None:
    expression = "".join(word + condition for word, condition in parts).removeprefix(" or").removeprefix(" and")
    try:
        found: object = set(query.matching(STORE, "VM", expression))  # type: ignore[arg-type]
    except ApiError as error:
        found = error.description
    assert found == scanned(expression)


def test_a_long_list_of_conditions_is_no_deep_one() -> None:
    wanted = " or ".join(f'field "uuid"="u{number}"' for number in range(3, 10_000))
    assert set(query.matching(STORE, "VM", wanted)) == {"r3"}  # type: ignore[arg-type]
    assert matches(" and ".join(["true"] * 30_000))


async def test_much_work_is_done_in_turns() -> None:
    many = " or ".join(f'field "uuid"="u{number}"' for number in range(3, 60_000))
    found = query.matching(STORE, "VM", many)
    assert not isinstance(found, dict)
    assert set(await found) == {"r3"}


def test_long_expressions_are_not_kept() -> None:
    kept = query._compile.cache_info().currsize
    query.compile("VM", " and ".join(["true"] * 3000))
    assert query._compile.cache_info().currsize == kept


def test_equality_of_an_indexed_field_looks_at_no_other_rows() -> None:
    for where in ('field "uuid"="u1"', '("u1"=field "uuid") and field "is_a_template"="false"'):
        assert query.compile("VM", where).keys == (("uuid", "u1"),)
    assert query.compile("VM", 'field "name__label"="a" and field "_ref"="b"').keys[0] == ("_ref", "b")
    assert query.compile("VM", 'field "uuid"="u1" or true').keys == ()


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet='"()= fieldandornottruefalse_', max_size=40))
def test_any_text_is_answered_or_refused(text: str) -> None:
    try:
        assert matches(text) in (True, False)
    except ApiError as error:
        assert error.code in ("INVALID_VALUE", "INTERNAL_ERROR")  # noqa: PT017


async def test_clients_select_records_with_it(client: Client, pool: Pool) -> None:
    vm = await pool.vm(client, "mine")
    where = 'field "is_a_template"="false" and field "is_control_domain"="false"'
    assert list(await client.call("VM.get_all_records_where", where)) == [vm]
    assert await client.call("VM.get_all_where", f'field "_ref"="{vm}"') == [vm]
    assert await client.call("VBD.get_all_records_where", 'field "frob"="x"') == {}
    assert await client.refusal("VM.get_all_records_where", 'field "frob"="x"') == [
        "INTERNAL_ERROR",
        "missing field",
        "frob",
        "",
    ]
