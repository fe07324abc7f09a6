"""The error codes, one table per area; `shared.datamodel.errors` joins them."""
