"""What a test needs of an SR type (traits of `Entry`)."""

from __future__ import annotations

import pytest


def needs(*traits: str) -> pytest.MarkDecorator:
    return pytest.mark.needs(*traits)
