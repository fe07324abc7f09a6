"""The redo log of the original's layout."""
