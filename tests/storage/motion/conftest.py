from __future__ import annotations

from tests.vm.conftest import guest_dir, short_folder

__all__ = ["guest_dir", "short_folder"]
