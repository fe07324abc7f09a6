"""What QEMU has open: from its answers to the images under a device. Pure."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from services.vm.qemu.disks import nodes

FORMAT_OF = {driver: name for name, driver in nodes.FORMATS.items()}
KIND_OF = {"file": "file", "host_device": "block", "nbd": "nbd"}
"""From QEMU's protocol drivers to kinds of `shared.contracts.storage.Backend`."""
PLACEHOLDER = "blkdebug"
"""Driver of what stands for images that are closed."""


class Image(NamedTuple):
    """One image of a chain. `kind`, `path`, `format`: as in `shared.contracts.storage.Backend`. `size`: bytes."""

    node: str
    kind: str
    path: str
    format: str
    writable: bool
    size: int


@dataclass
class Node:
    """`children`: node names by their role: file, backing."""

    name: str
    driver: str
    filename: str
    writable: bool
    size: int
    children: dict[str, str] = field(default_factory=dict)
    has_parents: bool = False


class Graph:
    """`blocks`: the answer to query-named-block-nodes; `edges`: the one to x-debug-query-block-graph."""

    def __init__(self, blocks: Iterable[dict[str, Any]], edges: dict[str, Any]) -> None:
        self.nodes = {
            block["node-name"]: Node(
                name=block["node-name"],
                driver=block["drv"],
                filename=block["file"],
                writable=not block["ro"],
                size=block["image"]["virtual-size"],
            )
            for block in blocks
        }
        names = {item["id"]: item["name"] for item in edges["nodes"] if item["type"] == "block-driver"}
        for edge in edges["edges"]:
            child = self.nodes.get(names.get(edge["child"], ""))
            parent = self.nodes.get(names.get(edge["parent"], ""))
            if child is not None:
                child.has_parents = True
                if parent is not None:
                    parent.children[edge["name"]] = child.name

    def device_node(self, device: str) -> Node | None:
        return self.nodes.get(nodes.node(device))

    def images(self, device: str) -> list[Image]:
        """The one that is written to first; none when there is no medium, or it is closed for the time being."""
        found: list[Image] = []
        at = self.device_node(device)
        while at is not None and at.driver != PLACEHOLDER:
            if at.driver in FORMAT_OF:
                found.append(self._image(at))
                at = self.nodes.get(at.children.get("backing", ""))
            else:  # a filter, which has one child: of a job, or ours
                at = self.nodes.get(at.children.get("file") or at.children.get("backing", ""))
        return found

    def closed(self) -> list[str]:
        """Devices whose images are closed for the time being."""
        names = [node.name for node in self.nodes.values() if node.has_parents]
        return [name.removeprefix(nodes.CLOSED) for name in names if name.startswith(nodes.CLOSED)]

    def is_dead(self, device: str) -> bool:
        """Whether the guest holds a device without a disk."""
        node = self.nodes.get(nodes.DEAD + device)
        return node is not None and node.has_parents

    def unused(self, device: str) -> list[str]:
        """Nodes that were opened here for a device and that nothing uses any more."""
        return [node.name for node in self.nodes.values() if nodes.is_ours(node.name, device) and not node.has_parents]

    def _image(self, top: Node) -> Image:
        source = top
        while "file" in source.children:
            source = self.nodes[source.children["file"]]
        kind = KIND_OF.get(source.driver, source.driver)
        path = _path(source)
        return Image(top.name, kind, path, FORMAT_OF[top.driver], top.writable, top.size)


def find(images: list[Image], path: str) -> Image | None:
    wanted = posixpath.normpath(path)
    return next((image for image in images if posixpath.normpath(image.path) == wanted), None)


def _path(source: Node) -> str:
    """What a protocol node reads, as a `Backend` says it."""
    options: dict[str, Any] = {}
    if source.filename.startswith("json:"):  # QEMU's way to name what has more options than a name can say
        options = json.loads(source.filename.removeprefix("json:"))
    if source.driver != "nbd":
        return str(options.get("filename", source.filename))
    if options:
        server = options.get("server", {})
        path, export = options.get("server.path", server.get("path", "")), options.get("export", "")
    else:
        url = urlsplit(source.filename)
        path, export = parse_qs(url.query)["socket"][0], unquote(url.path.removeprefix("/"))
    return f"{nodes.NBD}{path}{nodes.EXPORT}{export}"
