"""What the metrics service alone is told."""

from __future__ import annotations

import msgspec


class MetricsOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Seconds. `interval`: between two samples. `relist`: between two full lists of a host's VMs."""

    interval: float = 5.0
    relist: float = 60.0
