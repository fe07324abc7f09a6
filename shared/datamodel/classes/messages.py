"""Alerts kept for people to read."""

from __future__ import annotations

from shared.datamodel import refs
from shared.datamodel.declare import ClassDecl, declare, message, runtime
from shared.datamodel.groups import uuid
from shared.datamodel.roles import POOL_OPERATOR, READ_ONLY
from shared.datamodel.types import DATETIME, INT, STRING, STRING_MAP, EnumType, MapType, RecordType, SetType

CLS = EnumType("cls", ("VM", "Host", "SR", "Pool", "VMPP", "VMSS", "PVS_proxy", "VDI", "Certificate"))

MESSAGE = declare(
    "message",
    "An alert kept for people to read.",
    since="orlando",
    roles=READ_ONLY,
    in_database=False,
    fields=[
        uuid(since="rio"),
        runtime("name", STRING, "What kind of alert it is, such as VM_STARTED.", since="rio"),
        runtime("priority", INT, "How urgent it is: 1 is the most.", since="rio"),
        runtime("cls", CLS, "What kind of object it is about.", since="orlando, extended 1.313.0"),
        runtime("obj_uuid", STRING, "The object it is about.", since="rio"),
        runtime("timestamp", DATETIME, "When it was made.", since="rio"),
        runtime("body", STRING, "Text or XML that says more.", since="rio"),
    ],
    messages=[
        message(
            "create",
            "Makes an alert.",
            {"name": STRING, "priority": INT, "cls": CLS, "obj_uuid": STRING, "body": STRING},
            refs.message,
            roles=POOL_OPERATOR,
            sync_only=True,
        ),
        message("destroy", "Removes it.", {"self": refs.message}, roles=POOL_OPERATOR, sync_only=True),
        message(
            "destroy_many",
            "Removes these.",
            {"messages": SetType(refs.message)},
            since="prototyped 22.19.0",
            roles=POOL_OPERATOR,
        ),
        message(
            "destroy_all",
            "Removes all that the filters select.",
            {"filters": STRING_MAP},
            since="prototyped 26.6.0",
            roles=POOL_OPERATOR,
        ),
        message(
            "get",
            "Alerts about one object since a time.",
            {"cls": CLS, "obj_uuid": STRING, "since": DATETIME},
            MapType(refs.message, RecordType("message")),
            sync_only=True,
        ),
        message("get_all", "All alerts.", result=SetType(refs.message), sync_only=True),
        message(
            "get_since",
            "Alerts since a time.",
            {"since": DATETIME},
            MapType(refs.message, RecordType("message")),
            sync_only=True,
        ),
        message(
            "get_record", "All fields of one alert.", {"self": refs.message}, RecordType("message"), sync_only=True
        ),
        message("get_by_uuid", "The alert that has this uuid.", {"uuid": STRING}, refs.message, sync_only=True),
        message(
            "get_all_records",
            "Records of all alerts.",
            result=MapType(refs.message, RecordType("message")),
            sync_only=True,
        ),
        message(
            "get_all_records_where",
            "Records of the alerts for which the expression holds.",
            {"expr": STRING},
            MapType(refs.message, RecordType("message")),
            sync_only=True,
        ),
    ],
)

CLASSES: tuple[ClassDecl, ...] = (MESSAGE,)
