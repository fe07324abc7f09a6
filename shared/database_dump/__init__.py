"""The whole database as the original writes it: one XML document (`docs/db.md`).

`schema` says which tables and columns there are, `writer` makes a document of a store's rows, `reader` rows of one.
"""
