"""Which run of the machine (or container) this is: nothing a VM had open outlives it."""

from __future__ import annotations

from pathlib import Path


def boot_identity(proc: Path = Path("/proc")) -> str:
    """The kernel's boot id and when the first process started: a container that is restarted has the same kernel."""
    kernel = (proc / "sys/kernel/random/boot_id").read_text().strip()
    # the 22nd field; the second, the program's name, is in parentheses and may hold anything
    started = (proc / "1/stat").read_text().rpartition(")")[2].split()[19]
    return f"{kernel}/{started}"
