"""The interfaces of storage plug-ins, by version."""
