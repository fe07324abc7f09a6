"""What clients hear of changes: `event.from`, and the older `event.register` and `event.next`."""

from services.api.events.encoding import relayed
from services.api.events.hub import EventHub
from services.api.events.tokens import Token

__all__ = ["EventHub", "Token", "relayed"]
