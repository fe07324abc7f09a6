"""Network interfaces, VLANs, bonds and tunnels: their rows, and what rows refuse."""

from __future__ import annotations

from typing import Any

import pytest

from shared.contracts.db import Create, MapPut, Update
from shared.contracts.network import Interface
from tests.api.core import records
from tests.api.harness import Client, Pool

NULL = "OpaqueRef:NULL"
BAD = "OpaqueRef:x"


class Cards:
    """`first`, `second`: detached cards of the first host on networks of their own; `management`: of that host."""

    def __init__(self, pool: Pool, client: Client) -> None:
        self.pool = pool
        self.client = client
        self.host = pool.host_ref(0)
        self.network = self.first = self.second = ""
        rows = pool.store.rows("PIF").items()
        self.management = next(ref for ref, row in rows if row["host"] == self.host and row["management"])

    async def find(self) -> None:
        self.pool.hosts[0].interfaces = [
            Interface(device=f"nic{number}", mac=f"02:00:00:00:00:0{number}", mtu=1500, carrier=True)
            for number in (1, 2)
        ]
        await self.client.call("PIF.scan", self.host)
        by_device = {row["device"]: ref for ref, row in self.pool.store.rows("PIF").items()}
        self.first, self.second = by_device["nic1"], by_device["nic2"]
        self.network = await self.new_network()

    async def new_network(self, **fields: Any) -> str:
        record = {"name_label": "n", "MTU": 1500, "other_config": {}, **fields}
        return str(await self.client.call("network.create", record))

    def row(self, pif: str) -> Any:
        return self.pool.row("PIF", pif)

    async def vlan(self, tag: int = 5) -> tuple[str, str]:
        """A VLAN on the first card, and its untagged interface, as a joining host would bring them."""
        client, network = self.client, await self.new_network()
        untagged = await client.call("PIF.pool_introduce", *described(self.host, network, "nic1", VLAN=tag))
        return await client.call("VLAN.pool_introduce", self.first, untagged, tag, {}), untagged


def described(host: str, network: str, device: str, **fields: Any) -> list[Any]:
    record: dict[str, Any] = {
        "device": device,
        "network": network,
        "host": host,
        "MAC": "02:00:00:00:00:09",
        "MTU": 1500,
        "VLAN": -1,
        "physical": False,
        "ip_configuration_mode": "None",
        "IP": "",
        "netmask": "",
        "gateway": "",
        "DNS": "",
        "bond_slave_of": NULL,
        "VLAN_master_of": NULL,
        "management": False,
        "other_config": {},
        "disallow_unplug": False,
        "ipv6_configuration_mode": "None",
        "IPv6": [],
        "ipv6_gateway": "",
        "primary_address_type": "IPv4",
        "managed": True,
        "properties": {},
    }
    return list((record | fields).values())


@pytest.fixture
async def cards(pool: Pool, client: Client) -> Cards:
    found = Cards(pool, client)
    await found.find()
    return found


# ---- cards


async def test_a_scan_makes_rows_of_cards_that_have_none(pool: Pool, client: Client, cards: Cards) -> None:
    row, before = cards.row(cards.first), set(pool.store.rows("PIF"))
    assert (row["MAC"], row["physical"], row["currently_attached"]) == ("02:00:00:00:00:01", True, False)
    assert pool.row("network", row["network"])["bridge"] == "brnic1"
    assert pool.row("PIF_metrics", row["metrics"])["carrier"]
    await client.call("PIF.scan", cards.host)
    assert set(pool.store.rows("PIF")) == before
    assert await client.refusal("PIF.scan", BAD) == ["HOST_OFFLINE", BAD]


async def test_a_card_is_introduced_by_name_and_address(client: Client, cards: Cards) -> None:
    host, network = cards.host, cards.row(cards.first)["network"]
    known = await client.refusal("PIF.introduce", host, "", "nic1", True)
    assert known == ["DUPLICATE_PIF_DEVICE_NAME", "nic1"]
    await client.call("PIF.forget", cards.first)
    assert cards.row(cards.first) is None
    assert await client.refusal("PIF.introduce", host, "", "nic9", True) == ["MAC_INVALID", ""]
    code = "COULD_NOT_FIND_NETWORK_INTERFACE_WITH_SPECIFIED_DEVICE_NAME_AND_MAC_ADDRESS"
    other = await client.refusal("PIF.introduce", host, "02:00:00:00:00:02", "nic1", True)
    assert other == [code, "nic1", "02:00:00:00:00:02"]
    again = await client.call("PIF.introduce", host, "02:00:00:00:00:01", "nic1", True)
    assert cards.row(again)["network"] == network


