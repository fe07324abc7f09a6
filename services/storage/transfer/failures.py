"""What callers are told of a transfer that failed."""

from __future__ import annotations

import logging
from typing import Protocol

from services.storage.plugins.errors import Failure, backend_failure, sr_full
from services.storage.transfer.job import Failed, Way
from shared.contracts.storage import SrStat
from shared.errors import ApiError, internal_error

log = logging.getLogger("storage.transfer")


class Space(Protocol):
    """Who knows how full an SR is: of this host, or another."""

    async def stat(self, sr: str) -> SrStat: ...


async def translated(failed: Failed, way: Way, space: Space, sr: str) -> ApiError:
    """`sr`: whose space it needed."""
    match failed.kind:
        case "full":
            log.warning("SR %s is full: %s", sr, failed.text)
            return await _full(space, sr)
        case "disk":
            return backend_failure(Failure.IO, f"the {way} of a disk failed", failed.text)
        case "format" if way == "import":
            return ApiError("IMPORT_ERROR", failed.text)
        case _:
            return internal_error(f"the {way} of a disk failed: {failed.text}")


async def _full(space: Space, sr: str) -> ApiError:
    try:
        stat = await space.stat(sr)
    except ApiError as error:
        return error
    free = stat.physical_size - stat.physical_utilisation
    return sr_full(free + 1, free)  # at least one byte more than there is
