"""SMAPIv3, version 5.0."""
