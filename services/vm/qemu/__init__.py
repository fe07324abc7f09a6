"""QEMU: one process for each domain, apart from the service, spoken to by QMP.

backend.py        the `Backend`
command_line.py   a domain's command line (pure)
kernel.py         which kernel a direct-boot VM may start (pure)
paths.py          where a domain's sockets and logs are
guest.py          one live domain: its QMP connection, its end
process.py        processes by their identity
accelerator.py    whether KVM really works here
serial.py         the text console
"""
