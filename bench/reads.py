"""`python -m bench.reads`: look-ups of one API process, small ones and those of ten thousand VMs, and its memory.

Each figure is the best of some rounds, and the servers that answer a constant (`bench.floor`) take their rounds in
between, so that all have seen the same machine. CPU is the API process's own. Upstream's figures are constants.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import time
import xmlrpc.client
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import uvloop

from bench import floor
from bench.__main__ import table
from bench.coordinator import ADDRESS, PASSWORD, USER, Coordinator, running
from bench.event_clients import Client, connect
from bench.event_clients import call as json_call
from bench.floor import SMALL, Measured
from bench.result import Result

ROUNDS = 5
CALLS = 300
"""In one round, one after the other."""
STORM_SECONDS = 0.2
CLIENTS = (1, 4, 64)
LOGINS = 60
MEANWHILE_SECONDS = 1.5
NO_INDEX = 'field "is_a_template"="true" and field "is_control_domain"="false"'
FEW, MOST = 1000, 10_000
"""VMs."""
LARGE_ROUNDS = 5

UPSTREAM_CPU_US = {
    "pool.get_all JSON": 240.0,
    "pool.get_all XML": 240.0,
    "VM.get_record JSON": 270.0,
    "VM.get_record XML": 470.0,
    "VM.get_power_state JSON": 250.0,
    "VM.get_power_state XML": 250.0,
}
UPSTREAM_RATE = {1: 2900.0, 4: 3900.0}
UPSTREAM_LOGIN_MS = 1.8
UPSTREAM_ALL_MS = {(1000, "JSON"): 127.0, (1000, "XML"): 142.0, (10_000, "JSON"): 3600.0, (10_000, "XML"): 5100.0}
AIM_ALL_MS = {(1000, "JSON"): 127.0 / 15, (1000, "XML"): 142.0 / 15, (10_000, "JSON"): 150.0, (10_000, "XML"): 150.0}
UPSTREAM_BY_NAME_MS = 20.0
UPSTREAM_RESIDENT = {1000: 317.0, 10_000: 1656.0}
AIM_RESIDENT = {1000: 317.0, 10_000: 800.0}

Servers = dict[str, Measured]


class Sample(NamedTuple):
    """Microseconds: CPU of the server for one call, median and 99th percentile as the client sees them."""

    cpu: float
    p50: float
    p99: float


def xml_call(method: str, *params: Any) -> bytes:
    """An XML-RPC request as Python's client sends it."""
    body = xmlrpc.client.dumps(params, method).encode()
    head = f"POST / HTTP/1.1\r\nHost: bench\r\nContent-Type: text/xml\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


REQUESTS: dict[str, Callable[..., bytes]] = {"JSON": json_call, "XML": xml_call}


def bare_call(length: int) -> bytes:
    """For `floor`: so many bytes."""
    return b"POST /%d HTTP/1.1\r\nHost: bench\r\nContent-Length: 0\r\n\r\n" % length


def measured(coordinator: Coordinator) -> Measured:
    return Measured(coordinator.processes["api"].pid, coordinator.port, ADDRESS)


# ---- small calls


