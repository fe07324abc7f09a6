"""The files that `db.conf` names: all rows as an XML document, written beside the redo log for people and for the
original's program (`database-pool-ha` 1.6, 1.7).

`conf` is the text of `db.conf`, `schedule` says when a file is due, `dump_file` writes one, `flusher` has a child do
that, `candidates` decides where the rows of a start come from, `startup` reads them.
"""
