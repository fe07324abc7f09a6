"""What a host consists of and keeps."""

from __future__ import annotations

from shared.datamodel import refs
from shared.datamodel.declare import (
    EMPTY,
    UNSET_REF,
    ClassDecl,
    declare,
    maintained,
    message,
    namespace,
    runtime,
    static,
)
from shared.datamodel.groups import UUID, names, other_config
from shared.datamodel.roles import POOL_ADMIN, POOL_OPERATOR, READ_ONLY
from shared.datamodel.types import BOOL, DATETIME, FLOAT, INT, STRING, STRING_MAP

HOST_METRICS = declare(
    "host_metrics",
    "A host's memory, and whether it is alive.",
    roles=POOL_OPERATOR,
    fields=[
        UUID,
        namespace(
            "memory",
            runtime("total", INT, "Bytes of memory it has."),
            runtime(
                "free",
                INT,
                "Bytes of memory that are free.",
                EMPTY,
                since="rio, deprecated midnight-ride, removed tampa",
            ),
        ),
        runtime("live", BOOL, "Whether it is alive, as far as the pool knows."),
        runtime("last_updated", DATETIME, "When this was last brought up to date."),
        other_config(since="orlando"),
    ],
)

HOST_CPU = declare(
    "host_cpu",
    "One of a host's CPUs; `host.cpu_info` tells more.",
    since="rio, deprecated midnight-ride",
    parts_since="rio",
    roles=POOL_OPERATOR,
    fields=[
        UUID,
        runtime("host", refs.host, "The host it belongs to."),
        runtime("number", INT, "Its number on the host."),
        runtime("vendor", STRING, "Who made it."),
        runtime("speed", INT, "Its clock, in MHz."),
        runtime("modelname", STRING, "Its name."),
        runtime("family", INT, "Its family number."),
        runtime("model", INT, "Its model number."),
        runtime("stepping", STRING, "Its revision."),
        runtime("flags", STRING, "What it can do, as words."),
        runtime("features", STRING, "What it can do, as bits."),
        runtime("utilisation", FLOAT, "Its load, 0 to 1; use the performance archives.", persist=False),
        other_config(since="orlando"),
    ],
)

HOST_CRASHDUMP = declare(
    "host_crashdump",
    "What a host left behind when its hypervisor crashed.",
    roles=POOL_OPERATOR,
    fields=[
        UUID,
        static("host", refs.host, "The host that crashed."),
        runtime("timestamp", DATETIME, "When it crashed."),
        runtime("size", INT, "Bytes it takes."),
        static("filename", STRING, "Its file on the host.", internal=True),
        other_config(since="miami"),
    ],
    messages=[
        message("destroy", "Deletes it.", {"self": refs.host_crashdump}),
        message(
            "upload", "Sends it to this address.", {"self": refs.host_crashdump, "url": STRING, "options": STRING_MAP}
        ),
    ],
)

FEATURE = declare(
    "Feature",
    "A feature that a host may have.",
    since="falcon",
    roles=READ_ONLY,
    fields=[
        UUID,
        names("feature", static, since="rio"),
        runtime("enabled", BOOL, "Whether it is on.", EMPTY),
        static("experimental", BOOL, "Whether it is not yet meant for production.", EMPTY),
        static("version", STRING, "Its version.", "1.0"),
        runtime("host", refs.host, "The host that has it."),
    ],
)

HOST_DRIVER = declare(
    "Host_driver",
    "A device driver that a host has in several variants.",
    since="prototyped 25.2.0",
    roles=POOL_ADMIN,
    fields=[
        UUID,
        static("host", refs.host, "The host that has it.", UNSET_REF),
        runtime("name", STRING, "Its name."),
        runtime("friendly_name", STRING, "A name for people."),
        maintained("variants", "Driver_variant.driver", "Its variants."),
        runtime("active_variant", refs.Driver_variant, "The variant in use."),
        runtime("selected_variant", refs.Driver_variant, "The variant to be used from the next boot on."),
        runtime("type", STRING, "The kind of device it is for."),
        runtime("description", STRING, "What it is for."),
        runtime("info", STRING, "More about it, such as an address to read on."),
    ],
    messages=[
        message(
            "select", "Chooses a variant for the next boot.", {"self": refs.Host_driver, "variant": refs.Driver_variant}
        ),
        message("deselect", "Leaves the choice of variant to the host.", {"self": refs.Host_driver}),
        message("rescan", "Has the host look again for drivers.", {"host": refs.host}),
    ],
)

DRIVER_VARIANT = declare(
    "Driver_variant",
    "One of several versions of a host's driver.",
    since="prototyped 25.2.0",
    roles=POOL_ADMIN,
    fields=[
        UUID,
        runtime("name", STRING, "Its name."),
        runtime("driver", refs.Host_driver, "The driver that it is a variant of."),
        runtime("version", STRING, "Its version."),
        runtime("hardware_present", BOOL, "Whether the host has hardware that it is for."),
        runtime("priority", FLOAT, "How much it is preferred; higher is better."),
        runtime("status", STRING, "How far it is supported, such as `production`."),
    ],
    messages=[message("select", "Chooses it for the next boot.", {"self": refs.Driver_variant})],
)

CLASSES: tuple[ClassDecl, ...] = (HOST_METRICS, HOST_CPU, HOST_CRASHDUMP, FEATURE, HOST_DRIVER, DRIVER_VARIANT)
