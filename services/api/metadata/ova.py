"""The document `ova.xml`: which toolstack wrote it, and objects whose references are `Ref:<n>`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from services.api.decisions.rows import NULL
from services.api.wire import xmlrpc
from services.api.wire.raw import Malformed
from services.api.wire.unmarshal import decoder
from shared.datamodel import model
from shared.datamodel.types import BOOL, INT, STRING, MapType, RecordType, RefType, SetType, Type
from shared.errors import ApiError

FORMAT: Final = 2
"""`export_vsn`: checksums beside the data, no table of them at the end."""

CLASSES: Final = (
    "host",
    "VM",
    "VM_metrics",
    "VM_guest_metrics",
    "VBD",
    "VIF",
    "network",
    "VDI",
    "SR",
    "VGPU_type",
    "VGPU",
    "GPU_group",
    "PVS_proxy",
    "PVS_site",
    "VTPM",
)
"""In the order of the document."""

VTPM_FIELDS: Final[Mapping[str, Type]] = {
    "VM": RefType("VM"),
    "uuid": STRING,
    "is_unique": BOOL,
    "is_protected": BOOL,
    "content": STRING,
}
"""A virtual TPM is not written like its record: names begin with `vTPM'_`, and it brings what it holds."""

_VTPM: Final = "vTPM'_"


@dataclass(frozen=True, slots=True)
class Version:
    """What wrote the document. `xapi`: major and minor, of which a newer one is not read."""

    hostname: str
    date: str
    product_version: str
    product_brand: str
    build_number: str
    xapi: tuple[int, int]
    format: int = FORMAT


@dataclass(frozen=True, slots=True)
class Object:
    """`id`: `Ref:<n>`. `fields`: of its record, as far as the document has and the data model knows them."""

    cls: str
    id: str
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Document:
    version: Version
    objects: tuple[Object, ...]

    def of(self, cls: str) -> list[Object]:
        return [one for one in self.objects if one.cls == cls]


# ---- writing


def write(document: Document) -> Iterator[str]:
    """The document in pieces, one for each object: there may be thousands."""
    version = document.version
    texts = {
        "hostname": version.hostname,
        "date": version.date,
        "product_version": version.product_version,
        "product_brand": version.product_brand,
        "build_number": version.build_number,
        "xapi_major": str(version.xapi[0]),
        "xapi_minor": str(version.xapi[1]),
        "export_vsn": str(version.format),
    }
    yield f"<value><struct>{_member('version', _struct({k: _text(v) for k, v in texts.items()}))}"
    yield "<member><name>objects</name><value><array><data>"
    for one in document.objects:
        yield _struct({"class": _text(one.cls), "id": _text(one.id), "snapshot": _snapshot(one)})
    yield "</data></array></value></member></struct></value>"


def _snapshot(one: Object) -> str:
    if one.cls == "VTPM":
        return _struct({_VTPM + name: xmlrpc.value_text(of, one.fields[name]) for name, of in VTPM_FIELDS.items()})
    return xmlrpc.value_text(RecordType(one.cls), one.fields)


def _text(value: str) -> str:
    return xmlrpc.value_text(STRING, value)


def _struct(members: Mapping[str, str]) -> str:
    return f"<value><struct>{''.join(_member(name, value) for name, value in members.items())}</struct></value>"


def _member(name: str, value: str) -> str:
    return f"<member><name>{name}</name>{value}</member>"


# ---- reading


def read(text: str) -> Document:
    """Raises IMPORT_ERROR [reason]; INTERNAL_ERROR for a field of another type than the model has."""
    try:
        raw = xmlrpc.parse_value(text)
    except Malformed as error:
        raise ApiError("IMPORT_ERROR", f"ova.xml: {error}") from None
    try:
        version = raw["version"]
        objects = tuple(_object(one) for one in raw["objects"])
        read_version = Version(
            hostname=str(version.get("hostname", "")),
            date=str(version.get("date", "")),
            product_version=str(version.get("product_version", "")),
            product_brand=str(version.get("product_brand", "")),
            build_number=str(version.get("build_number", "")),
            xapi=(decoder(INT)(version["xapi_major"]), decoder(INT)(version["xapi_minor"])),
            format=decoder(INT)(version.get("export_vsn", 0)),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ApiError("IMPORT_ERROR", f"ova.xml is not what it should be: {error}") from None
    return Document(read_version, objects)


def _object(raw: Mapping[str, Any]) -> Object:
    cls, snapshot = str(raw["class"]), raw["snapshot"]
    if cls == "VTPM":
        types: Mapping[str, Type] = VTPM_FIELDS
        snapshot = {name.removeprefix(_VTPM): value for name, value in snapshot.items()}
    elif cls in CLASSES:
        types = {name: field.type for name, field in model.classes[cls].fields.items() if not field.internal_only}
    else:
        types = {}
    fields = {name: decoder(of)(snapshot[name]) for name, of in types.items() if name in snapshot}
    return Object(cls, str(raw["id"]), fields)


# ---- references


def renamed(of: Type, value: Any, name: Callable[[str, str], str]) -> Any:
    """The value with other references. `name`: class and reference to the new one; NULL if it has none: then it is
    left out of sets and maps.
    """
    match of:
        case RefType():
            return name(of.cls, value)
        case SetType():
            found = [renamed(of.of, one, name) for one in value]
            return [one for one in found if one != NULL] if isinstance(of.of, RefType) else found
        case MapType():
            entries = [(renamed(of.key, key, name), renamed(of.value, one, name)) for key, one in value.items()]
            has_refs = isinstance(of.key, RefType) or isinstance(of.value, RefType)
            return {key: one for key, one in entries if not (has_refs and NULL in (key, one))}
    return value
