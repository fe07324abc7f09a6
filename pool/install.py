"""Installs what this folder needs: Debian packages that are missing, and a virtual environment in `.venv`.

    python3 -m pool.install [--for pool|test|bench|lint|compose]

Runs on the system's Python with nothing but the standard library. A second run finds its stamp and is done at once.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / ".installed"
CACHE = ROOT / ".cache"
POLICY = Path("/usr/sbin/policy-rc.d")
CLIENTS = ROOT / "tests" / "clients"
NODE_MODULES = CACHE / "clients" / "node_modules"
"""Clients of other languages that the tests run: what `package-lock.json` names."""
TAIL = 15
"""Lines of a failed program's output that are shown."""


class InstallError(Exception):
    """What could not be installed, in the installer's own words, and what to do."""


@dataclass(frozen=True)
class Package:
    """A Debian package. `programs`: any one of these paths or names present means that it is installed.
    What tests need, benchmarks need too.

    `without`: what goes on when it cannot be installed; "" when nothing does.
    """

    name: str
    programs: tuple[str, ...]
    purposes: frozenset[str]
    without: str = ""


PACKAGES = (
    Package("rabbitmq-server", ("rabbitmq-server", "/usr/sbin/rabbitmq-server"), frozenset({"pool", "test"})),
    Package(
        "qemu-system-x86",
        ("qemu-system-x86_64",),
        frozenset({"pool", "test"}),
        "hosts are simulated, or cannot start VMs",
    ),
    Package("qemu-utils", ("qemu-img",), frozenset({"pool", "test"}), "real disks cannot be made"),
    Package(
        "e2fsprogs",
        ("mkfs.ext4", "/usr/sbin/mkfs.ext4"),
        frozenset({"pool", "test"}),
        "SRs of type ext cannot be made",
    ),
    Package("nodejs", ("node",), frozenset({"test"}), "clients in JavaScript are not tested"),
    Package("npm", ("npm",), frozenset({"test"}), "clients in JavaScript are not tested"),
    Package("slapd", ("slapd", "/usr/sbin/slapd"), frozenset({"test"}), "directories are not tested"),
    Package("ldap-utils", ("ldapmodify",), frozenset({"test"}), "directories are not tested"),
    Package("nginx-light", ("nginx", "/usr/sbin/nginx"), frozenset({"bench"}), "no exports are measured beside it"),
    Package("docker.io", ("dockerd",), frozenset({"compose"})),
    Package("docker-compose", ("docker-compose",), frozenset({"compose"})),
    Package("debootstrap", ("debootstrap", "/usr/sbin/debootstrap"), frozenset({"compose"})),
    Package("iptables", ("iptables", "/usr/sbin/iptables"), frozenset({"compose"})),
)


