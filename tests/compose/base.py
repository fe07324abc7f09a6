"""What the image is made of, where no image can be pulled: a Debian from debootstrap, and the Python wheels.

Both come through the machine's own apt and pip, however they are configured, and are kept in `.cache` and `build`.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from tests.compose.engine import Engine

ROOT = Path(__file__).parent.parent.parent
CACHE = ROOT / ".cache" / "compose"
SUITE = "bookworm"
IMAGE = "xapi-base"
BUILD_TIMEOUT = 900.0


def packages() -> list[str]:
    """What the Dockerfile installs, read from its `packages=` line."""
    for line in (ROOT / "Dockerfile").read_text().splitlines():
        if "packages=" in line:
            return line.split('"')[1].split()
    raise AssertionError("the Dockerfile names no packages")


def mirror() -> str:
    """Where this machine's apt gets the suite from."""
    listed = _output("apt-get", "indextargets", "--format", "$(RELEASE) $(COMPONENT) $(SITE) $(REPO_URI)")
    for line in listed.splitlines():
        suite, component, _, address = line.split()
        if suite == SUITE and component == "main":
            return address
    raise AssertionError(f"apt on this machine has no source of {SUITE}")


def import_base(engine: Engine) -> str:
    """The name of the base image."""
    wanted = packages()
    digest = hashlib.sha256(" ".join([SUITE, *wanted]).encode()).hexdigest()[:12]
    archive = CACHE / f"base-{digest}.tar"
    if not archive.exists():
        root = CACHE / "root"
        shutil.rmtree(root, ignore_errors=True)
        _output("debootstrap", "--variant=minbase", f"--include={','.join(wanted)}", SUITE, str(root), mirror())
        shutil.rmtree(root / "var/cache/apt/archives", ignore_errors=True)
        new = archive.with_suffix(".new")
        _output("tar", "-C", str(root), "--numeric-owner", "-cf", str(new), ".")
        new.replace(archive)
        shutil.rmtree(root)
    engine.run("docker", "import", str(archive), IMAGE, timeout=BUILD_TIMEOUT)
    return IMAGE


def wheels() -> None:
    """`build/wheels`: all of requirements.lock, checked against its hashes."""
    folder = ROOT / "build" / "wheels"
    lock = (ROOT / "requirements.lock").read_bytes()
    stamp, wanted = folder / ".made-from", hashlib.sha256(lock).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return
    shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--require-hashes"]
    _output(*command, "-r", str(ROOT / "requirements.lock"), "-w", str(folder))
    stamp.write_text(wanted)


def _output(*command: str) -> str:
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=BUILD_TIMEOUT, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout
