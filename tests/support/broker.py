"""Fixtures: a private RabbitMQ node for the tests that need a real broker."""
