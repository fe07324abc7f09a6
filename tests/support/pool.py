"""Fixtures: a pool of processes for end-to-end tests."""
