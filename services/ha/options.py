"""What the ha service alone is told."""

from __future__ import annotations

import msgspec


class HaOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Seconds. `interval`: between a host's heartbeats. `limit`: of silence, after which a host is not live any more.

    `role_file`: says what the host is in its pool (`shared.host_role`); the coordinator's process also watches the
    heartbeats of all hosts. `coordinator`: the same without such a file.
    """

    role_file: str = ""
    coordinator: bool = False
    interval: float = 2.0
    limit: float = 10.0
