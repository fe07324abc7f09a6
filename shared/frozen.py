"""Lists and maps that cannot be changed, so that many rows may hold the same one.

They are a `list` and a `dict` to whoever reads them, encoders included; copying one (`list(x)`, `{**x}`, `copy`,
`deepcopy`, pickling) gives a plain one that can be changed.
"""

from __future__ import annotations

from typing import Any, Final, NoReturn


def _refuse(self: object, *_: Any, **__: Any) -> NoReturn:
    raise TypeError("the values of a row are shared and cannot be changed: change a copy")


class FrozenList(list[Any]):
    """A list that stays as it was made."""

    __slots__ = ()

    append = extend = insert = remove = pop = clear = sort = reverse = _refuse
    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse

    def __reduce_ex__(self, _: Any) -> tuple[Any, ...]:
        return list, (list(self),)


class FrozenMap(dict[str, Any]):
    """A map that stays as it was made."""

    __slots__ = ()

    update = pop = popitem = clear = setdefault = _refuse
    __setitem__ = __delitem__ = __ior__ = _refuse

    def __reduce_ex__(self, _: Any) -> tuple[Any, ...]:
        return dict, (dict(self),)


EMPTY_LIST: Final = FrozenList()
EMPTY_MAP: Final = FrozenMap()
