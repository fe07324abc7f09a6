"""`python -m bench storage_streams`: disks exported and imported over HTTP, beside qemu-img and nginx with files.

A pool of processes, QEMU's images on a file SR in memory, curl as the client. Best of a few rounds in which all take
turns.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.result import Result
from bench.storage_pool import ADDRESS, GIB, StoragePool, curl, in_turns, running, seconds

ROUNDS = 3
NGINX_PORT = 8090
EMPTY = 100 * GIB
OF_THE_SLOWER = 0.8


def main() -> list[Result]:
    with running(in_memory=True) as pool:
        data = pool.raw_file(GIB)
        disk, other = pool.disk(GIB), pool.disk(GIB)
        pool.import_(disk, "raw", data)
        results = [*_raw(pool, disk, other, data), *_vhd(pool, disk, other), *_empty(pool)]
    print(f"bench: load average {os.getloadavg()[0]:.1f} at the end")
    return results


def _raw(pool: StoragePool, disk: str, other: str, data: Path) -> list[Result]:
    copied, image = pool.scratch / "copied", str(pool.image(disk))
    sides = {
        "http": lambda: pool.export(disk, "raw"),
        "https": lambda: pool.export(disk, "raw", "https"),
        "import_": lambda: pool.import_(other, "raw", data),
        "convert": lambda: seconds(["qemu-img", "convert", "-U", "-f", "qcow2", "-O", "raw", image, str(copied)]),
        "back": lambda: seconds(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(data), str(copied)]),
    }
    with _nginx(pool.scratch) as there:
        if there:
            sides["static"] = lambda: curl("-o", "/dev/null", f"http://{ADDRESS}:{NGINX_PORT}/{data.name}")
        else:
            print("bench: nginx is not installed: exports are compared with qemu-img alone")
        best = {name: min(taken) for name, taken in in_turns(ROUNDS, **sides).items()}
    copied.unlink()
    slower = "convert" if best["convert"] >= best.get("static", 0.0) else "static"
    results = [
        _rate("export raw, 1 GiB", best["http"], WORDS[slower], best[slower], OF_THE_SLOWER),
        _rate("export raw, HTTPS", best["https"], WORDS[slower], best[slower]),
        _rate("import raw, 1 GiB", best["import_"], "qemu-img to qcow2", best["back"]),
    ]
    if there:
        faster = "static" if slower == "convert" else "convert"
        results.insert(1, _rate("  the faster of the two", best["http"], WORDS[faster], best[faster]))
    return results


def _vhd(pool: StoragePool, disk: str, other: str) -> list[Result]:
    """Both write a file: curl what it gets, qemu-img what it makes. Writing is most of curl's work, so there is an
    export whose file is /dev/null, too; and what curl takes for such a file from nginx, and to send one to nobody.
    """
    image, ours, theirs = str(pool.image(disk)), pool.scratch / "ours.vhd", pool.scratch / "theirs.vhd"
    copied = str(pool.scratch / "copied.qcow2")
    sides = {
        "export": lambda: pool.export(disk, "vhd", into=str(ours)),
        "stream": lambda: pool.export(disk, "vhd"),
        "convert": lambda: seconds(["qemu-img", "convert", "-U", "-f", "qcow2", "-O", "vpc", image, str(theirs)]),
        "import_": lambda: pool.import_(other, "vhd", theirs),
        "back": lambda: seconds(["qemu-img", "convert", "-f", "vpc", "-O", "qcow2", str(theirs), copied]),
    }
    with _nginx(pool.scratch) as there, _nobody() as sent_to:
        if there:
            sides["static"] = lambda: curl("-o", str(ours), f"http://{ADDRESS}:{NGINX_PORT}/{theirs.name}")
        sides["sent"] = lambda: curl("-T", str(theirs), sent_to)
        best = {name: min(taken) for name, taken in in_turns(ROUNDS, **sides).items()}
    for path in (ours, theirs):
        path.unlink()
    found = [
        _rate("export VHD, 1 GiB", best["export"], "qemu-img to VHD", best["convert"], 1.0),
        _rate("  that curl does not keep", best["stream"], "qemu-img to VHD", best["convert"]),
        _rate("import VHD, 1 GiB", best["import_"], "qemu-img from VHD", best["back"], 1.0),
        _rate("  curl to nobody", best["sent"], "qemu-img from VHD", best["back"]),
    ]
    if "static" in best:
        found.insert(2, _rate("  curl from nginx", best["static"], "qemu-img to VHD", best["convert"]))
    return found


def _empty(pool: StoragePool) -> list[Result]:
    """In the formats that leave out what is not there: a raw stream has all of the disk's bytes."""
    disk = pool.disk(EMPTY)
    taken = in_turns(ROUNDS, vhd=lambda: pool.export(disk, "vhd"), qcow2=lambda: pool.export(disk, "qcow2"))
    return [
        Result(
            name=f"export empty 100 GiB, {form}",
            value=min(found),
            unit="s",
            reference_name="aim",
            reference=1.0,
            aim=1.0,
        )
        for form, found in taken.items()
    ]


WORDS = {"convert": "qemu-img to raw", "static": "curl from nginx"}


def _rate(name: str, value: float, beside: str, reference: float, aim: float | None = None) -> Result:
    """Both in seconds for one GiB."""
    mib = GIB / 2**20
    return Result(
        name=name,
        value=mib / value,
        unit="MiB/s",
        reference_name=beside,
        reference=mib / reference,
        aim=aim,
        better="more",
    )


@contextmanager
def _nginx(folder: Path) -> Iterator[bool]:
    """Serves the folder's files; False where it is not installed."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        yield False
        return
    configuration = folder / "nginx.conf"
    configuration.write_text(
        f"daemon off; worker_processes 1; user root; pid {folder}/nginx.pid; error_log {folder}/nginx.log;\n"
        f"events {{}}\n"
        f"http {{ access_log off; sendfile on; server {{ listen {ADDRESS}:{NGINX_PORT}; root {folder}; }} }}\n"
    )
    server = subprocess.Popen([program, "-c", str(configuration)], stderr=subprocess.DEVNULL)
    try:
        _wait_served(server, f"http://{ADDRESS}:{NGINX_PORT}/{configuration.name}")
        yield True
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait()


@contextmanager
def _nobody() -> Iterator[str]:
    """An address whose server takes uploads, which have a length, and looks at nothing of them."""
    with socket.create_server((ADDRESS, 0)) as listener:
        serving = threading.Thread(target=_throw_away, args=(listener,), daemon=True)
        serving.start()
        yield f"http://{ADDRESS}:{listener.getsockname()[1]}/"
        listener.shutdown(socket.SHUT_RDWR)
        serving.join()


def _throw_away(listener: socket.socket) -> None:
    piece = bytearray(1 << 20)
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:  # it is closed
            return
        with connection:
            head = connection.recv(1 << 16)
            fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
            left = int(fields[b"content-length"])
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            while left > 0 and (received := connection.recv_into(piece)):
                left -= received
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


def _wait_served(server: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            curl("-o", "/dev/null", url)
            return
        except subprocess.CalledProcessError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.05)
