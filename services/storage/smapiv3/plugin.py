"""A folder of volume scripts as one SR type."""

from __future__ import annotations

from services.storage.smapiv3 import interface_v5 as v5
from services.storage.smapiv3.attached import AttachedSrs
from services.storage.smapiv3.datapaths import READONLY, DatapathMethods, Schemes
from services.storage.smapiv3.query import driver_info, features_by_scripts, query
from services.storage.smapiv3.repositories import SrMethods
from services.storage.smapiv3.scripts import Scripts
from services.storage.smapiv3.state import State
from services.storage.smapiv3.volumes import VolumeMethods
from shared.contracts.storage import DriverInfo


class ScriptPlugin:
    """`ask` comes first, and again when the folder has changed."""

    def __init__(self, kind: str, scripts: Scripts, schemes: Schemes, state: State) -> None:
        srs = AttachedSrs(kind, scripts, schemes, state)
        self._kind, self._scripts = kind, scripts
        self._info: DriverInfo | None = None
        self.datapath = DatapathMethods(schemes, state)
        self.volume = VolumeMethods(srs, self.datapath)
        self.sr = SrMethods(srs, self.volume)

    async def ask(self) -> None:
        """Raises what calls raise, and `WrongVersion`."""
        said = await query(self._scripts)
        self._info = driver_info(self._kind, said, await features_by_scripts(self._scripts))
        self.datapath.readonly = READONLY in self._info.features

    def query(self) -> DriverInfo:
        if self._info is None:
            raise RuntimeError(f"the plug-in {self._kind} has not been asked what it is")
        return self._info

    async def diagnostics(self) -> str:
        return await self._scripts.calls()(v5.Plugin.diagnostics)

    @property
    def traceless(self) -> bool:
        return False

    @property
    def branches_in_use(self) -> bool:
        """What its datapath cannot do with a disk that is written to, the plug-in refuses itself."""
        return True

    async def close(self) -> None:
        """Scripts end with the calls that run them."""
