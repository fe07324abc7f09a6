"""`python -m bench storage_storm`: what disks hold after storms of work on them in which everything is killed.

    python -m bench storage_storm [--rounds 40] [--seed N] [--kills 2] [--scripts]

A pool of two hosts; clients write numbered blocks through NBD, snapshot, clone, grow, revert, copy between SRs and
hosts, export and import whole disks and differences, and destroy snapshots so that images are merged. Meanwhile
services, workers and programs get kill -9. After each round the pool has to answer, and every disk to hold what was
acknowledged; blocks that were under way may be old or new. At the end everything is destroyed, and nothing may be left.
Only run when it is named.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench import storm_pool, storm_remains
from bench.storm_content import which
from bench.storm_kills import Killer
from bench.storm_pool import FAILED_CALL, StormPool
from bench.storm_steps import Client, Disk, Making

CLIENTS = 3
STEPS = 20
"""Of a client in a round."""
OVER = 3.0
"""Seconds over which the kills of a round are spread."""


def command(arguments: list[str]) -> int:
    """Returns the exit status: 1 when something is wrong."""
    parser = argparse.ArgumentParser(prog="python -m bench storage_storm", description=(__doc__ or "").split("\n\n")[2])
    parser.add_argument("--rounds", type=int, default=40, help="(%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of all that is random; 0: another one each time")
    parser.add_argument("--kills", type=int, default=2, help="in each round (%(default)s)")
    parser.add_argument("--scripts", action="store_true", help="with an SR of a plug-in, whose scripts are killed too")
    given = parser.parse_args(arguments)
    seed = given.seed or random.randrange(1, 10**6)
    print(f"bench: storm: {given.rounds} rounds, seed {seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="bench-storm-"))
    with storm_pool.running(folder / "p", scripts=given.scripts) as pool:
        storm = Storm(pool, folder, seed, given.kills)
        wrong = storm.run(given.rounds)
        if wrong:
            shutil.copytree(pool.directory, folder / "found", ignore=storm_remains.sockets, dirs_exist_ok=True)
    wrong += [f"loop device {name}" for name in storm_remains.loop_devices(folder)]
    wrong += [f"mounted: {path}" for path in storm_remains.mounts(folder)]
    print(storm.summary())
    for each in wrong:
        print(f"bench: storm: {each}", file=sys.stderr)
    if wrong:
        again = f"python -m bench storage_storm --rounds {given.rounds} --seed {seed} --kills {given.kills}"
        again += " --scripts" if given.scripts else ""
        print(f"bench: storm: everything is in {folder}; again: {again}", file=sys.stderr)
        return 1
    shutil.rmtree(folder)
    return 0


class Storm:
    def __init__(self, pool: StormPool, folder: Path, seed: int, kills: int) -> None:
        self._pool, self._folder, self._kills = pool, folder, kills
        self._random = random.Random(seed)
        self._disks: list[list[Disk]] = [[] for _ in range(CLIENTS)]
        self._done: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()
        self._killed: Counter[str] = Counter()
        self._late: list[Making] = []
        """Of SRs of plug-ins: what they have made for a call that was cut off has a row when they are scanned."""
        self._compared = self._round = 0
        self._slowest = 0.0

    def run(self, rounds: int) -> list[str]:
        """What is wrong; ends with the first round in which something is."""
        self._pool.make_repositories()
        for self._round in range(1, rounds + 1):
            if wrong := self._one():
                return [f"round {self._round}: {each}" for each in wrong]
        return self._end()

    def summary(self) -> str:
        def words(counted: Counter[str]) -> str:
            return ", ".join(f"{number} {name}" for name, number in counted.most_common()) or "none"

        return (
            f"rounds: {self._round}; disks compared: {self._compared}; slowest recovery: {self._slowest:.1f} s\n"
            f"steps: {words(self._done)}\nfailed: {words(self._failures)}\nkilled: {words(self._killed)}"
        )

    def _one(self) -> list[str]:
        begun = time.monotonic()
        clients = [
            Client(self._pool, self._folder, self._random.randrange(1 << 32), f"c{number}", disks, STEPS)
            for number, disks in enumerate(self._disks)
        ]
        killer = Killer(self._pool.pool, self._random.randrange(1 << 32), self._kills, OVER)
        for thread in (*clients, killer):
            thread.start()
        for client in clients:
            client.join()
        killer.stop()
        ended = time.monotonic()
        for client in clients:
            if client.broken is not None:
                raise client.broken
            self._done += client.done
            self._failures += client.failures
        self._killed += killer.killed
        self._pool.wait_ready()
        unfinished = storm_remains.settled(lambda: storm_remains.unfinished(self._pool))
        recovered = time.monotonic()
        self._slowest = max(self._slowest, recovered - ended)
        wrong = unfinished + self._reconcile(clients) + self._compare()
        wrong += storm_remains.settled(lambda: storm_remains.strays(self._pool), 20.0)
        print(
            f"bench: storm: round {self._round}: {sum(map(len, self._disks))} disks, worked {ended - begun:.1f} s, "
            f"recovered {recovered - ended:.1f} s, compared {time.monotonic() - recovered:.1f} s; "
            f"killed {', '.join(killer.killed.elements()) or 'nobody'}; "
            f"failed {', '.join(name for client in clients for name in client.failures) or 'nothing'}",
            flush=True,
        )
        return wrong

    # ---- which disks there are

    def _rows(self) -> dict[str, dict[str, Any]]:
        places = {place.ref for place in self._pool.repositories}
        rows: dict[str, dict[str, Any]] = self._pool.api("VDI.get_all_records")
        return {ref: row for ref, row in rows.items() if row["SR"] in places}

    def _reconcile(self, clients: list[Client]) -> list[str]:
        """Disks that nobody was told of, and those that were destroyed with nobody being told."""
        rows = self._rows()
        wrong = []
        for disks in self._disks:
            for disk in [disk for disk in disks if disk.ref not in rows]:
                disks.remove(disk)
                if not disk.doomed:
                    wrong.append(f"{disk.ref} is lost: {disk.history}")
            for disk in [disk for disk in disks if disk.doomed]:
                self._pool.api("VDI.destroy", disk.ref)
                disks.remove(disk)
        known = {disk.ref for disks in self._disks for disk in disks}
        for ref in self._rows().keys() - known:
            if why := storm_remains.settled(lambda ref=ref: self._adopt(ref, clients), 30.0):  # type: ignore[misc]
                wrong += why
        self._late += [making for client in clients for making in client.making if making.places[0].scripts]
        return wrong

    def _adopt(self, ref: str, clients: list[Client]) -> list[str]:
        """Whoever was making it gets it, if it is whole."""
        row = self._rows().get(ref)
        if row is None:
            return []  # removed meanwhile, as what was only half there is
        reasons = []
        for client in clients:
            for making in (*client.making, *self._late):
                if making.name != row["name_label"] or row["SR"] not in [place.ref for place in making.places]:
                    continue
                place = next(place for place in making.places if place.ref == row["SR"])
                base = making.base if row["is_a_snapshot"] else None
                disk = Disk(ref, making.name, place, making.contents, base, history=[making.what, "adopted"])
                if not (wrong := self._wrong(disk)):
                    (client.making if making in client.making else self._late).remove(making)
                    client.disks.append(disk)
                    return []
                reasons += wrong
        return reasons or [f"{ref} ({row['name_label']}) was made by nobody"]

    # ---- what they hold

    def _compare(self) -> list[str]:
        disks = [disk for disks in self._disks for disk in disks]
        with ThreadPoolExecutor(3) as threads:
            return [each for found in threads.map(self._wrong, disks) for each in found]

    def _wrong(self, disk: Disk) -> list[str]:
        host = self._random.choice(disk.place.hosts)
        try:
            data = self._pool.content(host, disk.ref, format="raw")
        except FAILED_CALL as error:
            return [f"{disk.ref} cannot be read: {error}; {disk.history}"]
        self._compared += 1
        found, why = which(disk.contents, data)
        if found is None:
            return [f"{disk.ref} at {host}: {why}; {disk.history}"]
        disk.contents = [found]
        return []

    # ---- the end

    def _end(self) -> list[str]:
        for place in self._pool.repositories:
            self._pool.api("SR.scan", place.ref)
        wrong = [f"{ref} came with a scan" for ref in self._rows().keys() - {d.ref for ds in self._disks for d in ds}]
        for ref in self._rows():
            try:
                self._pool.api("VDI.destroy", ref)
            except FAILED_CALL as error:
                wrong.append(f"{ref} cannot be destroyed: {error}")
        wrong += storm_remains.settled(lambda: storm_remains.left(self._pool))
        self._pool.remove_repositories()
        return wrong + [f"mounted: {path}" for path in storm_remains.mounts(self._pool.directory)]
