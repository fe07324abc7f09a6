"""Races between hosts, and input that means harm."""
