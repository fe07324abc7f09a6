"""The original's redo log on a block device, as bytes: where what is, and what a record says. No I/O."""
