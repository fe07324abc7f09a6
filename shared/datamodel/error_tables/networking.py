"""Networks and interfaces."""

from __future__ import annotations

from shared.datamodel.error_tables.declaration import ErrorDecl, error

ERRORS: tuple[ErrorDecl, ...] = (
    error("ADDRESS_VIOLATES_LOCKING_CONSTRAINT", "The interface's locking does not allow this address.", "address"),
    error("BRIDGE_NAME_EXISTS", "Another network already uses this bridge.", "bridge"),
    error("BRIDGE_NOT_AVAILABLE", "The bridge does not exist on the host.", "bridge"),
    error("CANNOT_ADD_TUNNEL_TO_BOND_SLAVE", "A tunnel cannot run over a single interface of a bond.", "PIF"),
    error("CANNOT_ADD_TUNNEL_TO_SRIOV_LOGICAL", "A tunnel cannot run over an SR-IOV interface.", "PIF"),
    error(
        "CANNOT_ADD_TUNNEL_TO_VLAN_ON_SRIOV_LOGICAL", "A tunnel cannot run over a VLAN of an SR-IOV interface.", "PIF"
    ),
    error(
        "CANNOT_ADD_VLAN_TO_BOND_SLAVE",
        "A VLAN cannot be put on a single interface of a bond; put it on the bond.",
        "PIF",
    ),
    error("CANNOT_CHANGE_PIF_PROPERTIES", "These properties of a bonded interface come from the bond.", "PIF"),
    error("CANNOT_DESTROY_SYSTEM_NETWORK", "The system needs this network.", "network"),
    error("CANNOT_FORGET_SRIOV_LOGICAL", "An SR-IOV interface goes away with its SR-IOV network.", "PIF"),
    error("CANNOT_PLUG_BOND_SLAVE", "An interface of a bond comes up with the bond.", "PIF"),
    error("CANNOT_PLUG_VIF", "The virtual interface cannot be attached.", "VIF"),
    error("COULD_NOT_UPDATE_IGMP_SNOOPING_EVERYWHERE", "Not every host could change IGMP snooping."),
    error("DUPLICATE_MAC_SEED", "Another VM has the same seed for its MAC addresses.", "seed"),
    error("DUPLICATE_PIF_DEVICE_NAME", "Another interface of the host has this device name.", "device"),
    error("INCOMPATIBLE_PIF_PROPERTIES", "The interfaces to be bonded have different properties."),
    error("INVALID_CIDR_ADDRESS_SPECIFIED", "This parameter is not an address with a prefix length.", "parameter"),
    error("INVALID_IP_ADDRESS_SPECIFIED", "This parameter is not an IP address.", "parameter"),
    error("IS_TUNNEL_ACCESS_PIF", "This interface is the inner end of a tunnel.", "PIF"),
    error("MAC_DOES_NOT_EXIST", "The host has no interface with this MAC.", "MAC"),
    error("MAC_INVALID", "This is not a MAC address of a single device.", "MAC"),
    error("MAC_STILL_EXISTS", "The host still has an interface with this MAC.", "MAC"),
    error(
        "NETWORK_ALREADY_CONNECTED",
        "The host is connected to this network by another interface.",
        "network",
        "connected PIF",
    ),
    error("NETWORK_CONTAINS_PIF", "Host interfaces are still connected to the network.", "pifs"),
    error("NETWORK_CONTAINS_VIF", "VM interfaces are still connected to the network.", "vifs"),
    error(
        "NETWORK_HAS_INCOMPATIBLE_SRIOV_PIFS", "The network's SR-IOV interfaces are of another kind.", "PIF", "network"
    ),
    error(
        "NETWORK_HAS_INCOMPATIBLE_VLAN_ON_SRIOV_PIFS",
        "The network's VLANs over SR-IOV are of another kind.",
        "PIF",
        "network",
    ),
    error(
        "NETWORK_INCOMPATIBLE_PURPOSES",
        "The network already has a purpose that excludes the new one.",
        "new_purpose",
        "conflicting_purpose",
    ),
    error("NETWORK_INCOMPATIBLE_WITH_BOND", "A bond cannot be connected to this network.", "network"),
    error("NETWORK_INCOMPATIBLE_WITH_SRIOV", "SR-IOV cannot be used on this network.", "network"),
    error("NETWORK_INCOMPATIBLE_WITH_TRUNKS", "Trunks work only on a network whose VMs see all VLANs.", "network"),
    error("NETWORK_INCOMPATIBLE_WITH_TUNNEL", "A tunnel cannot be connected to this network.", "network"),
    error(
        "NETWORK_INCOMPATIBLE_WITH_VLAN_ON_BRIDGE", "A VLAN on a bridge cannot be connected to this network.", "network"
    ),
    error(
        "NETWORK_INCOMPATIBLE_WITH_VLAN_ON_SRIOV", "A VLAN over SR-IOV cannot be connected to this network.", "network"
    ),
    error("NETWORK_SRIOV_ALREADY_ENABLED", "SR-IOV is on already on this interface.", "PIF"),
    error("NETWORK_SRIOV_DISABLE_FAILED", "SR-IOV could not be turned off on this interface.", "PIF", "msg"),
    error("NETWORK_SRIOV_ENABLE_FAILED", "SR-IOV could not be turned on on this interface.", "PIF", "msg"),
    error("NETWORK_SRIOV_INSUFFICIENT_CAPACITY", "No virtual function is left on this network.", "network"),
    error("NETWORK_UNMANAGED", "The toolstack does not manage this network.", "network"),
    error("OPENVSWITCH_NOT_ACTIVE", "This needs Open vSwitch, and the host uses another bridge."),
    error("PIF_ALLOWS_UNPLUG", "The interface may be unplugged, and must not be for this.", "PIF"),
    error("PIF_ALREADY_BONDED", "The interface belongs to a bond already.", "PIF"),
    error("PIF_BOND_MORE_THAN_ONE_IP", "At most one of the interfaces to be bonded may have an address."),
    error("PIF_BOND_NEEDS_MORE_MEMBERS", "A bond needs more interfaces."),
    error("PIF_CANNOT_BOND_CROSS_HOST", "Interfaces of different hosts cannot be bonded."),
    error("PIF_CONFIGURATION_ERROR", "The interface could not be configured.", "PIF", "msg"),
    error("PIF_DEVICE_NOT_FOUND", "The host has no such network device."),
    error("PIF_DOES_NOT_ALLOW_UNPLUG", "The interface is protected against being unplugged.", "PIF"),
    error("PIF_HAS_FCOE_SR_IN_USE", "An SR in use is reached over this interface by FCoE.", "PIF", "SR"),
    error("PIF_HAS_NO_NETWORK_CONFIGURATION", "The interface has no address configured.", "PIF"),
    error("PIF_HAS_NO_V6_NETWORK_CONFIGURATION", "The interface has no IPv6 address configured.", "PIF"),
    error(
        "PIF_INCOMPATIBLE_PRIMARY_ADDRESS_TYPE", "The interface's primary address type is not the one needed.", "PIF"
    ),
    error("PIF_IS_MANAGEMENT_INTERFACE", "The host is managed over this interface.", "PIF"),
    error("PIF_IS_NOT_PHYSICAL", "Only a physical interface can be used for this.", "PIF"),
    error("PIF_IS_NOT_SRIOV_CAPABLE", "The interface's hardware has no SR-IOV.", "PIF"),
    error("PIF_IS_PHYSICAL", "A physical interface cannot be used for this.", "PIF"),
    error("PIF_IS_SRIOV_LOGICAL", "An SR-IOV interface cannot be used for this.", "PIF"),
    error("PIF_IS_VLAN", "A VLAN cannot be used for this.", "PIF"),
    error("PIF_NOT_ATTACHED_TO_HOST", "The interface belongs to another host.", "pif", "host"),
    error("PIF_NOT_PRESENT", "The host has no interface on this network.", "host", "network"),
    error("PIF_SRIOV_STILL_EXISTS", "SR-IOV is still on on this interface.", "PIF"),
    error("PIF_TUNNEL_STILL_EXISTS", "A tunnel still runs over this interface.", "PIF"),
    error("PIF_UNMANAGED", "The toolstack does not manage this interface.", "PIF"),
    error("PIF_VLAN_EXISTS", "The interface already has a VLAN with this tag.", "PIF"),
    error("PIF_VLAN_STILL_EXISTS", "A VLAN is still on this interface.", "PIF"),
    error("REQUIRED_PIF_IS_UNPLUGGED", "An interface that this one needs is not plugged.", "PIF"),
    error("TRANSPORT_PIF_NOT_CONFIGURED", "The interface that carries the tunnel has no address.", "PIF"),
    error("VIF_IN_USE", "A running VM's interface is connected to the network.", "network", "VIF"),
    error("VIF_NOT_IN_MAP", "No destination network was given for this interface.", "vif"),
    error("VLAN_IN_USE", "Another network of the host already uses this tag on the device.", "device", "vlan"),
    error("VLAN_TAG_INVALID", "A VLAN tag is a number from 0 to 4094.", "VLAN"),
)
