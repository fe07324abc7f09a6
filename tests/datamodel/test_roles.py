"""Roles and permissions."""

from __future__ import annotations

from shared.datamodel import Message, model
from shared.datamodel.roles import (
    LOCAL_ONLY,
    POOL_ADMIN,
    POOL_OPERATOR,
    VM_ADMIN,
    VM_OPERATOR,
    at_least,
    guarding_key,
    permissions,
    required_permission,
    role_ref,
    role_uuid,
)


def message(wire_name: str) -> Message:
    found = model.message(wire_name)
    assert found is not None
    return found


def test_role_uuids_are_those_of_every_other_pool() -> None:
    assert {name: role_uuid(name) for name in at_least("read-only")} == {
        "pool-admin": "0165f154-ba3e-034e-6b27-5d271af109ba",
        "pool-operator": "b9ce9791-0604-50cd-0649-09b3284c7dfd",
        "vm-power-admin": "7955168d-7bec-10ed-105f-c6a7e6e63249",
        "vm-admin": "aaa00ab5-7340-bfbc-0d1b-7cf342639a6e",
        "vm-operator": "fb8d4ff9-310c-a959-0613-54101535d3d5",
        "client-cert": "2c42debf-c64a-2ecd-f674-3350f06409f7",
        "read-only": "7233b8e3-eacb-d7da-2c95-f2e581cdbf4e",
    }
    assert role_ref("pool-admin") == "OpaqueRef:0165f154-ba3e-034e-6b27-5d271af109ba"


def test_client_certificates_reach_what_read_only_does_and_what_names_them() -> None:
    assert at_least("read-only")[-2:] == ("client-cert", "read-only")
    assert "client-cert" not in at_least("vm-operator")
    assert at_least("pool-operator", client_cert=True) == ("pool-admin", "pool-operator", "client-cert")


def test_a_call_needs_the_permission_named_like_it() -> None:
    assert required_permission(message("VM.start"))[0] == "vm.start"
    assert required_permission(message("session.change_password"))[1] == LOCAL_ONLY


def test_guarded_keys_need_a_permission_of_their_own() -> None:
    add = message("VM.add_to_other_config")
    assert required_permission(add, "anything") == ("vm.add_to_other_config", VM_ADMIN)
    assert required_permission(add, "folder") == ("vm.add_to_other_config/key:folder", VM_OPERATOR)
    assert required_permission(add, "PCI") == ("vm.add_to_other_config/key:pci", POOL_ADMIN)
    assert required_permission(message("pool.remove_from_other_config"), "EMPTY_FOLDERS") == (
        "pool.remove_from_other_config/key:empty_folders",
        VM_OPERATOR,
    )


def test_a_star_covers_every_key_that_begins_so() -> None:
    add = message("network.add_to_other_config")
    assert guarding_key(add, "xencenter.customfields.owner") == "XenCenter.CustomFields.*"
    assert guarding_key(add, "XenCenter.CustomField") is None


def test_permissions_cover_messages_guarded_keys_and_other_peoples_tasks() -> None:
    table = permissions(model.messages.values())
    assert table["vm.start"] == VM_OPERATOR
    assert table["vm.add_to_platform/key:hvm_serial"] == POOL_ADMIN
    assert table["sr.remove_from_other_config/key:xencenter.customfields.*"] == VM_OPERATOR
    assert table["task.destroy/any"] == POOL_OPERATOR