def say(text: str) -> None:
    print(text, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python3 -m pool.install", description="Installs what is missing.")
    parser.add_argument("--for", dest="purpose", choices=("pool", "test", "bench", "lint", "compose"), default="pool")
    purpose = parser.parse_args().purpose
    try:
        if sys.version_info < (3, 11):  # noqa: UP036 (the system's Python may be any)
            raise InstallError(f"Python 3.11 or newer is needed, this is {sys.version.split()[0]} (PYTHON= chooses)")
        CACHE.mkdir(exist_ok=True)
        with _alone():
            debian_packages(purpose)
            virtual_environment()
            if purpose == "test":
                node_modules()
    except InstallError as error:
        sys.exit(f"install: {error}")
    except OSError as error:
        sys.exit(f"install: {error}")


# ---- Debian packages


def missing(purpose: str) -> list[Package]:
    purposes = {"test", "bench"} if purpose == "bench" else {purpose}
    return [package for package in PACKAGES if purposes & package.purposes and not _present(package)]


def debian_packages(purpose: str) -> None:
    """Installs those that are missing, as root. Raises `InstallError` for one that nothing works without."""
    wanted = missing(purpose)
    if purpose == "pool":
        if os.environ.get("AMQP_URL"):
            wanted = [package for package in wanted if package.name != "rabbitmq-server"]
        if os.environ.get("BACKEND") == "simulator":
            wanted = [package for package in wanted if not package.without]
    names = [package.name for package in wanted]
    if not _can_make_venv():
        names.append("python3-venv")
    if not names:
        return
    had_erlang = shutil.which("epmd") is not None
    try:
        _apt_install(names)
    except InstallError as error:
        still = [package for package in missing(purpose) if package in wanted]
        if any(not package.without for package in still) or not _can_make_venv():
            raise
        for package in still:
            say(f"install: without {package.name}: {package.without}")
        say(str(error))
    if "rabbitmq-server" in names:
        _keep_down("rabbitmq-server", *(() if had_erlang else ("epmd.socket", "epmd")))
    for name, service in (("slapd", "slapd"), ("nginx-light", "nginx")):
        if name in names:
            _keep_down(service)


def _present(package: Package) -> bool:
    return any(shutil.which(program) for program in package.programs)


def _can_make_venv() -> bool:
    return VENV.joinpath("bin/python").exists() or importlib.util.find_spec("ensurepip") is not None


def _apt_install(names: Sequence[str]) -> None:
    listed = " ".join(names)
    if shutil.which("apt-get") is None:
        raise InstallError(f"{listed}: missing, and there is no apt-get here. Install it by hand")
    if os.geteuid() != 0:
        raise InstallError(f"{listed}: missing, and only root can install it: sudo apt-get install {listed}")
    say(f"install: Debian packages {listed}")
    command = ["apt-get", "install", "-y", "--no-install-recommends", *names]
    with _no_service_starts():
        status, output = _run(command, ("Get:", "Unpacking", "Setting up"))
        if status:
            say("install: apt-get update")
            updated, update_output = _run(["apt-get", "update"], ("Get:", "Hit:"))
            status, output = _run(command, ("Get:", "Unpacking", "Setting up"))
            if updated and status:
                output = update_output + output
    if status:
        raise InstallError(
            f"apt-get could not install {listed} (status {status}). Its words:\n{_tail(output)}"
            "\nWith AMQP_URL=amqp://... the pool uses a broker elsewhere and rabbitmq-server is not needed"
            if "rabbitmq-server" in names
            else f"apt-get could not install {listed} (status {status}). Its words:\n{_tail(output)}"
        )


@contextmanager
def _no_service_starts() -> Iterator[None]:
    """Debian starts what it installs unless policy-rc.d forbids it. One that exists already is the machine's own."""
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink(missing_ok=True)


def _keep_down(*services: str) -> None:
    """The pool and the tests run what they need themselves: what the package would start, now or at the next
    boot, is of no use.
    """
    if shutil.which("systemctl") is not None:  # where systemd does not run, this settles the next boot only
        now = ["--now"] if Path("/run/systemd/system").is_dir() else []
        subprocess.run(["systemctl", "disable", *now, *services], capture_output=True, check=False)
    elif shutil.which("update-rc.d") is not None:
        subprocess.run(["update-rc.d", services[0], "disable"], capture_output=True, check=False)


# ---- the virtual environment


def virtual_environment() -> None:
    """Makes `.venv` agree with `requirements.lock`. Raises `InstallError`."""
    wanted = _fingerprint()
    if STAMP.exists() and STAMP.read_text() == wanted:
        return
    python = VENV / "bin" / "python"
    if not python.exists():
        say("install: virtual environment in .venv")
        _checked([sys.executable, "-m", "venv", str(VENV)], ())
    pip = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
    say("install: Python packages of requirements.lock")
    _checked([*pip, "--require-hashes", "-r", str(ROOT / "requirements.lock")], ("Collecting", "Installing"))
    _checked([*pip, "--no-deps", "--editable", str(ROOT)], ())
    STAMP.write_text(wanted)


def _fingerprint() -> str:
    """Of all that the environment is made from. A moved folder needs a new one: paths are written into it."""
    digest = hashlib.sha256(f"{sys.version_info[:2]} {ROOT}".encode())
    for name in ("requirements.lock", "pyproject.toml"):
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest() + "\n"


def _checked(command: Sequence[str], shown: tuple[str, ...]) -> None:
    status, output = _run(command, shown)
    if status:
        raise InstallError(f"{' '.join(command)} failed (status {status}). Its words:\n{_tail(output)}")


# ---- running programs


def _run(command: Sequence[str], shown: tuple[str, ...]) -> tuple[int, list[str]]:
    """Exit status and all lines. Lines that begin with one of `shown` are printed as they come, as progress."""
    lines: list[str] = []
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environment,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.rstrip())
            if shown and line.startswith(shown):
                say(f"  {line.rstrip().partition(' (from')[0][:120]}")
    return process.returncode, lines


def _tail(lines: Sequence[str]) -> str:
    return "\n".join(f"  {line}" for line in lines[-TAIL:])


@contextmanager
def _alone() -> Iterator[None]:
    """One installation at a time in this folder; the second waits and then finds all done."""
    with (CACHE / "install.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("install: waiting for another one in this folder")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


# ---- clients in JavaScript


def node_modules() -> None:
    """Makes `NODE_MODULES` agree with the lock file. Where that cannot be, those tests are left out."""
    npm = shutil.which("npm")
    if npm is None:
        return
    folder = NODE_MODULES.parent
    wanted = hashlib.sha256((CLIENTS / "package-lock.json").read_bytes()).hexdigest() + "\n"
    stamp = folder / ".installed"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    say("install: npm packages of tests/clients/package-lock.json")
    folder.mkdir(exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copyfile(CLIENTS / name, folder / name)
    command = [npm, "ci", "--prefix", str(folder), "--ignore-scripts", "--no-audit", "--no-fund"]
    status, output = _run(command, ())
    if status:
        shutil.rmtree(NODE_MODULES, ignore_errors=True)
        say(f"install: npm could not install them (status {status}), so their tests are left out. Its words:")
        say(_tail(output))
        return
    stamp.write_text(wanted)


if __name__ == "__main__":
    main()
