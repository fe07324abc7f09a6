"""PCI devices, and GPUs shared among VMs."""

from __future__ import annotations

from shared.datamodel import refs
from shared.datamodel.declare import (
    EMPTY,
    UUID,
    ClassDecl,
    Optional,
    declare,
    maintained,
    message,
    names,
    other_config,
    runtime,
    rw,
    static,
)
from shared.datamodel.roles import LOCAL_ONLY, POOL_OPERATOR, READ_ONLY
from shared.datamodel.types import BOOL, INT, STRING, STRING_MAP, STRING_SET, EnumType, MapType, SetType

ALLOCATION_ALGORITHM = EnumType(
    "allocation_algorithm",
    (
        "breadth_first",
        "depth_first",
    ),
)
PCI_DOM0_ACCESS = EnumType(
    "pci_dom0_access",
    (
        "enabled",
        "disable_on_reboot",
        "disabled",
        "enable_on_reboot",
    ),
)
VGPU_TYPE_IMPLEMENTATION = EnumType(
    "vgpu_type_implementation",
    (
        "passthrough",
        "nvidia",
        "nvidia_sriov",
        "gvt_g",
        "mxgpu",
    ),
)

PCI = declare(
    "PCI",
    "",
    since="boston",
    roles=POOL_OPERATOR,
    fields=[
        UUID,
        static("class_id", STRING, "", EMPTY),
        static("class_name", STRING, "", EMPTY),
        static("vendor_id", STRING, "", EMPTY),
        static("vendor_name", STRING, "", EMPTY),
        static("device_id", STRING, "", EMPTY),
        static("device_name", STRING, "", EMPTY),
        static("host", refs.host, "", EMPTY),
        static("pci_id", STRING, "", EMPTY),
        runtime("functions", INT, "", 1, internal=True),
        maintained("virtual_functions", "PCI.physical_function", "", since="falcon", internal=True),
        static("physical_function", refs.PCI, "", EMPTY, since="falcon", internal=True),
        runtime("attached_VMs", SetType(refs.VM), "", internal=True),
        runtime("dependencies", SetType(refs.PCI), "", stored_here=True),
        other_config(),
        static("subsystem_vendor_id", STRING, "", EMPTY, since="clearwater-whetstone"),
        static("subsystem_vendor_name", STRING, "", EMPTY, since="clearwater-whetstone"),
        static("subsystem_device_id", STRING, "", EMPTY, since="clearwater-whetstone"),
        static("subsystem_device_name", STRING, "", EMPTY, since="clearwater-whetstone"),
        runtime("scheduled_to_be_attached_to", refs.VM, "", EMPTY, since="falcon", internal=True),
        static("driver_name", STRING, "", EMPTY, since="kolkata"),
    ],
    messages=[
        message("disable_dom0_access", "", {"self": refs.PCI}, PCI_DOM0_ACCESS, since="prototyped 24.14.0"),
        message("enable_dom0_access", "", {"self": refs.PCI}, PCI_DOM0_ACCESS, since="prototyped 24.14.0"),
        message("get_dom0_access_status", "", {"self": refs.PCI}, PCI_DOM0_ACCESS, since="prototyped 24.14.0"),
    ],
)

PGPU = declare(
    "PGPU",
    "",
    since="boston",
    roles=POOL_OPERATOR,
    fields=[
        UUID,
        static("PCI", refs.PCI, "", EMPTY),
        static("GPU_group", refs.GPU_group, "", EMPTY),
        runtime("host", refs.host, "", EMPTY),
        other_config(),
        runtime("supported_VGPU_types", SetType(refs.VGPU_type), "", since="vgpu-tech-preview"),
        runtime("enabled_VGPU_types", SetType(refs.VGPU_type), "", since="vgpu-tech-preview"),
        maintained("resident_VGPUs", "VGPU.resident_on", "", since="vgpu-tech-preview"),
        static("size", INT, "", 1048576, since="vgpu-tech-preview", internal=True),
        runtime("supported_VGPU_max_capacities", MapType(refs.VGPU_type, INT), "", EMPTY, since="vgpu-productisation"),
        runtime("dom0_access", PCI_DOM0_ACCESS, "", "enabled", since="cream, deprecated 24.14.0"),
        runtime("is_system_display_device", BOOL, "", EMPTY, since="cream"),
        runtime("compatibility_metadata", STRING_MAP, "", EMPTY, since="inverness"),
    ],
    messages=[
        message("add_enabled_VGPU_types", "", {"self": refs.PGPU, "value": refs.VGPU_type}, since="vgpu-tech-preview"),
        message(
            "remove_enabled_VGPU_types", "", {"self": refs.PGPU, "value": refs.VGPU_type}, since="vgpu-tech-preview"
        ),
        message(
            "set_enabled_VGPU_types",
            "",
            {"self": refs.PGPU, "value": SetType(refs.VGPU_type)},
            since="vgpu-tech-preview",
        ),
        message("set_GPU_group", "", {"self": refs.PGPU, "value": refs.GPU_group}, since="vgpu-tech-preview"),
        message(
            "get_remaining_capacity",
            "",
            {"self": refs.PGPU, "vgpu_type": refs.VGPU_type},
            INT,
            since="vgpu-tech-preview",
            roles=READ_ONLY,
        ),
        message("enable_dom0_access", "", {"self": refs.PGPU}, PCI_DOM0_ACCESS, since="cream, deprecated 24.14.0"),
        message("disable_dom0_access", "", {"self": refs.PGPU}, PCI_DOM0_ACCESS, since="cream, deprecated 24.14.0"),
    ],
)

