"""What all hosts of the pool trust: the coordinator has the files, the other hosts get copies.

A change is made on every live host, the coordinator last; when one fails, it is taken back everywhere. A host
that was away asks for all of it when it starts.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from services.api.call import Call
from services.api.on_hosts import live_hosts, on_host
from shared.bus.contract import Empty
from shared.contracts.host import SERVER_CERTIFICATES, SET_TRUSTED, TRUSTED, Trust, TrustedFile, TrustedFiles

Decision = Callable[[TrustedFiles], TrustedFiles]


async def trusted(call: Call) -> TrustedFiles:
    """The coordinator's files."""
    return await on_host(call, call.api.host_ref, TRUSTED, Empty())


async def change(call: Call, decide: Decision) -> None:
    """One change at a time. `decide` raises to refuse. If the call fails, now or later, it is taken back."""
    async with call.api.turns.of("trust"):
        before = await trusted(call)
        after = decide(before)

        async def undo() -> None:
            async with call.api.turns.of("trust"):
                await send(call, taken_back(await trusted(call), before, after))

        call.undo.append(undo)
        await send(call, after)


async def send(call: Call, wanted: TrustedFiles) -> None:
    """To every live host."""
    for host in live_hosts(call):
        await on_host(call, host, SET_TRUSTED, wanted)


def taken_back(now: TrustedFiles, before: TrustedFiles, after: TrustedFiles) -> TrustedFiles:
    """As it is now, but what the change from `before` to `after` did. What others have changed since stays."""
    old, new = _by_name(before), _by_name(after)
    result = now
    for kind, name in old.keys() | new.keys():
        was = old.get((kind, name))
        if was == new.get((kind, name)):
            continue
        result = without_file(result, kind, name) if was is None else with_file(result, kind, name, was)
    return result


def _by_name(files: TrustedFiles) -> dict[tuple[Trust, str], str]:
    return {(file.kind, file.name): file.pem for file in files.files}


def named(files: TrustedFiles, kind: Trust) -> list[str]:
    return [file.name for file in files.files if file.kind == kind]


def with_file(files: TrustedFiles, kind: Trust, name: str, pem: str) -> TrustedFiles:
    others = without_file(files, kind, name).files
    return msgspec.structs.replace(files, files=[*others, TrustedFile(kind=kind, name=name, pem=pem)])


def without_file(files: TrustedFiles, kind: Trust, name: str) -> TrustedFiles:
    kept = [file for file in files.files if (file.kind, file.name) != (kind, name)]
    return msgspec.structs.replace(files, files=kept)


async def pool_certificates(call: Call) -> list[TrustedFile]:
    """What each live host shows the others, asked now."""
    found = []
    for host in live_hosts(call):
        shown = await on_host(call, host, SERVER_CERTIFICATES, Empty())
        name = f"{call.api.uuid_of('host', host)}.pem"
        found.append(TrustedFile(kind=Trust.POOL, name=name, pem=shown.internal))
    return found


async def distribute_pool_certificates(call: Call) -> None:
    """All hosts know all hosts."""
    fresh = await pool_certificates(call)

    def decide(files: TrustedFiles) -> TrustedFiles:
        for file in fresh:
            files = with_file(files, file.kind, file.name, file.pem)
        return files

    await change(call, decide)
