"""Numbers in the parameters of errors."""

from __future__ import annotations


def float_text(value: float) -> str:
    """With its point even when it is whole, as the original writes floats."""
    text = f"{value:.12g}"
    return text if not text.lstrip("-").isdecimal() else f"{text}."
