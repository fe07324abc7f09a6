"""The text of one attribute: blanks guarded, since XML makes others of them, and what XML has signs of its own for."""

from __future__ import annotations

import re
from typing import Final

REPLACEMENT: Final = "\ufffd"
"""Instead of what XML cannot hold."""

_ESCAPED: Final = {"<": "&lt;", ">": "&gt;", "&": "&amp;", '"': "&quot;"}
_GUARDED: Final = {" ": "%.", "\t": "%t", "\n": "%n", "\r": "%r", "%": "%%"}
_RESTORED: Final = {sign[1]: blank for blank, sign in _GUARDED.items()} | {"_": "  "}
"""`%_` is two blanks: databases of before 2017 have it."""

_NOT_XML: Final = "\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff"
_UNHELD: Final = re.compile(f"[{_NOT_XML}]")
_IN_NAMES: Final = re.compile(f'[<>&"{_NOT_XML}]')
_IN_VALUES: Final = re.compile(f'[<>&" \t\n\r%{_NOT_XML}]')
_SIGN: Final = re.compile(r"%(.)", re.DOTALL)
_SIGNS: Final = _ESCAPED | _GUARDED


def _sign(found: re.Match[str]) -> str:
    return _SIGNS.get(found[0], REPLACEMENT)


def holdable(text: str) -> str:
    """The text with `REPLACEMENT` for what XML cannot hold; nothing is escaped."""
    return _UNHELD.sub(REPLACEMENT, text)


def name(text: str) -> str:
    """Of references, times and names: not guarded."""
    return _IN_NAMES.sub(_sign, text)


def value(text: str) -> str:
    """Of a column's text."""
    return _IN_VALUES.sub(_sign, text)


def unguarded(text: str) -> str:
    """A column's text from what an XML parser gives. A `%` that guards nothing stays as it is."""
    if "%" not in text:
        return text
    return _SIGN.sub(lambda found: _RESTORED.get(found[1], found[0]), text)