async def one_by_one(server: Measured, request: bytes, calls: int = CALLS) -> Sample:
    client = await connect(server.host, server.port)
    for _ in range(20):
        await client.send(request)
    times = []
    before = server.cpu
    for _ in range(calls):
        begin = time.perf_counter()
        await client.send(request)
        times.append((client.answered_at - begin) * 1e6)
    cpu = (server.cpu - before) / calls * 1e6
    client.transport.close()
    times.sort()
    return Sample(cpu, times[calls // 2], times[int(calls * 0.99)])


async def storm(server: Measured, request: bytes, clients: int) -> float:
    """Calls per second with so many clients, each of which waits for its answer."""
    some = [await connect(server.host, server.port) for _ in range(clients)]
    done = 0
    until = time.perf_counter() + STORM_SECONDS

    async def work(client: Client) -> None:
        nonlocal done
        while time.perf_counter() < until:
            await client.send(request)
            done += 1

    begin = time.perf_counter()
    await asyncio.gather(*map(work, some))
    spent = time.perf_counter() - begin
    for client in some:
        client.transport.close()
    return done / spent


def best(samples: list[Sample]) -> Sample:
    return Sample(min(s.cpu for s in samples), min(s.p50 for s in samples), min(s.p99 for s in samples))


async def small_calls(api: Measured, servers: Servers, session: str, vm: str) -> list[Result]:
    plans: dict[str, tuple[Measured, bytes]] = {
        "socket alone": (servers["socket"], bare_call(SMALL)),
        "bare uvicorn": (servers["bare"], bare_call(SMALL)),
    }
    for method, *params in (("pool.get_all",), ("VM.get_record", vm), ("VM.get_power_state", vm)):
        for kind, make in REQUESTS.items():
            plans[f"{method} {kind}"] = (api, make(method, session, *params))
    samples: dict[str, list[Sample]] = {name: [] for name in plans}
    rates: dict[str, dict[int, float]] = {name: dict.fromkeys(CLIENTS, 0.0) for name in plans}
    for _ in range(ROUNDS):
        for name, (server, request) in plans.items():
            samples[name].append(await one_by_one(server, request))
            if not name.endswith("XML"):
                for clients in CLIENTS:
                    rates[name][clients] = max(rates[name][clients], await storm(server, request, clients))
    found = {name: best(each) for name, each in samples.items()}
    bare, wire = found["bare uvicorn"], found["socket alone"]
    print("bench: small calls, best of rounds; rates with 1, 4 and 64 clients, which share the machine with the server")
    print(f"  {'call':24} {'CPU us':>7} {'p50 us':>7} {'p99 us':>7} {'x bare':>7} {'x socket':>8}  calls/s")
    for name, sample in found.items():
        shown = " ".join(f"{value:7,.0f}" for value in rates[name].values() if value)
        print(
            f"  {name:24} {sample.cpu:7.1f} {sample.p50:7.0f} {sample.p99:7.0f} {sample.cpu / bare.cpu:7.2f}"
            f" {sample.cpu / wire.cpu:8.2f}  {shown}"
        )
    results = [
        Result(
            name=f"{name}, CPU",
            value=found[name].cpu,
            unit="us",
            reference_name="upstream (noted)",
            reference=upstream,
            aim=0.5,
        )
        for name, upstream in UPSTREAM_CPU_US.items()
    ]
    rate = rates["pool.get_all JSON"]
    results += [
        Result(
            name=f"{name}, CPU",
            value=found[name].cpu,
            unit="us",
            reference_name="bare uvicorn",
            reference=bare.cpu,
        )
        for name in ("pool.get_all JSON", "VM.get_record XML")
    ]
    results += [
        Result(
            name=f"pool.get_all, {clients} clients",
            value=rate[clients],
            unit="/s",
            reference_name="upstream (noted)",
            reference=upstream,
            aim=1.0,
            better="more",
        )
        for clients, upstream in UPSTREAM_RATE.items()
    ]
    results.append(
        Result(
            name="pool.get_all, 64 clients",
            value=rate[64],
            unit="/s",
            reference_name="with 4 clients",
            reference=rate[4],
            aim=1.0,
            better="more",
        )
    )
    return results


async def logins(api: Measured) -> list[Result]:
    client = await connect(api.host, api.port)
    times = []
    before = api.cpu
    for number in range(LOGINS + 5):
        begin = time.perf_counter()
        session = await client.ask("session.login_with_password", USER, PASSWORD, "1.0", f"bench {number % 5}")
        if number >= 5:
            times.append((time.perf_counter() - begin) * 1000)
        await client.ask("session.logout", session)
    cpu = (api.cpu - before) / (LOGINS + 5) * 1000
    client.transport.close()
    print(f"bench: login and logout: {cpu:.2f} ms CPU, login best {min(times):.2f} ms")
    return [
        Result(
            name="session.login_with_password p50",
            value=statistics.median(times),
            unit="ms",
            reference_name="upstream (noted)",
            reference=UPSTREAM_LOGIN_MS,
            aim=1.0,
        )
    ]


# ---- many rows at once


class Large(NamedTuple):
    """Of one answer: milliseconds until the client has all of it, of the API's CPU, and megabytes."""

    wall: float
    cpu: float
    size: float


async def fetch(server: Measured, request: bytes) -> Large:
    client = await connect(server.host, server.port)
    before = server.cpu
    begin = time.perf_counter()
    await client.send(request)
    wall = (client.answered_at - begin) * 1000
    cpu = (server.cpu - before) * 1000
    size = sum(map(len, client._received)) / 1e6
    client.transport.close()
    return Large(wall, cpu, size)


def best_large(found: list[Large]) -> Large:
    return Large(min(f.wall for f in found), min(f.cpu for f in found), found[0].size)


def in_loop(work: Awaitable[Any]) -> Any:
    async def wait() -> Any:
        return await work

    return uvloop.run(wait())


def all_records(coordinator: Coordinator, servers: Servers, session: str) -> list[Result]:
    """`get_all_records`: encoded before; after a start; with some rows changed; with all."""
    count = len(coordinator.vms)
    results: list[Result] = []
    # What is changed before each time, and how often: the API has just been started when this begins.
    states: dict[str, tuple[list[str], int]] = {
        "after a start": ([], 1),
        "nothing changed": ([], LARGE_ROUNDS),
        "1% changed": (coordinator.vms[::100], 3),
        "all changed": (coordinator.vms, 1 if count == MOST else 3),
    }
    found: dict[tuple[str, str], Large] = {}
    for state, (changed, rounds) in states.items():
        samples: dict[str, list[Large]] = {kind: [] for kind in REQUESTS}
        for _ in range(rounds):
            if changed:
                coordinator.change(changed)
            for kind, request in REQUESTS.items():
                asked = request("VM.get_all_records", session)
                samples[kind].append(in_loop(fetch(measured(coordinator), asked)))
        found |= {(kind, state): best_large(each) for kind, each in samples.items()}
    print(f"bench: VM.get_all_records of {count} VMs")
    for kind in REQUESTS:
        size = found[kind, "nothing changed"].size
        many = [in_loop(fetch(servers["bare"], bare_call(int(size * 1e6)))) for _ in range(LARGE_ROUNDS)]
        constant = best_large(many)
        print(f"  {kind:5} {'bare uvicorn, as many bytes':28} {constant.wall:8.1f} ms, CPU {constant.cpu:7.1f} ms")
        for state in states:
            large = found[kind, state]
            print(f"  {kind:5} {state:28} {large.wall:8.1f} ms, CPU {large.cpu:7.1f} ms, {large.size:.1f} MB")
        large, upstream, aim = found[kind, "nothing changed"], UPSTREAM_ALL_MS[count, kind], AIM_ALL_MS[count, kind]
        shown = (
            (f"get_all_records of {count:,} VMs, {kind}", large.wall, aim / upstream),
            ("  its CPU", large.cpu, aim / upstream),
            ("  CPU, 1% changed", found[kind, "1% changed"].cpu, aim / upstream),
            ("  CPU, all changed", found[kind, "all changed"].cpu, None),
            ("  CPU, after a start", found[kind, "after a start"].cpu, None),
        )
        results += [
            Result(name=name, value=value, unit="ms", reference_name="upstream (noted)", reference=upstream, aim=wanted)
            for name, value, wanted in shown
        ]
        results.append(
            Result(name="  its CPU", value=large.cpu, unit="ms", reference_name="bare uvicorn", reference=constant.cpu)
        )
    return results


async def searches(api: Measured, bare: Measured, session: str, vms: int) -> float:
    """Look-ups by name, whose time must not depend on the number of VMs; others are only shown.

    Returns the CPU of `get_by_name_label`, in that of a call to bare uvicorn: machines have moods between two of these.
    """
    name = f"vm-{vms // 2:05d}"
    calls = {
        "VM.get_by_name_label": json_call("VM.get_by_name_label", session, name),
        "get_all_records_where name": json_call("VM.get_all_records_where", session, f'field "name__label"="{name}"'),
        "get_all_where, no index": json_call("VM.get_all_where", session, NO_INDEX),
        "bare uvicorn": bare_call(SMALL),
    }
    samples: dict[str, list[Sample]] = {what: [] for what in calls}
    for _ in range(3 * ROUNDS):
        for what, request in calls.items():
            count = 2 if what.endswith("no index") else 60
            samples[what].append(await one_by_one(bare if what == "bare uvicorn" else api, request, count))
    found = {what: best(each) for what, each in samples.items()}
    for what, sample in found.items():
        print(f"bench: {what} among {vms} VMs: CPU {sample.cpu:.1f} us, p50 {sample.p50:.0f} us")
    return found["VM.get_by_name_label"].cpu / found["bare uvicorn"].cpu


async def meanwhile(api: Measured, session: str, server: Measured, request: bytes) -> tuple[float, int]:
    """99th percentile in milliseconds of a small getter while another client fetches that again and again; how often
    it did.
    """
    other = await connect(server.host, server.port)
    client = await connect(api.host, api.port)
    small = json_call("pool.get_all", session)
    fetched = 0

    async def work() -> None:
        nonlocal fetched
        while True:
            await other.send(request)
            fetched += 1

    fetching = asyncio.create_task(work())
    times = []
    until = time.perf_counter() + MEANWHILE_SECONDS
    while time.perf_counter() < until:
        begin = time.perf_counter()
        await client.send(small)
        times.append((client.answered_at - begin) * 1000)
        await asyncio.sleep(0.001)
    fetching.cancel()
    await asyncio.gather(fetching, return_exceptions=True)
    for one in (other, client):
        one.transport.close()
    times.sort()
    return times[int(len(times) * 0.99)], fetched


def others_meanwhile(coordinator: Coordinator, servers: Servers, session: str) -> list[Result]:
    """Beside the same with uvicorn sending as many bytes: the client and the kernel are as busy, and the API is not."""
    api, results = measured(coordinator), []
    for kind, request in REQUESTS.items():
        asked = request("VM.get_all_records", session)
        size = in_loop(fetch(api, asked)).size
        p99, fetched = in_loop(meanwhile(api, session, api, asked))
        constant, other = in_loop(meanwhile(api, session, servers["bare"], bare_call(int(size * 1e6))))
        print(
            f"bench: pool.get_all while a client fetches {len(coordinator.vms)} VMs ({kind}) {fetched} times: p99"
            f" {p99:.1f} ms; while it fetches as much from uvicorn {other} times: {constant:.1f} ms"
        )
        results.append(
            Result(
                name=f"others' p99 during 10,000 VMs, {kind}",
                value=p99,
                unit="ms",
                reference_name="uvicorn sends them",
                reference=constant,
            )
        )
    return results


# ---- memory


def memory(coordinator: Coordinator, session: str) -> list[Result]:
    """With everything encoded in both ways, which is the most it can come to."""
    count = len(coordinator.vms)
    begun = coordinator.resident
    for kind, request in REQUESTS.items():
        in_loop(fetch(measured(coordinator), request("VM.get_all_records", session)))
        print(f"bench: {count} VMs: {coordinator.resident:.0f} MiB with the records of all VMs in {kind} too")
    for cls in ("VBD", "VIF", "VDI", "VM_metrics", "VM_guest_metrics", "console"):
        for request in REQUESTS.values():
            in_loop(fetch(measured(coordinator), request(f"{cls}.get_all_records", session)))
    full = coordinator.resident
    print(f"bench: {count} VMs: {full:.0f} MiB with the records of all other rows too, {begun:.0f} MiB at first")
    return [
        Result(
            name=f"API process with {count:,} VMs",
            value=full,
            unit="MiB",
            reference_name="upstream (noted)",
            reference=UPSTREAM_RESIDENT[count],
            aim=AIM_RESIDENT[count] / UPSTREAM_RESIDENT[count],
        )
    ]


# ---- the table


def of_size(coordinator: Coordinator, servers: Servers, vms: int) -> tuple[list[Result], float]:
    """With so many VMs: `get_all_records`, searches, memory."""
    empty = coordinator.resident
    coordinator.populate(vms)
    coordinator.restart_api()
    session = coordinator.login()
    rows = vms * 7
    print(f"bench: {vms} VMs, {rows} rows: {coordinator.resident:.0f} MiB after a start, {empty:.0f} MiB before")
    results = all_records(coordinator, servers, session)
    found = in_loop(searches(measured(coordinator), servers["bare"], session, vms))
    if vms == MOST:
        results += others_meanwhile(coordinator, servers, session)
    return [*results, *memory(coordinator, session)], found


def main() -> list[Result]:
    os.environ.pop("PYTHONASYNCIODEBUG", None)
    with floor.running() as servers, running() as coordinator:
        few, among_few = of_size(coordinator, servers, FEW)
        session = coordinator.login()
        results = uvloop.run(small_calls(measured(coordinator), servers, session, coordinator.vms[0]))
        results += uvloop.run(logins(measured(coordinator)))
        many, among_many = of_size(coordinator, servers, MOST)
    results += [*few, *many]
    results.append(
        Result(
            name="get_by_name_label among 10,000, CPU",
            value=among_many,
            unit="x bare",
            reference_name="among 1,000",
            reference=among_few,
            aim=1.5,
        )
    )
    return results


if __name__ == "__main__":
    argparse.ArgumentParser(prog="python -m bench.reads", description=__doc__).parse_args()
    print(table(main()))
