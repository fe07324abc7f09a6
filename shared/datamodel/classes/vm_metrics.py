"""What is known about a running VM from outside and from inside."""

from __future__ import annotations

from shared.datamodel.classes.enums import DOMAIN_TYPE
from shared.datamodel.declare import EMPTY, ClassDecl, declare, namespace, runtime, static
from shared.datamodel.groups import UUID, other_config
from shared.datamodel.roles import VM_ADMIN
from shared.datamodel.types import BOOL, DATETIME, FLOAT, INT, STRING_MAP, STRING_SET, EnumType, MapType

TRISTATE_TYPE = EnumType("tristate_type", ("yes", "no", "unspecified"))

VM_METRICS = declare(
    "VM_metrics",
    "What is known about a VM from outside.",
    roles=VM_ADMIN,
    fields=[
        UUID,
        namespace("memory", runtime("actual", INT, "Bytes it uses.", persist=False)),
        namespace(
            "VCPUs",
            runtime("number", INT, "CPUs it has now."),
            runtime(
                "utilisation",
                MapType(INT, FLOAT),
                "Load of each CPU, 0 to 1; use the performance archives.",
                EMPTY,
                since="rio, deprecated tampa, removed tampa",
                persist=False,
            ),
            runtime("CPU", MapType(INT, INT), "The physical CPU that each virtual one runs on.", persist=False),
            runtime("params", STRING_MAP, "Scheduling of its CPUs.", persist=False),
            runtime(
                "flags", MapType(INT, STRING_SET), "What each CPU does, such as `blocked` or `running`.", persist=False
            ),
        ),
        runtime("state", STRING_SET, "What the domain does.", persist=False),
        runtime("start_time", DATETIME, "When it was last started."),
        runtime("install_time", DATETIME, "When it was installed."),
        runtime("last_updated", DATETIME, "When this was last brought up to date.", persist=False),
        other_config(since="orlando", persist=False),
        runtime("hvm", BOOL, "Whether it is fully virtual.", EMPTY, since="ely", persist=False),
        runtime("nested_virt", BOOL, "Whether it runs a hypervisor of its own.", EMPTY, since="ely", persist=False),
        runtime("nomigrate", BOOL, "Whether it must not be moved now.", EMPTY, since="ely", persist=False),
        runtime(
            "current_domain_type",
            DOMAIN_TYPE,
            "How it is virtualized now; `unspecified` while it is halted.",
            "unspecified",
            since="prototyped jura, kolkata",
        ),
        static(
            "numa_optimised",
            BOOL,
            "Whether its memory is on as few NUMA nodes as possible.",
            EMPTY,
            since="prototyped 26.2.0",
        ),
        static("numa_nodes", INT, "On how many NUMA nodes its memory is.", EMPTY, since="prototyped 26.2.0"),
        runtime("numa_node_memory", MapType(INT, INT), "Bytes on each NUMA node.", EMPTY, since="prototyped 26.2.0"),
    ],
)

VM_GUEST_METRICS = declare(
    "VM_guest_metrics",
    "What a guest has told about itself.",
    roles=VM_ADMIN,
    fields=[
        UUID,
        runtime("os_version", STRING_MAP, "Operating system: name, version, distribution."),
        runtime("netbios_name", STRING_MAP, "The guest's NetBIOS names.", EMPTY, since="prototyped 24.28.0"),
        runtime("PV_drivers_version", STRING_MAP, "Version of its paravirtual drivers."),
        runtime(
            "PV_drivers_up_to_date",
            BOOL,
            "Whether those drivers are recent enough; the same as having them.",
            since="rio, deprecated dundee",
        ),
        runtime(
            "memory",
            STRING_MAP,
            "Memory figures; use the performance archives.",
            EMPTY,
            since="rio, deprecated george, removed george",
        ),
        runtime(
            "disks",
            STRING_MAP,
            "Disk figures; no longer told.",
            EMPTY,
            since="rio, deprecated orlando, removed orlando",
        ),
        runtime("networks", STRING_MAP, "Its addresses, such as `0/ip`."),
        runtime("other", STRING_MAP, "Whatever else it told."),
        runtime("last_updated", DATETIME, "When it told something last."),
        other_config(since="orlando"),
        runtime("live", BOOL, "Whether its agent is alive.", EMPTY, since="orlando"),
        runtime(
            "can_use_hotplug_vbd",
            TRISTATE_TYPE,
            "Whether drives can be added while it runs.",
            "unspecified",
            since="dundee",
        ),
        runtime(
            "can_use_hotplug_vif",
            TRISTATE_TYPE,
            "Whether network interfaces can be added while it runs.",
            "unspecified",
            since="dundee",
        ),
        runtime(
            "PV_drivers_detected",
            BOOL,
            "Whether its paravirtual drivers have been seen at work.",
            EMPTY,
            since="dundee",
        ),
        runtime(
            "services", STRING_MAP, "Services that it offers, with their state.", EMPTY, since="prototyped 25.15.0"
        ),
    ],
)

CLASSES: tuple[ClassDecl, ...] = (VM_METRICS, VM_GUEST_METRICS)
