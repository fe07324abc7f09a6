"""Looking inside the toolstack: diagnostics, tracing, data sources."""

from __future__ import annotations

from shared.datamodel import refs
from shared.datamodel.declare import EMPTY, UUID, ClassDecl, declare, message, names, runtime, static
from shared.datamodel.roles import POOL_ADMIN, POOL_OPERATOR, READ_ONLY
from shared.datamodel.types import BOOL, FLOAT, STRING, STRING_MAP, STRING_SET, SetType

DIAGNOSTICS = declare(
    "Diagnostics",
    "",
    since="stockholm",
    roles=POOL_OPERATOR,
    in_database=False,
    gen_events=False,
    messages=[
        message("gc_compact", "", {"host": refs.host}, hidden=True),
        message("gc_stats", "", {"host": refs.host}, STRING_MAP, hidden=True),
        message("db_stats", "", result=STRING_MAP, hidden=True),
        message("network_stats", "", {"host": refs.host, "params": STRING_MAP}, SetType(STRING_SET), hidden=True),
    ],
)

OBSERVER = declare(
    "Observer",
    "",
    since="prototyped 23.14.0",
    roles=POOL_ADMIN,
    default_ctor_dtor=True,
    fields=[
        UUID,
        names("Observer", since="rio"),
        static("hosts", SetType(refs.host), "", EMPTY, stored_here=True),
        static("attributes", STRING_MAP, "", EMPTY),
        static("endpoints", STRING_SET, "", EMPTY),
        static("components", STRING_SET, "", EMPTY),
        static("enabled", BOOL, "", EMPTY),
    ],
    messages=[
        message("register", "", {"self": refs.Observer, "host": refs.host}, hidden=True),
        message("unregister", "", {"self": refs.Observer, "host": refs.host}, hidden=True),
        message("set_hosts", "", {"self": refs.Observer, "value": SetType(refs.host)}),
        message("set_enabled", "", {"self": refs.Observer, "value": BOOL}),
        message("set_attributes", "", {"self": refs.Observer, "value": STRING_MAP}),
        message("set_endpoints", "", {"self": refs.Observer, "value": STRING_SET}),
        message("set_components", "", {"self": refs.Observer, "value": STRING_SET}),
    ],
)

DATA_SOURCE = declare(
    "data_source",
    "",
    since="orlando",
    roles=READ_ONLY,
    in_database=False,
    gen_events=False,
    fields=[
        names("data_source", runtime, since="rio"),
        runtime("enabled", BOOL, "", since="rio"),
        runtime("standard", BOOL, "", since="rio"),
        runtime("units", STRING, "", since="rio"),
        runtime("min", FLOAT, "", since="rio"),
        runtime("max", FLOAT, "", since="rio"),
        runtime("value", FLOAT, "", since="rio"),
    ],
)

CLASSES: tuple[ClassDecl, ...] = (
    DIAGNOSTICS,
    OBSERVER,
    DATA_SOURCE,
)
