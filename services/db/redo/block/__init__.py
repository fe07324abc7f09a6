"""The `block` redo log: the original's layout on a block device or a file of fixed size (`docs/db.md`).

`layout`: where what is. `deltas`: its three kinds of change. `notes`: what it has no place for. `commits`: batches of
commits as records and back. `reading`: a half as it is after a crash. `device`: system calls. `log`: all of it as a
redo log. `python -m services.db.redo.block` looks at one.
"""
