"""What has been changed, by whom: kept beside the redo log, for people. Nothing else depends on it."""
