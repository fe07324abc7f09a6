"""Fixtures of the whole suite live in `tests/support`, one module for each thing a test may need."""

pytest_plugins = ["tests.support.broker", "tests.support.pool"]
