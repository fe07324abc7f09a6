"""Messages of class VM_group. Destroying a group leaves its reference in `VM.groups`, as with the original."""

from __future__ import annotations

from services.api.construct import plain_class

plain_class("VM_group")
