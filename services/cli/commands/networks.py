"""Networks and the interfaces of hosts."""

from __future__ import annotations

from services.cli.server.command import Call, command
from services.cli.server.simple import create, message
from services.cli.server.values import integer, parsed
from shared.datamodel import model


async def _vlan_create(call: Call) -> None:
    tag = integer("vlan", call.params["vlan"])
    network = await call.ref("network-uuid", "network")
    vlan = await call.api.call("VLAN.create", await call.ref("pif-uuid", "PIF"), tag, network)
    await call.print_uuid("PIF", await call.api.call("VLAN.get_untagged_PIF", vlan))


async def _vlan_destroy(call: Call) -> None:
    """`uuid`: of the VLAN, or of its untagged PIF as old scripts give it."""
    uuid = call.params["uuid"]
    vlans = await call.objects.all("VLAN")
    for ref, record in vlans.items():
        if uuid == record["uuid"]:
            await call.api.call("VLAN.destroy", ref)
            return
    await call.api.call("PIF.destroy", await call.ref("uuid", "PIF"))


async def _bond_create(call: Call) -> None:
    params = call.params
    network = await call.ref("network-uuid", "network")
    members = [await call.objects.by_uuid("PIF", uuid) for uuid in params["pif-uuids"].split(",") if uuid]
    mode = params.get("mode") or "balance-slb"
    bond = await call.api.call("Bond.create", network, members, params.get("mac"), mode, params.mapping("properties"))
    await call.print_uuid("Bond", bond)


async def _tunnel_create(call: Call) -> None:
    network = await call.ref("network-uuid", "network")
    pif = await call.ref("pif-uuid", "PIF")
    types = [param.type for param in model.messages["tunnel.create"].params]
    protocol = await parsed(types[-1], "protocol", call.params.get("protocol", "gre"), call.objects)
    tunnel = await call.api.call("tunnel.create", pif, network, protocol)
    await call.print_uuid("PIF", await call.api.call("tunnel.get_access_PIF", tunnel))


COMMANDS = (
    create(
        "network-create",
        "network",
        {
            "name_label": "name-label",
            "name_description": ("name-description", ""),
            "MTU": ("MTU", 1500),
            "bridge": ("bridge", ""),
            "managed": ("managed", True),
        },
        other_config={},
        tags=[],
    ),
    message("network-destroy", "network.destroy", "uuid"),
    message("network-attach", "network.attach", "uuid", "host-uuid", flags="Hidden"),
    message("pif-scan", "PIF.scan", "host-uuid"),
    message("pif-introduce", "PIF.introduce", "host-uuid", ("mac", ""), "device", ("managed", True)),
    command(
        "tunnel-create",
        _tunnel_create,
        "Carries a network over an interface of a host.",
        required="pif-uuid network-uuid",
        optional="protocol",
    ),
    message("pif-plug", "PIF.plug", "uuid"),
    message("pif-unplug", "PIF.unplug", "uuid"),
    message("pif-forget", "PIF.forget", "uuid"),
    message("pif-db-forget", "PIF.db_forget", "uuid", flags="Hidden"),
    message(
        "pif-reconfigure-ip",
        "PIF.reconfigure_ip",
        "uuid",
        "mode",
        ("IP", ""),
        ("netmask", ""),
        ("gateway", ""),
        ("DNS", ""),
    ),
    message("pif-reconfigure-ipv6", "PIF.reconfigure_ipv6", "uuid", "mode", ("IPv6", ""), ("gateway", ""), ("DNS", "")),
    message("pif-set-primary-address-type", "PIF.set_primary_address_type", "uuid", "primary_address_type"),
    command(
        "vlan-create",
        _vlan_create,
        "Makes a VLAN on an interface; prints the PIF to use it by.",
        required="pif-uuid vlan network-uuid",
    ),
    command("vlan-destroy", _vlan_destroy, "Removes a VLAN.", required="uuid"),
    command(
        "bond-create",
        _bond_create,
        "Bonds interfaces: pif-uuids=<uuid>,<uuid>.",
        required="network-uuid pif-uuids",
        optional="mac mode properties:",
    ),
    message("bond-destroy", "Bond.destroy", "uuid"),
    message("bond-set-mode", "Bond.set_mode", "uuid", "mode"),
    message("tunnel-destroy", "tunnel.destroy", "uuid"),
    message("network-sriov-create", "network_sriov.create", "pif-uuid", "network-uuid"),
    message("network-sriov-destroy", "network_sriov.destroy", "uuid"),
    message("sdn-controller-forget", "SDN_controller.forget", "uuid"),
)
