"""All there is about external directories in one API process."""

from __future__ import annotations

from pathlib import Path

from services.api.api import Api
from services.api.directory.hooks import Hooks
from services.api.directory.host_directory import HostDirectory
from services.api.directory.kept import KeptFile
from services.api.directory.logins import Logins
from services.api.directory.pool_hooks import PoolHooks
from services.api.directory.revalidation import Revalidation
from services.api.directory.types import Types
from shared.contracts import directory as contract
from shared.contracts.host import Trust
from shared.service import Service


class Directory:
    """`hosts`: by uuid, those that this process serves. The rest is the coordinator's: `own` is the directory that
    logins are asked of.
    """

    def __init__(self, service: Service, api: Api) -> None:
        self._service = service
        self._api = api
        hooks = Hooks(api.bus)
        self.hosts = {host.uuid: self._of_host(host.uuid, hooks) for host in service.hosts}
        self.own = self.hosts[api.host_uuid]
        self.hooks = PoolHooks(api, hooks)
        self.logins = Logins(api, self.own)
        self.revalidation = Revalidation(api, self.own, self.logins, self.hooks)

    def _of_host(self, host: str, hooks: Hooks) -> HostDirectory:
        state, options = self._service.state_dir, self._api.options
        trusted = tuple(state / "trust" / host / kind for kind in (Trust.CA, Trust.PINNED))
        types = Types(Path(options.directories), options.pam_service, trusted)
        return HostDirectory(self._api, host, types, KeptFile(state / "directory" / f"{host}.json"), hooks)

    @property
    def is_on(self) -> bool:
        """Whether logins other than root's are the directory's to decide."""
        return self.own.wanted is not None

    async def serve(self) -> None:
        """Until the service stops."""
        service = self._service
        for host, directory in self.hosts.items():
            await service.serve(contract.ENABLE, directory.enable, host=host)
            await service.serve(contract.DISABLE, directory.disable, host=host)
            await service.serve(contract.SET_LDAPS, directory.set_ldaps, host=host)
            service.spawn(directory.run(), f"directory of {host}")
        if self._api.is_coordinator:
            service.spawn(self.revalidation.run(), "revalidation of the directory's users")
            service.on_stop(self.hooks.close)
        service.on_stop(self._close)

    async def _close(self) -> None:
        self.logins.cache.close()
