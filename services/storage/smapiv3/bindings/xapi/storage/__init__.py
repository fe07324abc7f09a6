"""Modules for storage plug-ins."""
