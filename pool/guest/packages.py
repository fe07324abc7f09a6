"""Debian packages, downloaded and unpacked without installing them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

Say = Callable[[str], None]

DOWNLOAD_TIMEOUT = 600.0


class PackageError(Exception):
    """A package cannot be had; the text says why, in apt's own words where there are any."""


class Packages:
    """Downloads into `work`. Uses the machine's package lists; where it has none, fetches its own into `work`."""

    def __init__(self, work: Path, say: Say) -> None:
        self._work = work
        self._say = say
        # root's downloads would otherwise be handed to the user _apt, who cannot write to a private folder
        self._options = ["-o", "APT::Sandbox::User=root"] if os.geteuid() == 0 else []
        for program in ("apt-get", "apt-cache", "dpkg-deb"):
            if shutil.which(program) is None:
                raise PackageError(f"{program} is not installed: the guest is made of Debian's packages")

    def prepare(self, package: str) -> None:
        """Makes sure that package lists which know `package` are there."""
        if self._knows(package):
            return
        self._say("fetching package lists")
        lists, cache = self._work / "lists", self._work / "cache"
        for folder in (lists / "partial", cache / "archives" / "partial"):
            folder.mkdir(parents=True)
        self._options += ["-o", f"Dir::State::Lists={lists}", "-o", f"Dir::Cache={cache}"]
        self._run("apt-get", "update", "-q")
        if not self._knows(package):
            raise PackageError(f"the package sources of this machine have no {package} (they must be Debian's, amd64)")

    def dependency(self, package: str, pattern: str) -> str:
        """The first dependency of a (meta) package whose name matches."""
        shown = self._run("apt-cache", "show", "--no-all-versions", package)
        for line in shown.splitlines():
            match = re.search(pattern, line) if line.startswith("Depends:") else None
            if match is not None:
                return match.group()
        raise PackageError(f"{package} depends on nothing that looks like {pattern}")

    def unpack(self, package: str) -> Path:
        """The folder with the package's files."""
        downloads, root = self._work / f"{package}.download", self._work / package
        downloads.mkdir()
        self._run("apt-get", "download", "-q", package, folder=downloads)
        files = list(downloads.glob("*.deb"))
        if len(files) != 1:
            raise PackageError(f"apt-get download {package} left {len(files)} files")
        self._say(f"unpacking {files[0].name} ({files[0].stat().st_size / 1e6:.0f} MB)")
        self._run("dpkg-deb", "-x", str(files[0]), str(root))
        files[0].unlink()
        return root

    def _knows(self, package: str) -> bool:
        try:
            return "Package:" in self._run("apt-cache", "show", "--no-all-versions", package)
        except PackageError:
            return False

    def _run(self, program: str, *arguments: str, folder: Path | None = None) -> str:
        options = self._options if program.startswith("apt") else []
        command = [program, *options, *arguments]
        try:
            done = subprocess.run(
                command,
                cwd=folder or self._work,
                env={**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=DOWNLOAD_TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise PackageError(f"{program} {arguments[0]} took more than {DOWNLOAD_TIMEOUT:.0f} s") from error
        if done.returncode != 0:
            told = (done.stderr.strip() or done.stdout.strip()).splitlines()[-3:]
            raise PackageError(f"{program} {' '.join(arguments[:2])}: {'; '.join(told) or f'status {done.returncode}'}")
        return done.stdout
