"""Redo logs: what was acknowledged and is not yet in a file of all rows. One interface, several places to keep it."""
