"""What a database of an older schema needs before it is used, beyond new columns with their defaults
(`database-pool-ha` 1.8).

`rule` says what a rule is, `table` lists all in their order, `run` applies those that a schema needs; each other module
has the rules about its noun.
"""
