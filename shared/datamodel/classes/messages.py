"""Alerts kept for people to read."""

from __future__ import annotations

from shared.datamodel import refs
from shared.datamodel.declare import ClassDecl, declare, message, runtime, uuid
from shared.datamodel.roles import POOL_OPERATOR, READ_ONLY
from shared.datamodel.types import DATETIME, INT, STRING, STRING_MAP, EnumType, MapType, RecordType, SetType

CLS = EnumType(
    "cls",
    (
        "VM",
        "Host",
        "SR",
        "Pool",
        "VMPP",
        "VMSS",
        "PVS_proxy",
        "VDI",
        "Certificate",
    ),
)

MESSAGE = declare(
    "message",
    "",
    since="orlando",
    roles=READ_ONLY,
    in_database=False,
    fields=[
        uuid(since="rio"),
        runtime("name", STRING, "", since="rio"),
        runtime("priority", INT, "", since="rio"),
        runtime("cls", CLS, "", since="orlando, extended 1.313.0"),
        runtime("obj_uuid", STRING, "", since="rio"),
        runtime("timestamp", DATETIME, "", since="rio"),
        runtime("body", STRING, "", since="rio"),
    ],
    messages=[
        message(
            "create",
            "",
            {"name": STRING, "priority": INT, "cls": CLS, "obj_uuid": STRING, "body": STRING},
            refs.message,
            roles=POOL_OPERATOR,
            sync_only=True,
        ),
        message("destroy", "", {"self": refs.message}, roles=POOL_OPERATOR, sync_only=True),
        message(
            "destroy_many", "", {"messages": SetType(refs.message)}, since="prototyped 22.19.0", roles=POOL_OPERATOR
        ),
        message("destroy_all", "", {"filters": STRING_MAP}, since="prototyped 26.6.0", roles=POOL_OPERATOR),
        message(
            "get",
            "",
            {"cls": CLS, "obj_uuid": STRING, "since": DATETIME},
            MapType(refs.message, RecordType("message")),
            sync_only=True,
        ),
        message("get_all", "", result=SetType(refs.message), sync_only=True),
        message("get_since", "", {"since": DATETIME}, MapType(refs.message, RecordType("message")), sync_only=True),
        message("get_record", "", {"self": refs.message}, RecordType("message"), sync_only=True),
        message("get_by_uuid", "", {"uuid": STRING}, refs.message, sync_only=True),
        message("get_all_records", "", result=MapType(refs.message, RecordType("message")), sync_only=True),
        message(
            "get_all_records_where", "", {"expr": STRING}, MapType(refs.message, RecordType("message")), sync_only=True
        ),
    ],
)

CLASSES: tuple[ClassDecl, ...] = (MESSAGE,)
