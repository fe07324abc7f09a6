"""Disks of domains that are QEMU processes: the graph of block nodes under each device.

A device `vbd-<n>` reads and writes the node `disk-<n>`, a throttle filter without limits that stays as long as the
device has a medium. Below it are the images, whose nodes come and go: `image-<n>-<random>` for those that were opened
by name here, names made by QEMU for backing images that it found by itself. Which file a node is, the graph says.
"""
