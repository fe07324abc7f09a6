"""The mount namespace in which a host's storage drivers run, as far as services other than storage know it.

The storage service makes it (`services.storage.smapiv1.private_view`); the plug-ins that drivers call run there, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

MODULES: Final = Path(__file__).parent / "host_programs"
"""What programs on a host import and no distribution brings: to be on their PYTHONPATH."""
FOLDER: Final = "sm"
"""Below a group's `run_dir`: one folder for each host."""


def folder(run_dir: Path, host: str) -> Path:
    """`host`: uuid."""
    return run_dir / FOLDER / host[:8]


def namespace(run_dir: Path, host: str) -> Path:
    """The file that keeps the namespace, if there is one."""
    return folder(run_dir, host) / "ns"


def is_kept(file: Path) -> bool:
    """Whether a mount namespace is kept there."""
    return any(point == str(file) and kind == "nsfs" for point, kind in mounted())


def entered(file: Path, words: Sequence[str]) -> list[str]:
    """A command, run in the namespace that the file keeps."""
    return ["nsenter", f"--mount={file}", "--", *words]


def mounted() -> list[tuple[str, str]]:
    """Mount points of this process and types of their file systems, in the order in which they were mounted."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        found.append((left.split()[4].encode().decode("unicode_escape"), right.split()[0]))
    return found
