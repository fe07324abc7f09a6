"""Modules that programs on a host import: storage drivers, plug-ins. This folder is on their PYTHONPATH.

They run on the system's Python, not on the toolstack's, so there is only the standard library here.
"""
