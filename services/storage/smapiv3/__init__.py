"""SMAPIv3: plug-ins that are folders of programs, one for each method, as SR types of this service."""
