"""What may happen, and what a change looks like: pure functions over rows. No I/O, no bus, no clock, no global state.

Rows are read through `rows.Rows`; a refusal is an `ApiError` that the caller raises (a `check` returns it, so that
`allowed_operations` can ask the same question without exceptions).
"""
