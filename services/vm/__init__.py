"""VM lifecycle on a host: builds domains, keeps them through its own restarts, tells what guests do by themselves.

service.py      the bus side: which request goes to which host
host.py         one host: its VMs, one operation at a time for each of them, what guests do by themselves
plan.py         which micro-operations an operation is made of, and their undo (pure)
micro_ops.py    carries micro-operations out
records.py      what a host knows about its domains, on disk
backend.py      what a hypervisor must be able to do; `qemu/` and `simulator/` can
"""
