"""Licensed features: what the pool's restrictions leave open. Ours restrict nothing, an imported database may."""

from __future__ import annotations

from services.api.decisions.rows import Rows, the_pool
from shared.errors import ApiError


def is_enabled(rows: Rows, feature: str) -> bool:
    """`feature`: as in `pool.restrictions`, without `restrict_`."""
    pool = the_pool(rows)
    return pool is not None and pool["restrictions"].get(f"restrict_{feature}") == "false"


def require(rows: Rows, feature: str, name: str) -> None:
    """`name`: what the error calls it. Raises LICENCE_RESTRICTION [name]."""
    if not is_enabled(rows, feature):
        raise ApiError("LICENCE_RESTRICTION", name)
