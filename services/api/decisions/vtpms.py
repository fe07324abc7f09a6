"""Virtual TPMs: their rows, their contents (a secret), and what they allow."""

from __future__ import annotations

from services.api.decisions.fresh import Fresh, ref_of
from services.api.decisions.rows import Rows, existing
from services.api.decisions.vm_operations import bad_power_state
from shared.contracts.db import Change, Create, Delete
from shared.errors import ApiError


def created(vm: str, fresh: Fresh, *, is_unique: bool, contents: str = "") -> list[Change]:
    """The rows of a new VTPM of the VM and of its contents, base64 text."""
    secret, uuid = fresh(), fresh()
    fields = {
        "uuid": uuid,
        "VM": vm,
        "is_unique": is_unique,
        "contents": ref_of(secret),
        "allowed_operations": ["destroy"],
    }
    return [
        Create(cls="secret", ref=ref_of(secret), fields={"uuid": secret, "value": contents, "other_config": {}}),
        Create(cls="VTPM", ref=ref_of(uuid), fields=fields),
    ]


def copied(rows: Rows, source: str, vm: str, fresh: Fresh) -> list[Change]:
    """Another VM gets one like it; what a unique one holds is never copied."""
    row = existing(rows, "VTPM", source)
    contents = "" if row["is_unique"] else contents_of(rows, source)
    return created(vm, fresh, is_unique=row["is_unique"], contents=contents)


def contents_of(rows: Rows, vtpm: str) -> str:
    """Raises HANDLE_INVALID."""
    value: str = existing(rows, "secret", existing(rows, "VTPM", vtpm)["contents"])["value"]
    return value


def removed(rows: Rows, vtpm: str) -> list[Change]:
    secret: str = existing(rows, "VTPM", vtpm)["contents"]
    return [Delete(cls="secret", ref=secret), Delete(cls="VTPM", ref=vtpm)]


def check(rows: Rows, vtpm: str, op: str) -> ApiError | None:
    """Why it may not be destroyed now; None if it may. `op`: destroy, the only one."""
    row = rows.row("VTPM", vtpm)
    if row is None:
        return ApiError("HANDLE_INVALID", "VTPM", vtpm)
    power_state: str = existing(rows, "VM", row["VM"])["power_state"]
    if power_state in ("Halted", "Suspended"):
        return None
    return bad_power_state(row["VM"], ("halted;suspended",), power_state)


def allowed_operations(rows: Rows, vtpm: str) -> list[str]:
    """`destroy` while the VM is halted: a suspended VM's may be destroyed, and is not listed. Raises HANDLE_INVALID."""
    halted = existing(rows, "VM", existing(rows, "VTPM", vtpm)["VM"])["power_state"] == "Halted"
    return ["destroy"] if halted else []
