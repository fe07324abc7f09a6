"""What a simulated guest shows on its serial console: a banner, a login prompt, an echo."""

from __future__ import annotations

from collections.abc import Callable

from services.vm.console import RecentOutput

PROMPT = b"tiny-guest login: "


class SimulatedTerminal:
    """`output`: where its output goes, besides `recent`."""

    def __init__(self, name_label: str) -> None:
        banner = f"\r\nA simulated guest: {name_label}\r\n\r\n".encode(errors="replace")
        self.recent = RecentOutput(banner + PROMPT)
        self.output: Callable[[bytes], None] = self.recent.add

    def typed(self, data: bytes) -> None:
        for byte in data:
            if byte in b"\r\n":
                self.output(b"\r\n" + PROMPT)
            else:
                self.output(bytes([byte]))
