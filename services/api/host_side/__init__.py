"""What the API process of each host does on that host (`shared.contracts.host`)."""
