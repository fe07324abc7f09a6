"""VMs without their disks, as they go from pool to pool: `ova.xml` (XVA, version 2)."""
