"""The failures of plug-ins, as catalogue errors.

Numbers are those of the SR_BACKEND_FAILURE_<n> family that the SM drivers use for the same thing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

from services.storage.plugins.interface import Unimplemented
from shared.errors import ApiError

log = logging.getLogger("storage.plugins")


class Failure(IntEnum):
    INVALID_ARGUMENT = 1
    NO_SUCH_DEVICE = 19
    INVALID_SECRET = 20
    SR_SCAN = 40
    SR_EXISTS = 42
    VDI_EXISTS = 43
    SR_UNAVAILABLE = 47
    LVM_CREATE = 50
    LVM_DELETE = 51
    MOUNT = 52
    UNMOUNT = 53
    FILESYSTEM_CREATE = 57
    LVM_RESIZE = 59
    SR_CREATE = 61
    SR_DELETE = 63
    VDI_LOAD = 65
    NFS_VERSION = 72
    NFS_MOUNT = 73
    NFS_UNMOUNT = 74
    LVM_GROUP_CREATE = 77
    VDI_CREATE = 78
    VDI_SIZE = 79
    VDI_DELETE = 80
    VDI_CLONE = 81
    VDI_SNAPSHOT = 82
    NFS_CREATE = 88
    DEVICE_MISSING = 90
    DEVICE_INVALID = 91
    LOCATION_MISSING = 94
    SERVERPATH_MISSING = 101
    SERVER_MISSING = 102
    SERVERPATH_INVALID = 103
    NFS_TARGET = 108
    CHAIN_TOO_LONG = 109
    VDI_RESIZE = 110
    SMB_MOUNT = 111
    SMB_UNMOUNT = 112
    PARAMETERS_MISSING = 115
    SMB_CREATE = 116
    IO = 200
    ISO_MOUNT = 222
    ISO_UNMOUNT = 223
    ISO_LOCATION_INVALID = 225
    ISO_PATH_INVALID = 226
    ISO_SMB_VERSION = 227
    CBT_SIZES = 459
    CHANGED_BLOCKS = 460
    NO_WRITE = 461


def backend_failure(number: Failure, text: object, detail: object = "") -> ApiError:
    """SR_BACKEND_FAILURE_<n> ["", text, detail]."""
    return ApiError(f"SR_BACKEND_FAILURE_{int(number)}", "", text, detail)


def is_of_medium(error: BaseException) -> bool:
    """Whether an SR's medium is gone, broken or takes no writes, so that no plug-in can do better."""
    return isinstance(error, ApiError) and error.code in _OF_MEDIUM


_OF_MEDIUM = frozenset(
    f"SR_BACKEND_FAILURE_{number:d}" for number in (Failure.SR_UNAVAILABLE, Failure.IO, Failure.NO_WRITE)
)


def plugin_failed(reason: object, output: object = "") -> ApiError:
    """SR_BACKEND_FAILURE [reason, "", output]: a program did not run, or not to its end."""
    return ApiError("SR_BACKEND_FAILURE", reason, "", output)


def volume_missing(sr: str, key: str) -> ApiError:
    return ApiError("VDI_MISSING", sr, key)


def sr_full(requested: int, maximum: int) -> ApiError:
    """Bytes."""
    return ApiError("SR_FULL", requested, maximum)


def in_use(key: str, operation: str) -> ApiError:
    return ApiError("VDI_IN_USE", key, operation)


def unimplemented(sr: str) -> ApiError:
    """The SR's plug-in lacks a method: callers that know another way take it."""
    return ApiError("UNIMPLEMENTED_IN_SM_BACKEND", sr)


@contextmanager
def implemented(sr: str) -> Iterator[None]:
    """What the plug-in of an SR (or of a type) lacks is an error of the catalogue for the caller."""
    try:
        yield
    except Unimplemented as error:
        log.info("SR %s: %s", sr, error)
        raise unimplemented(sr) from error
