"""A hypervisor without a machine: as fast as its bookkeeping, as many hosts and VMs as wanted."""
