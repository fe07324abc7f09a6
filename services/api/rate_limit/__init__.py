"""Limits on how fast a caller may call: callers are recognised, counted, and delayed; nobody is refused."""
