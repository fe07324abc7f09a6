"""Alerts from the bus: stored as XenAPI messages, delivered to consumers outside the pool."""
