"""What callers are told of a transfer that failed."""

from __future__ import annotations

import logging

from services.storage.plugins.errors import Failure, backend_failure, sr_full
from services.storage.repositories import Repositories
from services.storage.transfer.job import Failed, Way
from shared.errors import ApiError, internal_error

log = logging.getLogger("storage.transfer")


async def translated(failed: Failed, way: Way, repositories: Repositories, sr: str) -> ApiError:
    """`sr`: whose space it needed."""
    match failed.kind:
        case "full":
            log.warning("SR %s is full: %s", sr, failed.text)
            return await _full(repositories, sr)
        case "disk":
            return backend_failure(Failure.IO, f"the {way} of a disk failed", failed.text)
        case "format" if way == "import":
            return ApiError("IMPORT_ERROR", failed.text)
        case _:
            return internal_error(f"the {way} of a disk failed: {failed.text}")


async def _full(repositories: Repositories, sr: str) -> ApiError:
    try:
        stat = await repositories.stat(sr)
    except ApiError as error:
        return error
    free = stat.physical_size - stat.physical_utilisation
    return sr_full(free + 1, free)  # at least one byte more than there is
