"""All rules, in the order in which they are applied: later ones build on what earlier ones have settled."""

from __future__ import annotations

from typing import Final

from services.db.upgrade import gpus, networks, pools, secrets, storage, virtual_machines
from services.db.upgrade.rule import (
    ALWAYS,
    BOSTON,
    CLEARWATER,
    COWLEY,
    CREAM,
    CREEDENCE,
    DUNDEE,
    DUNDEE_PREVIEW,
    FALCON,
    GEORGE,
    JURA,
    NILE,
    TAMPA,
    Rule,
    Schema,
    before,
    through,
)

RULES: Final = (
    Rule("VMs have a domain type", through(JURA), virtual_machines.domain_types),
    Rule("messages have the catalogue's priorities", ALWAYS, pools.message_priorities),
    Rule("mail is sent by the new scale of priorities", through(TAMPA), pools.mail_priority),
    Rule("memory overheads are those of this program", ALWAYS, virtual_machines.memory_overheads),
    Rule("the password of workload balancing is a secret", ALWAYS, secrets.workload_balancing),
    Rule("VMs have generic BIOS strings", through(GEORGE), virtual_machines.bios_strings),
    Rule("snapshots have parents", through(GEORGE), virtual_machines.snapshot_parents),
    Rule("the guest installer network is the internal management network", ALWAYS, networks.internal_network),
    Rule("disks of redo logs have a type of their own", through(COWLEY), storage.redo_log_disks),
    Rule("restart priorities have names", through(COWLEY), virtual_machines.restart_priorities),
    Rule("VMs that started with their host are restarted by HA", through(COWLEY), virtual_machines.auto_poweron),
    Rule("VLANs and tunnels share their card's metrics", through(BOSTON), networks.pif_metrics),
    Rule("protection policies are gone", through(TAMPA), virtual_machines.protection_policies),
    Rule("GPUs have types", through(CLEARWATER), gpus.types_of_gpus),
    Rule("virtual GPUs have types", through(CLEARWATER), gpus.types_of_virtual_gpus),
    Rule("network cards have default properties", before(CREEDENCE), networks.pif_properties),
    Rule("VMs have no vendor device", before(DUNDEE_PREVIEW), virtual_machines.vendor_devices),
    Rule("no guest drivers are known yet", before(DUNDEE), virtual_machines.detected_drivers),
    Rule("storage connections have no restricted keys", before(CREEDENCE), storage.restricted_keys),
    Rule("Linux guests may have whole GPUs", before(CREAM), virtual_machines.recommendations),
    Rule("the vswitch controller is an SDN controller", before(FALCON), networks.controllers),
    Rule("HVM guests have a device model", ALWAYS, virtual_machines.device_models),
    Rule("timeouts of clusters are in seconds", before(Schema(5, 202)), pools.cluster_timeouts),
    Rule("passwords of storage connections are secrets", ALWAYS, secrets.storage_passwords),
    Rule("no host speaks legacy SSL", ALWAYS, pools.legacy_ssl),
    Rule("UEFI certificates come with the program", ALWAYS, pools.uefi_certificates),
    Rule("pending guidances are recommended ones", before(NILE), pools.update_guidances),
    Rule("certificate authorities have both fingerprints", before(Schema(5, 783)), pools.authority_fingerprints),
    Rule("UEFI guests have a state of their certificates", before(Schema(5, 903)), virtual_machines.secure_boot_states),
)
