"""What a host consists of and keeps."""

from __future__ import annotations

from shared.datamodel import refs
from shared.datamodel.declare import (
    EMPTY,
    UNSET_REF,
    UUID,
    ClassDecl,
    declare,
    maintained,
    message,
    names,
    namespace,
    other_config,
    runtime,
    static,
    uuid,
)
from shared.datamodel.roles import POOL_ADMIN, POOL_OPERATOR, READ_ONLY
from shared.datamodel.types import BOOL, DATETIME, FLOAT, INT, STRING, STRING_MAP

HOST_METRICS = declare(
    "host_metrics",
    "",
    roles=POOL_OPERATOR,
    fields=[
        UUID,
        namespace(
            "memory",
            runtime("total", INT, ""),
            runtime("free", INT, "", EMPTY, since="rio, deprecated midnight-ride, removed tampa"),
        ),
        runtime("live", BOOL, ""),
        runtime("last_updated", DATETIME, ""),
        other_config(since="orlando"),
    ],
)

HOST_CPU = declare(
    "host_cpu",
    "",
    since="rio, deprecated midnight-ride",
    roles=POOL_OPERATOR,
    fields=[
        uuid(since="rio"),
        runtime("host", refs.host, "", since="rio"),
        runtime("number", INT, "", since="rio"),
        runtime("vendor", STRING, "", since="rio"),
        runtime("speed", INT, "", since="rio"),
        runtime("modelname", STRING, "", since="rio"),
        runtime("family", INT, "", since="rio"),
        runtime("model", INT, "", since="rio"),
        runtime("stepping", STRING, "", since="rio"),
        runtime("flags", STRING, "", since="rio"),
        runtime("features", STRING, "", since="rio"),
        runtime("utilisation", FLOAT, "", since="rio", persist=False),
        other_config(since="orlando"),
    ],
)

HOST_CRASHDUMP = declare(
    "host_crashdump",
    "",
    roles=POOL_OPERATOR,
    fields=[
        UUID,
        static("host", refs.host, ""),
        runtime("timestamp", DATETIME, ""),
        runtime("size", INT, ""),
        static("filename", STRING, "", internal=True),
        other_config(since="miami"),
    ],
    messages=[
        message("destroy", "", {"self": refs.host_crashdump}),
        message("upload", "", {"self": refs.host_crashdump, "url": STRING, "options": STRING_MAP}),
    ],
)

FEATURE = declare(
    "Feature",
    "",
    since="falcon",
    roles=READ_ONLY,
    fields=[
        UUID,
        names("Feature", static, since="rio"),
        runtime("enabled", BOOL, "", EMPTY),
        static("experimental", BOOL, "", EMPTY),
        static("version", STRING, "", "1.0"),
        runtime("host", refs.host, ""),
    ],
)

HOST_DRIVER = declare(
    "Host_driver",
    "",
    since="prototyped 25.2.0",
    roles=POOL_ADMIN,
    fields=[
        UUID,
        static("host", refs.host, "", UNSET_REF),
        runtime("name", STRING, ""),
        runtime("friendly_name", STRING, ""),
        maintained("variants", "Driver_variant.driver", ""),
        runtime("active_variant", refs.Driver_variant, ""),
        runtime("selected_variant", refs.Driver_variant, ""),
        runtime("type", STRING, ""),
        runtime("description", STRING, ""),
        runtime("info", STRING, ""),
    ],
    messages=[
        message("select", "", {"self": refs.Host_driver, "variant": refs.Driver_variant}),
        message("deselect", "", {"self": refs.Host_driver}),
        message("rescan", "", {"host": refs.host}),
    ],
)

DRIVER_VARIANT = declare(
    "Driver_variant",
    "",
    since="prototyped 25.2.0",
    roles=POOL_ADMIN,
    fields=[
        UUID,
        runtime("name", STRING, ""),
        runtime("driver", refs.Host_driver, ""),
        runtime("version", STRING, ""),
        runtime("hardware_present", BOOL, ""),
        runtime("priority", FLOAT, ""),
        runtime("status", STRING, ""),
    ],
    messages=[
        message("select", "", {"self": refs.Driver_variant}),
    ],
)

CLASSES: tuple[ClassDecl, ...] = (
    HOST_METRICS,
    HOST_CPU,
    HOST_CRASHDUMP,
    FEATURE,
    HOST_DRIVER,
    DRIVER_VARIANT,
)
