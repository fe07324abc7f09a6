"""`--option KEY VALUE` on a command line."""

from __future__ import annotations

import argparse
from typing import Any


class ListAction(argparse.Action):
    """May be repeated; gathered in one dict."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        gathered = getattr(namespace, self.dest, None) or {}
        setattr(namespace, self.dest, {**gathered, values[0]: values[1]})
