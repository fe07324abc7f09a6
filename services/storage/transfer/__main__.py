"""A worker: `python -m services.storage.transfer`, started by the storage service."""

from __future__ import annotations

import sys

import uvloop

from services.storage.transfer.worker import main

sys.exit(uvloop.run(main()))
