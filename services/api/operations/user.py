"""Messages of class user: rows that old clients keep; nobody logs in by them."""

from __future__ import annotations

from services.api.construct import plain_class

plain_class("user")
