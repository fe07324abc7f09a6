"""PCI devices, and GPUs shared among VMs."""

from __future__ import annotations

from shared.datamodel import refs
from shared.datamodel.declare import (
    EMPTY,
    ClassDecl,
    Optional,
    adder,
    declare,
    maintained,
    message,
    remover,
    runtime,
    rw,
    setter,
    static,
)
from shared.datamodel.groups import UUID, names, other_config
from shared.datamodel.roles import LOCAL_ONLY, POOL_OPERATOR, READ_ONLY
from shared.datamodel.types import BOOL, INT, STRING, STRING_MAP, STRING_SET, EnumType, MapType, SetType

ALLOCATION_ALGORITHM = EnumType("allocation_algorithm", ("breadth_first", "depth_first"))
PCI_DOM0_ACCESS = EnumType("pci_dom0_access", ("enabled", "disable_on_reboot", "disabled", "enable_on_reboot"))
VGPU_TYPE_IMPLEMENTATION = EnumType(
    "vgpu_type_implementation", ("passthrough", "nvidia", "nvidia_sriov", "gvt_g", "mxgpu")
)

PCI = declare(
    "PCI",
    "A PCI device of a host.",
    since="boston",
    roles=POOL_OPERATOR,
    fields=[
        UUID,
        static("class_id", STRING, "Number of its kind.", EMPTY),
        static("class_name", STRING, "Its kind.", EMPTY),
        static("vendor_id", STRING, "Number of its maker.", EMPTY),
        static("vendor_name", STRING, "Its maker.", EMPTY),
        static("device_id", STRING, "Number of its model.", EMPTY),
        static("device_name", STRING, "Its model.", EMPTY),
        static("host", refs.host, "The host it is in.", EMPTY),
        static("pci_id", STRING, "Its address on the bus.", EMPTY),
        runtime("functions", INT, "How many functions it has.", 1, internal=True),
        maintained(
            "virtual_functions", "PCI.physical_function", "Its virtual functions.", since="falcon", internal=True
        ),
        static(
            "physical_function",
            refs.PCI,
            "The device that it is a virtual function of.",
            EMPTY,
            since="falcon",
            internal=True,
        ),
        runtime("attached_VMs", SetType(refs.VM), "VMs that it is passed to.", internal=True),
        runtime(
            "dependencies", SetType(refs.PCI), "Devices that must be passed on together with it.", stored_here=True
        ),
        other_config(),
        static("subsystem_vendor_id", STRING, "Number of the card's maker.", EMPTY, since="clearwater-whetstone"),
        static("subsystem_vendor_name", STRING, "The card's maker.", EMPTY, since="clearwater-whetstone"),
        static("subsystem_device_id", STRING, "Number of the card's model.", EMPTY, since="clearwater-whetstone"),
        static("subsystem_device_name", STRING, "The card's model.", EMPTY, since="clearwater-whetstone"),
        runtime(
            "scheduled_to_be_attached_to",
            refs.VM,
            "The VM that it is about to be passed to.",
            EMPTY,
            since="falcon",
            internal=True,
        ),
        static("driver_name", STRING, "The driver that the host uses for it.", EMPTY, since="kolkata"),
    ],
    messages=[
        message(
            "disable_dom0_access",
            "Hides it from the host itself, from the next boot on.",
            {"self": refs.PCI},
            PCI_DOM0_ACCESS,
            since="prototyped 24.14.0",
        ),
        message(
            "enable_dom0_access",
            "Shows it to the host itself, from the next boot on.",
            {"self": refs.PCI},
            PCI_DOM0_ACCESS,
            since="prototyped 24.14.0",
        ),
        message(
            "get_dom0_access_status",
            "Whether the host itself sees it.",
            {"self": refs.PCI},
            PCI_DOM0_ACCESS,
            since="prototyped 24.14.0",
        ),
    ],
)

