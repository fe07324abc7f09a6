"""Script plug-ins of SMAPIv3."""