GPU_GROUP = declare(
    "GPU_group",
    "",
    since="boston",
    roles=POOL_OPERATOR,
    fields=[
        UUID,
        names("GPU_group"),
        maintained("PGPUs", "PGPU.GPU_group", ""),
        maintained("VGPUs", "VGPU.GPU_group", ""),
        runtime("GPU_types", STRING_SET, "", EMPTY),
        other_config(),
        rw("allocation_algorithm", ALLOCATION_ALGORITHM, "", "depth_first", since="vgpu-tech-preview"),
        runtime("supported_VGPU_types", SetType(refs.VGPU_type), "", since="vgpu-productisation"),
        runtime("enabled_VGPU_types", SetType(refs.VGPU_type), "", since="vgpu-productisation"),
    ],
    messages=[
        message(
            "create",
            "",
            {
                "name_label": Optional(STRING),
                "name_description": Optional(STRING),
                "other_config": Optional(STRING_MAP),
            },
            refs.GPU_group,
        ),
        message("destroy", "", {"self": refs.GPU_group}),
        message("update_enabled_VGPU_types", "", {"self": refs.GPU_group}, since="vgpu-productisation", hidden=True),
        message("update_supported_VGPU_types", "", {"self": refs.GPU_group}, since="vgpu-productisation", hidden=True),
        message(
            "get_remaining_capacity",
            "",
            {"self": refs.GPU_group, "vgpu_type": refs.VGPU_type},
            INT,
            since="vgpu-tech-preview",
            roles=READ_ONLY,
        ),
    ],
)

VGPU = declare(
    "VGPU",
    "",
    since="boston",
    roles=POOL_OPERATOR,
    fields=[
        UUID,
        runtime("VM", refs.VM, ""),
        runtime("GPU_group", refs.GPU_group, ""),
        runtime("device", STRING, "", "0"),
        runtime("currently_attached", BOOL, "", EMPTY),
        other_config(),
        runtime("type", refs.VGPU_type, "", EMPTY, since="vgpu-tech-preview"),
        runtime("resident_on", refs.PGPU, "", EMPTY, since="vgpu-tech-preview"),
        runtime("scheduled_to_be_resident_on", refs.PGPU, "", EMPTY, since="dundee"),
        runtime("compatibility_metadata", STRING_MAP, "", EMPTY, since="inverness"),
        rw("extra_args", STRING, "", EMPTY, since="quebec"),
        runtime("PCI", refs.PCI, "", EMPTY, since="quebec"),
    ],
    messages=[
        message(
            "create",
            "",
            {
                "VM": refs.VM,
                "GPU_group": refs.GPU_group,
                "device": Optional(STRING, "0"),
                "other_config": Optional(STRING_MAP),
                "type": Optional(refs.VGPU_type),
            },
            refs.VGPU,
        ),
        message("destroy", "", {"self": refs.VGPU}),
        message(
            "atomic_set_resident_on",
            "",
            {"self": refs.VGPU, "value": refs.PGPU},
            since="dundee",
            roles=LOCAL_ONLY,
            pool_internal=True,
        ),
    ],
)

VGPU_TYPE = declare(
    "VGPU_type",
    "",
    since="vgpu-tech-preview",
    roles=READ_ONLY,
    fields=[
        UUID,
        static("vendor_name", STRING, "", EMPTY),
        static("model_name", STRING, "", EMPTY),
        static("framebuffer_size", INT, "", EMPTY),
        static("max_heads", INT, "", EMPTY),
        static("max_resolution_x", INT, "", EMPTY, since="vgpu-productisation"),
        static("max_resolution_y", INT, "", EMPTY, since="vgpu-productisation"),
        static("size", INT, "", EMPTY, internal=True),
        maintained("supported_on_PGPUs", "PGPU.supported_VGPU_types", ""),
        maintained("enabled_on_PGPUs", "PGPU.enabled_VGPU_types", ""),
        maintained("VGPUs", "VGPU.type", ""),
        static("internal_config", STRING_MAP, "", EMPTY, internal=True),
        maintained("supported_on_GPU_groups", "GPU_group.supported_VGPU_types", "", since="vgpu-productisation"),
        maintained("enabled_on_GPU_groups", "GPU_group.enabled_VGPU_types", "", since="vgpu-productisation"),
        static("implementation", VGPU_TYPE_IMPLEMENTATION, "", "passthrough", since="dundee"),
        static("identifier", STRING, "", EMPTY, since="dundee"),
        static("experimental", BOOL, "", EMPTY, since="dundee"),
        runtime("compatible_types_in_vm", SetType(refs.VGPU_type), "", EMPTY, since="quebec", stored_here=True),
        runtime(
            "compatible_types_on_pgpu",
            SetType(refs.VGPU_type),
            "",
            EMPTY,
            since="quebec",
            internal=True,
            stored_here=True,
        ),
    ],
)

CLASSES: tuple[ClassDecl, ...] = (
    PCI,
    PGPU,
    GPU_GROUP,
    VGPU,
    VGPU_TYPE,
)
