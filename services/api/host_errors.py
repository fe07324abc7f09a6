"""Errors of host services in the API's terms: they know objects by uuid, location or bridge, clients by reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from shared.datamodel.errors import CATALOGUE
from shared.errors import ApiError
from shared.store import Store

_PREFIX: Final = "OpaqueRef:"


def with_refs(store: Store, error: ApiError) -> ApiError:
    """The same error, its parameters turned into references where the catalogue says that an object is meant."""
    declared = CATALOGUE.get(error.code)
    if declared is None:
        return error
    params = list(error.params)
    for index, (name, value) in enumerate(zip(declared.params, error.params, strict=False)):
        find = _BY_CODE.get((error.code, name)) or _FINDERS.get(name.lower())
        if find is not None and not value.startswith(_PREFIX):
            params[index] = find(store, value) or value
    return error if params == error.params else ApiError(error.code, *params)


def _by_uuid(cls: str) -> Callable[[Store, str], str | None]:
    return lambda store, value: store.ref_of_uuid(cls, value)


def _disk(store: Store, value: str) -> str | None:
    """By uuid, or by its location in its SR."""
    rows = store.rows("VDI").items()
    return store.ref_of_uuid("VDI", value) or next((ref for ref, row in rows if row["location"] == value), None)


def _network(store: Store, value: str) -> str | None:
    """By uuid or bridge."""
    rows = store.rows("network").items()
    return store.ref_of_uuid("network", value) or next((ref for ref, row in rows if row["bridge"] == value), None)


def _vif(store: Store, value: str) -> str | None:
    """By uuid, or by the VM's uuid and the device: `<uuid>/0`."""
    name, _, device = value.partition("/")
    vm = store.ref_of_uuid("VM", name)
    if vm is None:
        return store.ref_of_uuid("VIF", value)
    vifs = (ref for ref in store.get("VM", vm, "VIFs") if store.row("VIF", ref) is not None)
    return next((ref for ref in vifs if store.get("VIF", ref, "device") == device), None)


_FINDERS: Final[dict[str, Callable[[Store, str], str | None]]] = {
    "vm": _by_uuid("VM"),
    "host": _by_uuid("host"),
    "sr": _by_uuid("SR"),
    "vdi": _disk,
    "network": _network,
    "vif": _vif,
}
"""Parameter name of the catalogue, in lower case, to how its object is found."""

_BY_CODE: Final = {("UNIMPLEMENTED_IN_SM_BACKEND", "message"): _by_uuid("SR")}
"""The same for one code: its parameter is a text by the catalogue, and an SR where an SR lacks something."""
