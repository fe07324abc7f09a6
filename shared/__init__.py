"""What the services share: the bus, the data model, the replica, contracts, errors, configuration, logging."""
