"""Crash tests of the database: clients write, something is killed, a checker looks at the recorded history."""
