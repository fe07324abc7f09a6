"""The XenAPI data model: what classes, fields and messages there are. Everything else about them derives from here.

from shared.datamodel import model
model.classes["VM"].fields["name_label"], model.message("VM.start")
"""

from __future__ import annotations

from typing import Final

from shared.datamodel.classes import DECLARATIONS
from shared.datamodel.derive import build
from shared.datamodel.schema import MISSING, Class, Field, Lifecycle, Message, Model, Param, Relation

__all__ = ["MISSING", "Class", "Field", "Lifecycle", "Message", "Model", "Param", "Relation", "model"]

model: Final[Model] = build(DECLARATIONS)