async def test_the_management_interface_stays(client: Client, cards: Cards) -> None:
    refused = ["PIF_IS_MANAGEMENT_INTERFACE", cards.management]
    for message, arguments in (
        ("PIF.unplug", []),
        ("PIF.forget", []),
        ("PIF.set_primary_address_type", ["IPv6"]),
        ("PIF.reconfigure_ip", ["None", "", "", "", ""]),
    ):
        assert await client.refusal(message, cards.management, *arguments) == refused
        assert await client.refusal(message, BAD, *arguments) == ["HANDLE_INVALID", "PIF", BAD]
    assert await client.refusal("PIF.destroy", cards.management) == ["PIF_IS_PHYSICAL"]
    await client.call("PIF.plug", cards.management)


async def test_addresses_of_a_detached_interface_are_written(client: Client, cards: Cards) -> None:
    pif = cards.first
    wrong = await client.refusal("PIF.reconfigure_ip", pif, "Static", "x", "", "", "")
    assert wrong == ["INVALID_IP_ADDRESS_SPECIFIED", "IP"]
    await client.call("PIF.reconfigure_ip", pif, "Static", "10.0.0.1", "255.255.255.0", "", "10.0.0.9,fd00::9")
    row = cards.row(pif)
    assert (row["ip_configuration_mode"], row["IP"], row["DNS"]) == ("Static", "10.0.0.1", "10.0.0.9")
    no_prefix = await client.refusal("PIF.reconfigure_ipv6", pif, "Static", "fd00::1", "", "")
    assert no_prefix == ["INVALID_CIDR_ADDRESS_SPECIFIED", "IPv6"]
    await client.call("PIF.reconfigure_ipv6", pif, "Static", "fd00::1/64", "", "fd00::9")
    row = cards.row(pif)
    assert (row["IPv6"], row["DNS"]) == (["fd00::1/64"], "fd00::9,10.0.0.9")


async def test_properties_are_of_cards_and_bonds(client: Client, cards: Cards) -> None:
    odd = await client.refusal("PIF.set_property", cards.first, "gro", "frob")
    assert odd == ["INVALID_VALUE", "properties", "gro = frob"]
    await client.call("PIF.set_property", cards.first, "gro", "off")
    assert cards.row(cards.first)["properties"] == {"gro": "off"}
    _, untagged = await cards.vlan()
    assert await client.refusal("PIF.set_property", untagged, "gro", "off") == [
        "CANNOT_CHANGE_PIF_PROPERTIES",
        untagged,
    ]


async def test_an_interface_that_must_stay_attached_does(pool: Pool, client: Client, cards: Cards) -> None:
    await client.call("PIF.set_disallow_unplug", cards.first, True)
    await client.call("PIF.set_primary_address_type", cards.first, "IPv6")
    assert cards.row(cards.first)["primary_address_type"] == "IPv6"
    refused = ["PIF_DOES_NOT_ALLOW_UNPLUG", cards.first]
    assert await client.refusal("PIF.unplug", cards.first) == refused
    await client.call("PIF.set_disallow_unplug", cards.first, False)
    await client.call("PIF.unplug", cards.first)
    await pool.write(Update(cls="PIF", ref=cards.first, fields={"currently_attached": True}))
    assert (await client.refusal("PIF.unplug", cards.first))[0] == "NOT_IMPLEMENTED"
    await pool.write(Update(cls="pool", ref=next(iter(pool.store.rows("pool"))), fields={"redo_log_enabled": True}))
    assert await client.refusal("PIF.unplug", cards.first) == ["REDO_LOG_IS_ENABLED"]
    await pool.write(Update(cls="PIF", ref=cards.first, fields={"managed": False}))
    assert await client.refusal("PIF.unplug", cards.first) == ["PIF_UNMANAGED", cards.first]


async def test_a_network_that_a_vm_uses_keeps_its_interface(pool: Pool, client: Client, cards: Cards) -> None:
    vm, network = await pool.vm(client), cards.row(cards.first)["network"]
    vif = await client.call("VIF.create", records.vif(vm, network))
    await client.call("VM.start_on", vm, cards.host, False, False)
    assert await client.refusal("PIF.unplug", cards.first) == ["VIF_IN_USE", network, vif]


