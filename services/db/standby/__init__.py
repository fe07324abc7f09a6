"""Standbys: what follows the primary and persists it, how one of them takes over, and how the old primary is shut out.

Every process of the database is the same program with the same rows, log and committer. What it *stands* as decides
where its commits come from (`standing.py`): the primary takes them from the queue `db`, a standby from the deltas.
"""