PGPU = declare(
    "PGPU",
    "A GPU of a host.",
    since="boston",
    roles=POOL_OPERATOR,
    fields=[
        UUID,
        static("PCI", refs.PCI, "The PCI device that it is.", EMPTY),
        static("GPU_group", refs.GPU_group, "The group it belongs to.", EMPTY),
        runtime("host", refs.host, "The host it is in.", EMPTY),
        other_config(),
        runtime(
            "supported_VGPU_types",
            SetType(refs.VGPU_type),
            "Types of virtual GPU it can provide.",
            since="vgpu-tech-preview",
        ),
        runtime(
            "enabled_VGPU_types",
            SetType(refs.VGPU_type),
            "Types of virtual GPU it may provide.",
            since="vgpu-tech-preview",
        ),
        maintained("resident_VGPUs", "VGPU.resident_on", "Virtual GPUs that run on it.", since="vgpu-tech-preview"),
        static("size", INT, "How much there is to share out.", 1048576, since="vgpu-tech-preview", internal=True),
        runtime(
            "supported_VGPU_max_capacities",
            MapType(refs.VGPU_type, INT),
            "How many virtual GPUs of each type fit on it.",
            EMPTY,
            since="vgpu-productisation",
        ),
        runtime(
            "dom0_access",
            PCI_DOM0_ACCESS,
            "Whether the host itself sees it.",
            "enabled",
            since="cream, deprecated 24.14.0",
        ),
        runtime("is_system_display_device", BOOL, "Whether it drives the host's screen.", EMPTY, since="cream"),
        runtime(
            "compatibility_metadata", STRING_MAP, "What decides whether a VM can move to it.", EMPTY, since="inverness"
        ),
    ],
    messages=[
        adder("enabled_VGPU_types", "Allows a type of virtual GPU."),
        remover("enabled_VGPU_types", "Forbids a type of virtual GPU."),
        setter("enabled_VGPU_types", "Sets the types of virtual GPU it may provide."),
        setter("GPU_group", "Moves it to another group.", since="vgpu-tech-preview"),
        message(
            "get_remaining_capacity",
            "How many more virtual GPUs of a type fit on it.",
            {"self": refs.PGPU, "vgpu_type": refs.VGPU_type},
            INT,
            since="vgpu-tech-preview",
            roles=READ_ONLY,
        ),
        message(
            "enable_dom0_access",
            "Shows it to the host itself, from the next boot on.",
            {"self": refs.PGPU},
            PCI_DOM0_ACCESS,
            since="cream, deprecated 24.14.0",
        ),
        message(
            "disable_dom0_access",
            "Hides it from the host itself, from the next boot on.",
            {"self": refs.PGPU},
            PCI_DOM0_ACCESS,
            since="cream, deprecated 24.14.0",
        ),
    ],
)

GPU_GROUP = declare(
    "GPU_group",
    "Like GPUs across the pool.",
    since="boston",
    roles=POOL_OPERATOR,
    fields=[
        UUID,
        names("GPU group"),
        maintained("PGPUs", "PGPU.GPU_group", "GPUs that belong to it."),
        maintained("VGPUs", "VGPU.GPU_group", "Virtual GPUs that use it."),
        runtime("GPU_types", STRING_SET, "Maker and model of its GPUs.", EMPTY),
        other_config(),
        rw(
            "allocation_algorithm",
            ALLOCATION_ALGORITHM,
            "Whether one GPU is filled before the next is used.",
            "depth_first",
            since="vgpu-tech-preview",
        ),
        runtime(
            "supported_VGPU_types",
            SetType(refs.VGPU_type),
            "Types of virtual GPU that one of its GPUs can provide.",
            since="vgpu-productisation",
        ),
        runtime(
            "enabled_VGPU_types",
            SetType(refs.VGPU_type),
            "Types of virtual GPU that one of its GPUs may provide.",
            since="vgpu-productisation",
        ),
    ],
    messages=[
        message(
            "create",
            "Makes an empty group.",
            {
                "name_label": Optional(STRING),
                "name_description": Optional(STRING),
                "other_config": Optional(STRING_MAP),
            },
            refs.GPU_group,
        ),
        message("destroy", "Removes an empty group.", {"self": refs.GPU_group}),
        message(
            "update_enabled_VGPU_types",
            "Works out anew which types its GPUs may provide.",
            {"self": refs.GPU_group},
            since="vgpu-productisation",
            hidden=True,
        ),
        message(
            "update_supported_VGPU_types",
            "Works out anew which types its GPUs can provide.",
            {"self": refs.GPU_group},
            since="vgpu-productisation",
            hidden=True,
        ),
        message(
            "get_remaining_capacity",
            "How many more virtual GPUs of a type fit in it.",
            {"self": refs.GPU_group, "vgpu_type": refs.VGPU_type},
            INT,
            since="vgpu-tech-preview",
            roles=READ_ONLY,
        ),
    ],
)

