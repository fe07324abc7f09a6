"""Who has what activated, in the memory of one process: for SR types whose disks only the hosts of that process see."""

from __future__ import annotations

from services.storage.plugins.interface import ActivatedOnAnotherHost, Domain, Held


class Holders:
    """By URI. Methods raise `ActivatedOnAnotherHost` where two would write."""

    def __init__(self) -> None:
        self._held: dict[str, dict[str, Held]] = {}

    def acquire(self, key: str, uri: str, domain: Domain, writable: bool) -> None:
        """This host's own earlier activation gives way."""
        holders = self._held.setdefault(uri, {})
        for host, held in holders.items():
            if host != domain.host and (held.writable or writable):
                raise ActivatedOnAnotherHost(host, held.dp)
        holders[domain.host] = Held(key=key, uri=uri, dp=domain.dp, writable=writable)

    def release(self, uri: str, host: str) -> None:
        holders = self._held.get(uri, {})
        holders.pop(host, None)
        if not holders:
            self._held.pop(uri, None)

    def of(self, host: str, prefix: str) -> list[Held]:
        """What a host has activated, of URIs that begin so."""
        mine = [holders.get(host) for uri, holders in self._held.items() if uri.startswith(prefix)]
        return [held for held in mine if held is not None]

    def fence(self, host: str, prefix: str) -> int:
        held = self.of(host, prefix)
        for each in held:
            self.release(each.uri, host)
        return len(held)
