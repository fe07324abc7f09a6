"""What is known about a running VM from outside and from inside."""

from __future__ import annotations

from shared.datamodel.classes.enums import DOMAIN_TYPE
from shared.datamodel.declare import EMPTY, UUID, ClassDecl, declare, namespace, other_config, runtime, static
from shared.datamodel.roles import VM_ADMIN
from shared.datamodel.types import BOOL, DATETIME, FLOAT, INT, STRING_MAP, STRING_SET, EnumType, MapType

TRISTATE_TYPE = EnumType(
    "tristate_type",
    (
        "yes",
        "no",
        "unspecified",
    ),
)

VM_METRICS = declare(
    "VM_metrics",
    "",
    roles=VM_ADMIN,
    fields=[
        UUID,
        namespace(
            "memory",
            runtime("actual", INT, "", persist=False),
        ),
        namespace(
            "VCPUs",
            runtime("number", INT, ""),
            runtime(
                "utilisation",
                MapType(INT, FLOAT),
                "",
                EMPTY,
                since="rio, deprecated tampa, removed tampa",
                persist=False,
            ),
            runtime("CPU", MapType(INT, INT), "", persist=False),
            runtime("params", STRING_MAP, "", persist=False),
            runtime("flags", MapType(INT, STRING_SET), "", persist=False),
        ),
        runtime("state", STRING_SET, "", persist=False),
        runtime("start_time", DATETIME, ""),
        runtime("install_time", DATETIME, ""),
        runtime("last_updated", DATETIME, "", persist=False),
        other_config(since="orlando", persist=False),
        runtime("hvm", BOOL, "", EMPTY, since="ely", persist=False),
        runtime("nested_virt", BOOL, "", EMPTY, since="ely", persist=False),
        runtime("nomigrate", BOOL, "", EMPTY, since="ely", persist=False),
        runtime("current_domain_type", DOMAIN_TYPE, "", "unspecified", since="prototyped jura, kolkata"),
        static("numa_optimised", BOOL, "", EMPTY, since="prototyped 26.2.0"),
        static("numa_nodes", INT, "", EMPTY, since="prototyped 26.2.0"),
        runtime("numa_node_memory", MapType(INT, INT), "", EMPTY, since="prototyped 26.2.0"),
    ],
)

VM_GUEST_METRICS = declare(
    "VM_guest_metrics",
    "",
    roles=VM_ADMIN,
    fields=[
        UUID,
        runtime("os_version", STRING_MAP, ""),
        runtime("netbios_name", STRING_MAP, "", EMPTY, since="prototyped 24.28.0"),
        runtime("PV_drivers_version", STRING_MAP, ""),
        runtime("PV_drivers_up_to_date", BOOL, "", since="rio, deprecated dundee"),
        runtime("memory", STRING_MAP, "", EMPTY, since="rio, deprecated george, removed george"),
        runtime("disks", STRING_MAP, "", EMPTY, since="rio, deprecated orlando, removed orlando"),
        runtime("networks", STRING_MAP, ""),
        runtime("other", STRING_MAP, ""),
        runtime("last_updated", DATETIME, ""),
        other_config(since="orlando"),
        runtime("live", BOOL, "", EMPTY, since="orlando"),
        runtime("can_use_hotplug_vbd", TRISTATE_TYPE, "", "unspecified", since="dundee"),
        runtime("can_use_hotplug_vif", TRISTATE_TYPE, "", "unspecified", since="dundee"),
        runtime("PV_drivers_detected", BOOL, "", EMPTY, since="dundee"),
        runtime("services", STRING_MAP, "", EMPTY, since="prototyped 25.15.0"),
    ],
)

CLASSES: tuple[ClassDecl, ...] = (
    VM_METRICS,
    VM_GUEST_METRICS,
)
