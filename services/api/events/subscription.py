"""What a client wants to hear of: the filters of `event.from` and `event.register` (`wire-protocol` 7.1)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from shared.datamodel import model

MESSAGE: Final = "message"

CLASSES: Final = {name.lower(): name for name, cls in model.classes.items() if cls.gen_events or name == MESSAGE}
"""Lower-cased name, as events carry it, to class."""

TOLD: Final = frozenset(CLASSES.values())
"""Classes that have events."""


@dataclass(frozen=True, slots=True)
class Subscription:
    """`everything`: `*`. `classes`, `objects`: names as in the model. Names that are no class match nothing."""

    everything: bool
    classes: frozenset[str]
    objects: frozenset[tuple[str, str]]
    only_tasks: bool
    """Whoever follows tasks and nothing else: such calls are never held back."""

    @staticmethod
    def parse(texts: Iterable[str]) -> Subscription:
        """`*`, `class` and `class/ref`: classes in any case, references exactly."""
        everything = False
        only_tasks = True
        classes: set[str] = set()
        objects: set[tuple[str, str]] = set()
        for text in texts:
            if text == "*":
                everything, only_tasks = True, False
                continue
            name, slash, ref = text.partition("/")
            cls = CLASSES.get(name.lower())
            only_tasks = only_tasks and cls == "task"
            if cls is None:
                continue
            if slash:
                objects.add((cls, ref))
            else:
                classes.add(cls)
        wanted = TOLD if everything else frozenset(classes)
        return Subscription(everything, wanted, frozenset(o for o in objects if o[0] not in wanted), only_tasks)

    def wants(self, cls: str, ref: str) -> bool:
        return cls in self.classes or (cls, ref) in self.objects

    @property
    def wants_messages(self) -> bool:
        return MESSAGE in self.classes or any(cls == MESSAGE for cls, _ in self.objects)
