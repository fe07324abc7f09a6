"""Records as clients write them."""

from __future__ import annotations

from typing import Any


def vbd(vm: str, vdi: str, **fields: Any) -> dict[str, Any]:
    return {
        "VM": vm,
        "VDI": vdi,
        "userdevice": "autodetect",
        "bootable": False,
        "mode": "RW",
        "type": "Disk",
        "unpluggable": True,
        "empty": False,
        "other_config": {},
        "qos_algorithm_type": "",
        "qos_algorithm_params": {},
        **fields,
    }


def vif(vm: str, network: str, **fields: Any) -> dict[str, Any]:
    return {
        "VM": vm,
        "network": network,
        "device": "0",
        "MAC": "",
        "MTU": 1500,
        "other_config": {},
        "qos_algorithm_type": "",
        "qos_algorithm_params": {},
        **fields,
    }


def vdi(sr: str, size: int = 1 << 20, **fields: Any) -> dict[str, Any]:
    return {
        "name_label": "disk",
        "name_description": "",
        "SR": sr,
        "virtual_size": size,
        "type": "user",
        "sharable": False,
        "read_only": False,
        "other_config": {},
        **fields,
    }