# ---- VLANs


async def test_vlans_come_with_hosts_and_go(pool: Pool, client: Client, cards: Cards) -> None:
    vlan, untagged = await cards.vlan()
    assert cards.row(untagged)["metrics"] == cards.row(cards.first)["metrics"]
    assert cards.row(untagged)["VLAN_master_of"] == vlan
    for pif in (cards.first, untagged):
        assert await client.refusal("PIF.forget", pif) == ["PIF_VLAN_STILL_EXISTS", pif]
    await client.call("PIF.destroy", untagged)
    assert (cards.row(untagged), pool.row("VLAN", vlan)) == (None, None)
    assert pool.row("PIF_metrics", cards.row(cards.first)["metrics"]) is not None
    assert await client.refusal("VLAN.destroy", vlan) == ["HANDLE_INVALID", "VLAN", vlan]


async def test_what_could_not_be_a_vlan_is_refused_as_such(pool: Pool, client: Client, cards: Cards) -> None:
    _, untagged = await cards.vlan(5)
    ask, pif, net = "VLAN.create", cards.first, cards.network
    assert await client.refusal(ask, BAD, 5, BAD) == ["HANDLE_INVALID", "PIF", BAD]
    assert await client.refusal(ask, pif, 5, BAD) == ["HANDLE_INVALID", "network", BAD]
    own = cards.row(pif)["network"]
    assert await client.refusal(ask, pif, 6, own) == ["NETWORK_ALREADY_CONNECTED", cards.host, pif]
    assert await client.refusal(ask, untagged, 6, net) == ["PIF_IS_VLAN", untagged]
    assert await client.refusal(ask, pif, 4095, net) == ["VLAN_TAG_INVALID", "4095"]
    assert await client.refusal(ask, pif, 5, net) == ["PIF_VLAN_EXISTS", "nic1"]
    assert await client.refusal(ask, pif, 6, net) == ["NOT_IMPLEMENTED", ask]
    outside = await cards.new_network(managed=False)
    assert await client.refusal(ask, pif, 6, outside) == ["NETWORK_UNMANAGED", outside]
    vif = await client.call("VIF.create", records.vif(await pool.vm(client), net, trunks=[7]))
    assert pool.row("VIF", vif)["trunks"] == [7]
    assert await client.refusal(ask, pif, 6, net) == ["NETWORK_INCOMPATIBLE_WITH_TRUNKS", net]
    assert await client.refusal("PIF.create_VLAN", "nic9", net, cards.host, 6) == ["INVALID_VALUE", "device", "nic9"]


# ---- bonds, tunnels, SR-IOV


async def test_what_could_not_be_a_bond_is_refused_as_such(pool: Pool, client: Client, cards: Cards) -> None:
    async def refusal(pifs: list[str], mode: str = "active-backup", mac: str = "", **properties: str) -> list[str]:
        return await client.refusal("Bond.create", cards.network, pifs, mac, mode, properties)

    both = [cards.first, cards.second]
    other_host = next(ref for ref, row in pool.store.rows("PIF").items() if row["host"] == pool.host_ref(1))
    assert await refusal([]) == ["PIF_BOND_NEEDS_MORE_MEMBERS"]
    assert await refusal([BAD]) == ["HANDLE_INVALID", "PIF", BAD]
    assert await refusal(both, mac="xx") == ["MAC_INVALID", "xx"]
    assert await refusal(both, frob="1") == ["INVALID_VALUE", "properties", "frob = 1"]
    assert await refusal([cards.first, other_host]) == ["PIF_CANNOT_BOND_CROSS_HOST"]
    _, untagged = await cards.vlan()
    assert await refusal([cards.first, untagged]) == ["PIF_VLAN_EXISTS", "nic1"]
    assert await refusal(both, "lacp", **{"lacp-time": "fast"}) == ["NOT_IMPLEMENTED", "Bond.create"]
    await client.call("PIF.set_property", cards.second, "gro", "off")
    assert await refusal(both) == ["INCOMPATIBLE_PIF_PROPERTIES"]


