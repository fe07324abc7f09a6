"""A worker as its parent has it."""

from __future__ import annotations

from services.storage.transfer.job import Disk, Failed, Job
from services.storage.transfer.process import Worker


async def test_a_worker_that_was_killed_before_it_has_a_job_has_failed_at_it() -> None:
    worker = await Worker.start()
    worker.kill()
    await worker.ended
    worker.begin(Job("checksum", Disk("", 1)))
    failed = await worker.ready
    assert isinstance(failed, Failed)
    assert "ended early with status -9" in failed.text
