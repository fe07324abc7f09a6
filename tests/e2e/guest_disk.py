"""What a guest writes to its disk from its shell, and what the disk has to hold then."""

from __future__ import annotations

import os
import socket
from pathlib import Path

BLOCK = 65536


class Shell:
    """A root shell on a guest's serial console."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._count = 0
        self._until("login:")
        connection.sendall(b"root\r")
        self._until("# ")
        connection.sendall(b"PS1=; set +m; stty -echo; echo rea''dy.\r")
        self._until("ready.")

    def go_on(self, connection: socket.socket) -> None:
        """Over another connection to the same console: consoles end with the service that passes them on."""
        self._connection = connection
        self._count += 1
        connection.sendall(f"\recho he''re-{self._count}.\r".encode())
        self._until(f"here-{self._count}.")

    def run(self, command: str) -> str:
        """What a command prints. It has to succeed."""
        self._count += 1
        self._connection.sendall(f"{command}; echo en''d-{self._count}-$?.\r".encode())
        text = self._until(f"end-{self._count}-", then=".")
        output, _, status = text.rpartition(f"end-{self._count}-")
        assert status.startswith("0."), f"{command}: {text}"
        return output.replace("\r", "").strip()

    def _until(self, text: str, then: str = "") -> str:
        seen = ""
        while text not in seen or then not in seen.partition(text)[2]:
            received = self._connection.recv(4096)
            assert received, f"the console was closed after {seen!r}"
            seen += received.decode(errors="replace")
        return seen


class GuestDisk:
    """`content`: what the disk holds, as far as the guest has been told that it is written."""

    def __init__(self, shell: Shell, device: str, size: int) -> None:
        self._shell = shell
        self.device = device
        self.content = bytearray(size)

    def write(self, letter: str, block: int, count: int = 1) -> None:
        """Blocks of 64 KiB, full of one letter."""
        target = f"of={self.device} bs={BLOCK} seek={block} count={count} iflag=fullblock conv=notrunc,fsync"
        self._shell.run(f"tr '\\0' {letter} </dev/zero | dd {target} 2>/dev/null")
        self.content[block * BLOCK : (block + count) * BLOCK] = letter.encode() * (count * BLOCK)


class Writer:
    """A guest that counts on its disk, in turns over some sectors, until it is told to stop."""

    SECTORS = 256

    def __init__(self, shell: Shell, disk: GuestDisk, block: int) -> None:
        self._shell, self._disk = shell, disk
        self._first = block * BLOCK // 512
        place = f"seek=$(({self._first} + n % {self.SECTORS}))"
        dd = f"dd of={disk.device} bs=512 {place} count=1 conv=sync,notrunc,fsync 2>/dev/null"
        loop = f"while [ ! -e /tmp/stop ]; do n=$((n+1)); echo $n | {dd} || break; echo $n >/tmp/count; done"
        shell.run(f"rm -f /tmp/stop; echo 0 >/tmp/count; (n=0; {loop}; echo >/tmp/stopped) & true")

    @property
    def count(self) -> int:
        """How many have been written."""
        return int((self._shell.run("cat /tmp/count") or "0").split()[-1])

    def stop(self) -> int:
        """Returns how many were written; they are in the disk's `content` then."""
        self._shell.run("touch /tmp/stop; until [ -e /tmp/stopped ]; do sleep 0.1; done; rm /tmp/stopped")
        last = self.count
        for number in range(max(1, last - self.SECTORS + 1), last + 1):
            at = (self._first + number % self.SECTORS) * 512
            self._disk.content[at : at + 512] = f"{number}\n".encode().ljust(512, b"\0")
        return last


def opened_below(pid: int, folder: Path) -> set[str]:
    """Names of the files of a folder that a process has open."""
    found = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            path = Path(os.readlink(link))
        except FileNotFoundError:  # closed meanwhile
            continue
        if path.parent == folder:
            found.add(path.name)
    return found
