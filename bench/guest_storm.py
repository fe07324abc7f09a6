"""`python -m bench guest_storm`: what a guest's disk holds after storms in which its QEMU and the services are killed.

    python -m bench guest_storm [--rounds 20] [--seed N]

A guest writes numbered blocks with fsync from its shell; its disk is snapshotted and grown under it, and snapshots are
destroyed, so that images are merged under it. Its QEMU, the storage services, the API and qemu-img get kill -9. After
each round the disk and all its snapshots are compared. Only run when it is named.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench import storm_pool, storm_remains
from bench.storm_content import BLOCK, Content, which
from bench.storm_kills import kill
from bench.storm_pool import FAILED_CALL, MIB, Refused, StormPool
from bench.vm import connect
from pool import processes
from shared.bus.contract import Empty
from shared.contracts.vm import LIST
from shared.errors import ApiError
from tests.e2e.guest_disk import Shell
from tests.e2e.test_faults_qemu import Machine

STEPS = 12
SNAPSHOTS = 4
LARGEST = 72 * MIB
QEMU = "QEMU"
VICTIMS = (QEMU, "host2/storage", "host2/storage", "host1/storage", "host2/vm", "host1/api", "qemu-img")
_NOTICED_WITHIN = 60.0
_BROKEN = (*FAILED_CALL, AssertionError)
"""A shell whose console has ended asserts that it has not."""


def command(arguments: list[str]) -> int:
    """Returns the exit status: 1 when something is wrong."""
    parser = argparse.ArgumentParser(prog="python -m bench guest_storm", description=(__doc__ or "").split("\n\n")[2])
    parser.add_argument("--rounds", type=int, default=20, help="(%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of all that is random; 0: another one each time")
    given = parser.parse_args(arguments)
    seed = given.seed or random.randrange(1, 10**6)
    print(f"bench: guest storm: {given.rounds} rounds, seed {seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="bench-guest-"))
    with storm_pool.running(folder / "p", backend="qemu") as pool, ExitStack() as consoles:
        storm = GuestStorm(pool, seed, consoles)
        wrong = storm.run(given.rounds)
        if wrong:
            shutil.copytree(pool.directory, folder / "found", ignore=storm_remains.sockets, dirs_exist_ok=True)
    for each in wrong:
        print(f"bench: guest storm: {each}", file=sys.stderr)
    if wrong:
        print(f"bench: guest storm: everything is in {folder}; the seed is {seed}", file=sys.stderr)
        return 1
    shutil.rmtree(folder)
    return 0


class GuestStorm:
    def __init__(self, pool: StormPool, seed: int, consoles: ExitStack) -> None:
        self._pool, self._api, self._consoles = pool, pool.api, consoles
        self._random = random.Random(seed)
        self._machine = Machine(pool.pool, connect(pool.pool.env), "storm")
        self._vdi = self._machine.vdi
        self._contents = [Content(int(self._api("VDI.get_virtual_size", self._vdi)))]
        self._snapshots: dict[str, Content] = {}
        self._making: list[Content] = []
        self._doomed: set[str] = set()
        self._stamp = 0
        self._shell: Shell | None = None
        self._killed = "nobody"
        self._api("VM.set_actions_after_crash", self._machine.ref, "destroy")

    def run(self, rounds: int) -> list[str]:
        for number in range(1, rounds + 1):
            begun = time.monotonic()
            self._ready()
            booted = time.monotonic()
            killed, said = self._round()
            ended = time.monotonic()
            wrong = self._recovered()
            print(
                f"bench: guest storm: round {number}: boot {booted - begun:.1f} s, worked {ended - booted:.1f} s, "
                f"recovered and compared {time.monotonic() - ended:.1f} s; {len(self._snapshots)} snapshots; "
                f"killed {killed}; {said}",
                flush=True,
            )
            if wrong:
                return [f"round {number}: {each}" for each in wrong]
        return self._end()

    # ---- the guest

    def _ready(self) -> None:
        """It runs, and there is a shell."""
        if self._machine.state == "Halted":
            self._shell = None
            self._machine.start()
        if self._shell is None:
            self._consoles.close()
            self._shell = Shell(self._consoles.enter_context(self._machine.console()))
            return
        self._consoles.close()
        self._shell.go_on(self._consoles.enter_context(self._machine.console()))

    def _write(self) -> None:
        assert self._shell is not None
        content = self._contents[0]
        doublings = self._random.choice((0, 0, 2, 4, 8))
        first = self._random.randrange(0, content.size // BLOCK - (1 << doublings))
        self._stamp += 1
        digits = "".join(f"\\{byte:03o}" for byte in self._stamp.to_bytes(8))
        whole = (BLOCK // 8).bit_length() - 1 + doublings
        double = "cat /tmp/b /tmp/b >/tmp/c; mv /tmp/c /tmp/b"
        blocks = range(first, first + (1 << doublings))
        self._shell.run(f"printf '{digits}' >/tmp/b; n=0; while [ $n -lt {whole} ]; do {double}; n=$((n+1)); done")
        for number in blocks:
            content.may_be(number, self._stamp)
        self._shell.run(f"dd if=/tmp/b of=/dev/vda bs={BLOCK} seek={first} conv=notrunc,fsync 2>/dev/null")
        for number in blocks:
            content.is_now(number, self._stamp)

    # ---- steps

    def _round(self) -> tuple[str, str]:
        """Whom it has killed, and what was done."""
        self._killed = "nobody"
        killer = threading.Timer(self._random.uniform(0, 4), self._kill, (self._random.choice(VICTIMS),))
        killer.start()
        done: Counter[str] = Counter()
        try:
            for _ in range(STEPS):
                step = self._random.choice((self._write, self._write, self._write, self._snapshot, self._drop))
                step = self._grow if self._random.random() < 0.05 else step
                try:
                    step()
                except _BROKEN as error:
                    code = error.code if isinstance(error, Refused | ApiError) else type(error).__name__
                    done[f"{step.__name__.strip('_')} failed: {code}"] += 1
                    break
                done[step.__name__.strip("_")] += 1
        finally:
            killer.join()
        return self._killed, ", ".join(f"{number} {name}" for name, number in done.items())

    def _snapshot(self) -> None:
        if len(self._snapshots) >= SNAPSHOTS:
            return self._drop()
        content = self._contents[0].copy()
        self._making.append(content)
        ref = self._api("VDI.snapshot", self._vdi, {})
        self._making.remove(content)
        self._snapshots[ref] = content
        return None

    def _drop(self) -> None:
        if self._snapshots:
            ref = self._random.choice(list(self._snapshots))
            self._doomed.add(ref)
            self._api("VDI.destroy", ref)
            self._doomed.remove(ref)
            del self._snapshots[ref]

    def _grow(self) -> None:
        size = self._contents[0].size + MIB
        if size <= LARGEST:
            self._contents.append(self._contents[0].grown(size))
            self._api("VDI.resize_online", self._vdi, str(size))
            del self._contents[0]

    def _kill(self, victim: str) -> None:
        if "/" in victim:
            host, name = victim.split("/")
            pid = self._pool.pool.pid(name, host)
        elif victim == QEMU:
            pid = self._machine.process
        else:
            pid = self._met(victim)
        if pid:
            kill(pid)
            self._killed = victim

    def _met(self, program: str) -> int:
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            for pid in processes.marked(self._pool.directory):
                if (processes.command_line(pid) or [""])[0].endswith(program):
                    return pid
            time.sleep(0.01)
        return 0

    # ---- afterwards

    def _recovered(self) -> list[str]:
        self._pool.wait_ready()
        wrong = storm_remains.settled(self._unsettled, _NOTICED_WITHIN)
        wrong += self._found()
        halted = self._machine.state == "Halted"
        if halted:
            wrong += self._compare(self._vdi, self._contents, "the disk")
        else:
            self._contents = self._of_the_size()
            if len(self._snapshots) >= SNAPSHOTS:
                self._drop()
            self._snapshot()
            [ref] = list(self._snapshots)[-1:]
            held = [self._snapshots[ref]]
            wrong += self._compare(ref, held, "what runs")
            self._contents = [held[0].copy()]
        for ref in self._snapshots:
            held = [self._snapshots[ref]]
            wrong += self._compare(ref, held, "a snapshot")
            self._snapshots[ref] = held[0]
        return wrong

    def _unsettled(self) -> list[str]:
        """A killed QEMU is noticed; nobody works on disks; each host answers for its VMs."""
        for host in self._pool.uuids:
            self._pool.ask(host, LIST, Empty())
        running = self._machine.state == "Running"
        found = [] if running == bool(self._machine.process) else ["the VM's state is not that of its QEMU"]
        rows = self._api("VDI.get_all_records").values()
        found += [f"VDI {row['uuid']}: {row['current_operations']}" for row in rows if row["current_operations"]]
        wanted = {f"vbd/{self._api('VM.get_uuid', self._machine.ref)}/0"} if running else set()
        return found + [f"datapath {each.dp}" for each in self._pool.datapaths() if each.dp not in wanted]

    def _of_the_size(self) -> list[Content]:
        size = int(self._api("VDI.get_virtual_size", self._vdi))
        return [content for content in self._contents if content.size == size]

    def _found(self) -> list[str]:
        """Snapshots that nobody was told of."""
        rows = self._api("VDI.get_all_records")
        there = {ref for ref, row in rows.items() if row["snapshot_of"] == self._vdi}
        for ref in self._doomed:
            self._snapshots.pop(ref, None)
            if ref in there:
                self._api("VDI.destroy", ref)
        lost = self._snapshots.keys() - there
        unknown = there - self._snapshots.keys() - self._doomed
        self._doomed = set()
        wrong = [f"snapshot {ref} is lost" for ref in lost]
        for ref in unknown:
            if not self._making:
                wrong.append(f"snapshot {ref} was made by nobody")
            else:
                self._snapshots[ref] = self._making.pop()
        self._making = []
        return wrong

    def _compare(self, ref: str, contents: list[Content], what: str) -> list[str]:
        """Leaves the one that it was."""
        try:
            data = self._pool.content("host2", ref, format="raw")
        except FAILED_CALL as error:
            return [f"{what} {ref} cannot be read: {error}"]
        found, why = which(contents, data)
        if found is None:
            return [f"{what} {ref}: {why}"]
        contents[:] = [found]
        return []

    def _end(self) -> list[str]:
        if self._machine.state != "Halted":
            self._api("VM.hard_shutdown", self._machine.ref)
        self._api("VM.destroy", self._machine.ref)
        wrong: list[Any] = []
        for ref in (*self._snapshots, self._vdi):
            try:
                self._api("VDI.destroy", ref)
            except FAILED_CALL as error:
                wrong.append(f"{ref} cannot be destroyed: {error}")
        self._pool.repositories = self._pool.default_repository()
        return wrong + storm_remains.settled(lambda: storm_remains.left(self._pool))
