"""Which plug-in serves which `external_auth_type`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.api.directory.pam import PamPlugin
from services.api.directory.plugin import Configuration, Plugin, UnknownType
from services.api.directory.program import ProgramPlugin, find

LDAP: Final = ("LDAP", "AD")
PAM: Final = "PAM"


@dataclass(frozen=True, slots=True)
class Types:
    """`programs`: the folder with programs, each named for its type. `pam_service`: for type PAM. `trusted`: folders of
    certificates that the host trusts besides the machine's own.
    """

    programs: Path
    pam_service: str
    trusted: tuple[Path, ...] = ()

    def make(self, auth_type: str, service_name: str, config: Configuration) -> Plugin:
        """Raises `UnknownType`."""
        if auth_type in LDAP:
            from services.api.directory.ldap import SCHEMAS, LdapPlugin  # loads ldap3: only where it is used

            return LdapPlugin(SCHEMAS[auth_type], service_name, config, self.trusted)
        if auth_type == PAM:
            return PamPlugin(self.pam_service)
        path = find(self.programs, auth_type)
        if path is None:
            raise UnknownType(auth_type)
        return ProgramPlugin(path, service_name, config)
