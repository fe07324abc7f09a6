"""The consistency checker: what is wrong with a database, and its repair where there is exactly one right answer."""
