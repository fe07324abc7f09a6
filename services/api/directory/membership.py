"""From a user and its groups to what the pool lets it do: pure functions over rows."""

from __future__ import annotations

from collections.abc import Iterable

from services.api import role_rows
from services.api.decisions.rows import Rows, is_null


def subjects_of(rows: Rows, identifiers: Iterable[str]) -> list[str]:
    """References of the pool's subjects with these identifiers, in the order of the identifiers."""
    known = {row["subject_identifier"]: ref for ref, row in rows.rows("subject").items()}
    return [known[identifier] for identifier in dict.fromkeys(identifiers) if identifier in known]


def roles_of(rows: Rows, subjects: Iterable[str]) -> list[str]:
    """References of the roles that these subjects have, each once."""
    found = (role for ref in subjects for role in rows.get("subject", ref, "roles"))
    return list(dict.fromkeys(role for role in found if not is_null(role)))


def permissions_of(roles: Iterable[str]) -> tuple[str, ...]:
    """Names of all permissions in these roles, each once; a role that is none has none."""
    table = role_rows.rows()
    refs = dict.fromkeys(
        ref for role in roles if (row := table.row("role", role)) is not None for ref in row["subroles"]
    )
    return tuple(str(table.get("role", ref, "name_label")) for ref in refs)
