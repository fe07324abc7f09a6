"""qemu-img, as the other side of the formats."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any


def convert(source: Path, source_format: str, target: Path, target_format: str, *options: str) -> Path:
    _run("convert", "-f", source_format, "-O", target_format, *options, str(source), str(target))
    return target


def info(path: Path, image_format: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(_run("info", "-f", image_format, "--output", "json", str(path)))
    return found


def compare(one: Path, one_format: str, two: Path, two_format: str) -> None:
    _run("compare", "-f", one_format, "-F", two_format, str(one), str(two))


def check(path: Path) -> None:
    """Fails for leaked clusters too."""
    _run("check", "-f", "qcow2", str(path))


def _run(*args: str) -> str:
    done = subprocess.run(("qemu-img", *args), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
