"""Looking inside the toolstack: diagnostics, tracing, data sources."""

from __future__ import annotations

from shared.datamodel import refs
from shared.datamodel.declare import EMPTY, ClassDecl, declare, message, runtime, setter, static
from shared.datamodel.groups import UUID, names
from shared.datamodel.roles import POOL_ADMIN, POOL_OPERATOR, READ_ONLY
from shared.datamodel.types import BOOL, FLOAT, STRING, STRING_MAP, STRING_SET, SetType

DIAGNOSTICS = declare(
    "Diagnostics",
    "What developers ask about the toolstack itself.",
    since="stockholm",
    roles=POOL_OPERATOR,
    in_database=False,
    gen_events=False,
    messages=[
        message(
            "gc_compact", "Has a host's toolstack give back memory it does not use.", {"host": refs.host}, hidden=True
        ),
        message("gc_stats", "How a host's toolstack uses memory.", {"host": refs.host}, STRING_MAP, hidden=True),
        message("db_stats", "How the database is used.", result=STRING_MAP, hidden=True),
        message(
            "network_stats",
            "How a host's connections are used.",
            {"host": refs.host, "params": STRING_MAP},
            SetType(STRING_SET),
            hidden=True,
        ),
    ],
)

OBSERVER = declare(
    "Observer",
    "Tracing: what of the toolstack is observed, and where that goes.",
    since="prototyped 23.14.0",
    roles=POOL_ADMIN,
    default_ctor_dtor=True,
    fields=[
        UUID,
        names("observer", since="rio"),
        static("hosts", SetType(refs.host), "Hosts that are observed; none means all.", EMPTY, stored_here=True),
        static("attributes", STRING_MAP, "What is added to each span.", EMPTY),
        static("endpoints", STRING_SET, "Where spans go: files or collectors.", EMPTY),
        static("components", STRING_SET, "Parts that are observed; none means all.", EMPTY),
        static("enabled", BOOL, "Whether it is on.", EMPTY),
    ],
    messages=[
        message("register", "Tells a host about it.", {"self": refs.Observer, "host": refs.host}, hidden=True),
        message("unregister", "Has a host forget it.", {"self": refs.Observer, "host": refs.host}, hidden=True),
        setter("hosts", "Sets the hosts that are observed."),
        setter("enabled", "Turns it on or off."),
        setter("attributes", "Sets what is added to each span."),
        setter("endpoints", "Sets where spans go."),
        setter("components", "Sets the parts that are observed."),
    ],
)

DATA_SOURCE = declare(
    "data_source",
    "A figure that can be recorded.",
    since="orlando",
    roles=READ_ONLY,
    in_database=False,
    gen_events=False,
    fields=[
        names("data source", runtime, since="rio"),
        runtime("enabled", BOOL, "Whether it is being recorded.", since="rio"),
        runtime("standard", BOOL, "Whether it is recorded unless told otherwise.", since="rio"),
        runtime("units", STRING, "The unit of its values.", since="rio"),
        runtime("min", FLOAT, "The least value it can have.", since="rio"),
        runtime("max", FLOAT, "The greatest value it can have.", since="rio"),
        runtime("value", FLOAT, "Its value now.", since="rio"),
    ],
)

CLASSES: tuple[ClassDecl, ...] = (DIAGNOSTICS, OBSERVER, DATA_SOURCE)
