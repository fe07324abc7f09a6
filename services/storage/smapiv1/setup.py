"""Drivers of SMAPIv1 in a storage service: its hosts, their views, and what is found in the folder."""

from __future__ import annotations

import os
from pathlib import Path

from services.storage.options import StorageOptions
from services.storage.registry import Registry
from services.storage.smapiv1.discovery import Discovery, Drivers
from services.storage.smapiv1.host import DriverHost
from services.storage.smapiv1.private_view import PrivateView
from services.storage.smapiv1.view import SystemView, View
from services.storage.smapiv1.xapi import Xapi
from shared.config import HostConfig
from shared.driver_view import folder
from shared.service import Service


def drivers(service: Service, options: StorageOptions, registry: Registry) -> Drivers:
    run = Path(options.run_dir) if options.run_dir else service.state_dir / "run"
    hosts = {
        config.uuid: DriverHost(config.uuid, _xapi(service, options, config), _view(options, folder(run, config.uuid)))
        for config in service.hosts
    }
    discovery = Discovery(Path(options.smapiv1_dir), options.smapiv1_drivers, hosts, registry)
    return Drivers(discovery, hosts, options.smapiv1_interval)


def _xapi(service: Service, options: StorageOptions, host: HostConfig) -> Xapi:
    return Xapi(options.xapi_socket, kept=service.state_dir / "smapiv1-sessions" / host.uuid)


def _view(options: StorageOptions, place: Path) -> View:
    system = SystemView(place / "state")
    if not options.smapiv1_private or os.geteuid() != 0:
        return system
    return PrivateView(place, options.xapi_socket, options.smapiv1_dir, system)