async def test_members_of_a_bond_are_used_through_it(pool: Pool, client: Client, cards: Cards) -> None:
    master = await client.call("PIF.db_introduce", *described(cards.host, cards.network, "bond0"))
    bond = "OpaqueRef:bond"
    await pool.write(
        Create(cls="Bond", ref=bond, fields={"uuid": "b", "master": master, "mode": "lacp"}),
        Update(cls="PIF", ref=cards.first, fields={"bond_slave_of": bond}),
    )
    member = cards.first
    assert await client.refusal("PIF.plug", member) == ["CANNOT_PLUG_BOND_SLAVE", member]
    assert await client.refusal("PIF.forget", member) == ["PIF_ALREADY_BONDED", member]
    network = await cards.new_network()
    refused = ["CANNOT_ADD_VLAN_TO_BOND_SLAVE", member]
    assert await client.refusal("VLAN.create", member, 5, network) == refused
    odd = await client.refusal("Bond.set_property", bond, "lacp-time", "never")
    assert odd == ["INVALID_VALUE", "properties", "lacp-time = never"]
    assert (await client.refusal("Bond.set_mode", bond, "active-backup"))[0] == "NOT_IMPLEMENTED"
    assert await client.refusal("Bond.set_mode", BAD, "lacp") == ["HANDLE_INVALID", "Bond", BAD]


async def test_tunnels_need_open_vswitch(pool: Pool, client: Client, cards: Cards) -> None:
    ask = ["tunnel.create", cards.first, cards.network, "gre"]
    assert await client.refusal("tunnel.create", BAD, BAD, "gre") == ["HANDLE_INVALID", "PIF", BAD]
    assert await client.refusal(*ask) == ["OPENVSWITCH_NOT_ACTIVE"]
    for host in pool.store.rows("host"):
        field, backend = "software_version", "network_backend"
        await pool.write(MapPut(cls="host", ref=host, field=field, key=backend, value="openvswitch"))
    assert await client.refusal(*ask) == ["NOT_IMPLEMENTED", "tunnel.create"]
    access = await client.call("PIF.pool_introduce", *described(cards.host, cards.network, "tunnel0"))
    fields = {"uuid": "t", "access_PIF": access, "transport_PIF": cards.first}
    await pool.write(Create(cls="tunnel", ref="OpaqueRef:t", fields=fields))
    assert await client.refusal("PIF.plug", access) == ["TRANSPORT_PIF_NOT_CONFIGURED", cards.first]
    assert await client.refusal("PIF.forget", cards.first) == ["PIF_TUNNEL_STILL_EXISTS", cards.first]
    await client.call("tunnel.destroy", "OpaqueRef:t")
    assert cards.row(access) is None


async def test_cards_are_split_that_can_be(pool: Pool, client: Client, cards: Cards) -> None:
    ask = "network_sriov.create"
    assert await client.refusal(ask, cards.first, cards.network) == ["PIF_IS_NOT_SRIOV_CAPABLE", cards.first]
    assert await client.refusal(ask, BAD, cards.network) == ["HANDLE_INVALID", "PIF", BAD]
    _, untagged = await cards.vlan()
    assert await client.refusal(ask, untagged, cards.network) == ["PIF_IS_NOT_PHYSICAL", untagged]
    await pool.write(Update(cls="PIF", ref=cards.first, fields={"capabilities": ["sriov"]}))
    assert await client.refusal(ask, cards.first, cards.network) == ["NOT_IMPLEMENTED", ask]
    logical = await client.call("PIF.pool_introduce", *described(cards.host, cards.network, "nic1"))
    fields = {"uuid": "s", "physical_PIF": cards.first, "logical_PIF": logical}
    await pool.write(Create(cls="network_sriov", ref="OpaqueRef:s", fields=fields))
    assert await client.refusal(ask, cards.first, cards.network) == ["NETWORK_SRIOV_ALREADY_ENABLED", cards.first]
    assert await client.refusal("PIF.forget", logical) == ["CANNOT_FORGET_SRIOV_LOGICAL", logical]
    refused = ["CANNOT_ADD_TUNNEL_TO_SRIOV_LOGICAL", logical]
    assert await client.refusal("tunnel.create", logical, await cards.new_network(), "gre") == refused
    await client.call("network_sriov.destroy", "OpaqueRef:s")
    assert cards.row(logical) is None


# ---- networks of joining hosts


async def test_a_joining_hosts_network_is_taken_over_as_it_is(pool: Pool, client: Client) -> None:
    ref = await client.call("network.pool_introduce", "n", "d", 9000, {"a": "b"}, "xenbr7", True, ["nbd"])
    row = pool.row("network", ref)
    assert (row["bridge"], row["MTU"], row["purpose"]) == ("xenbr7", 9000, ["nbd"])