VGPU = declare(
    "VGPU",
    "A virtual GPU of a VM.",
    since="boston",
    roles=POOL_OPERATOR,
    fields=[
        UUID,
        runtime("VM", refs.VM, "The VM it belongs to."),
        runtime("GPU_group", refs.GPU_group, "The group it takes a GPU from."),
        runtime("device", STRING, "Its position in the VM.", "0"),
        runtime("currently_attached", BOOL, "Whether it is plugged into a running VM.", EMPTY),
        other_config(),
        runtime("type", refs.VGPU_type, "Its type.", EMPTY, since="vgpu-tech-preview"),
        runtime("resident_on", refs.PGPU, "The GPU it runs on.", EMPTY, since="vgpu-tech-preview"),
        runtime("scheduled_to_be_resident_on", refs.PGPU, "The GPU it is about to run on.", EMPTY, since="dundee"),
        runtime(
            "compatibility_metadata", STRING_MAP, "What decides where its VM can move to.", EMPTY, since="inverness"
        ),
        rw("extra_args", STRING, "Further arguments for its device model.", EMPTY, since="quebec"),
        runtime("PCI", refs.PCI, "The virtual function that it uses.", EMPTY, since="quebec"),
    ],
    messages=[
        message(
            "create",
            "Gives a VM a virtual GPU.",
            {
                "VM": refs.VM,
                "GPU_group": refs.GPU_group,
                "device": Optional(STRING, "0"),
                "other_config": Optional(STRING_MAP),
                "type": Optional(refs.VGPU_type),
            },
            refs.VGPU,
        ),
        message("destroy", "Takes the virtual GPU away.", {"self": refs.VGPU}),
        message(
            "atomic_set_resident_on",
            "Says where it runs and takes back what was set aside for it.",
            {"self": refs.VGPU, "value": refs.PGPU},
            since="dundee",
            roles=LOCAL_ONLY,
            pool_internal=True,
        ),
    ],
)

VGPU_TYPE = declare(
    "VGPU_type",
    "A type of virtual GPU.",
    since="vgpu-tech-preview",
    roles=READ_ONLY,
    fields=[
        UUID,
        static("vendor_name", STRING, "Its maker.", EMPTY),
        static("model_name", STRING, "Its name.", EMPTY),
        static("framebuffer_size", INT, "Bytes of video memory.", EMPTY),
        static("max_heads", INT, "How many screens it has at most.", EMPTY),
        static("max_resolution_x", INT, "Width of a screen at most, in pixels.", EMPTY, since="vgpu-productisation"),
        static("max_resolution_y", INT, "Height of a screen at most, in pixels.", EMPTY, since="vgpu-productisation"),
        static("size", INT, "How much of a GPU it takes.", EMPTY, internal=True),
        maintained("supported_on_PGPUs", "PGPU.supported_VGPU_types", "GPUs that can provide it."),
        maintained("enabled_on_PGPUs", "PGPU.enabled_VGPU_types", "GPUs that may provide it."),
        maintained("VGPUs", "VGPU.type", "Virtual GPUs of this type."),
        static("internal_config", STRING_MAP, "Settings of its device model.", EMPTY, internal=True),
        maintained(
            "supported_on_GPU_groups",
            "GPU_group.supported_VGPU_types",
            "Groups with a GPU that can provide it.",
            since="vgpu-productisation",
        ),
        maintained(
            "enabled_on_GPU_groups",
            "GPU_group.enabled_VGPU_types",
            "Groups with a GPU that may provide it.",
            since="vgpu-productisation",
        ),
        static("implementation", VGPU_TYPE_IMPLEMENTATION, "How it is provided.", "passthrough", since="dundee"),
        static("identifier", STRING, "What tells it from others, whatever its name.", EMPTY, since="dundee"),
        static("experimental", BOOL, "Whether it is not yet meant for production.", EMPTY, since="dundee"),
        runtime(
            "compatible_types_in_vm",
            SetType(refs.VGPU_type),
            "Types that a VM may have besides it.",
            EMPTY,
            since="quebec",
            stored_here=True,
        ),
        runtime(
            "compatible_types_on_pgpu",
            SetType(refs.VGPU_type),
            "Types that may share a GPU with it.",
            EMPTY,
            since="quebec",
            internal=True,
            stored_here=True,
        ),
    ],
)

CLASSES: tuple[ClassDecl, ...] = (PCI, PGPU, GPU_GROUP, VGPU, VGPU_TYPE)
