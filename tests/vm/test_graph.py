"""What QEMU says of its block nodes, and the images that this means."""

from __future__ import annotations

from typing import Any

import pytest

from services.vm.qemu.disks import graph, jobs, nodes
from services.vm.qemu.disks.graph import Graph
from shared.contracts.storage import Backend


def block(name: str, driver: str, file: str = "", *, ro: bool = False, size: int = 4096) -> dict[str, Any]:
    return {"node-name": name, "drv": driver, "file": file, "ro": ro, "image": {"virtual-size": size}}


def built(blocks: list[dict[str, Any]], edges: list[tuple[str, str, str]]) -> Graph:
    """`edges`: parent, role, child."""
    names = [one["node-name"] for one in blocks]
    items = [{"id": number, "type": "block-driver", "name": name} for number, name in enumerate(names)]
    items.append({"id": 99, "type": "block-backend", "name": ""})
    names.append("device")
    numbers = {name: item["id"] for name, item in zip(names, items, strict=True)}
    listed = [{"parent": numbers[up], "child": numbers[down], "name": role} for up, role, down in edges]
    return Graph(blocks, {"nodes": items, "edges": listed})


PLAIN = [
    block("disk-0", "throttle"),
    block("image-0-a", "qcow2", "/sr/a"),
    block("#1", "file", "/sr/a"),
    block("#2", "qcow2", "/sr/./base", ro=True),
    block("#3", "file", "/sr/./base", ro=True),
]
EDGES = [
    ("device", "root", "disk-0"),
    ("disk-0", "file", "image-0-a"),
    ("image-0-a", "file", "#1"),
    ("image-0-a", "backing", "#2"),
    ("#2", "file", "#3"),
]


def test_a_chain_goes_from_the_device_down() -> None:
    images = built(PLAIN, EDGES).images("0")
    assert [(image.node, image.path, image.writable) for image in images] == [
        ("image-0-a", "/sr/a", True),
        ("#2", "/sr/./base", False),
    ]
    assert built(PLAIN, EDGES).images("1") == []


def test_images_are_found_by_what_their_path_means() -> None:
    images = built(PLAIN, EDGES).images("0")
    found = graph.find(images, "/sr/x/../base")
    assert found is not None
    assert found.node == "#2"
    assert graph.find(images, "/sr/b") is None


def test_filters_of_jobs_are_no_images() -> None:
    edges = [("disk-0", "file", "#4"), ("#4", "backing", "image-0-a"), *EDGES[2:]]
    images = built([*PLAIN, block("#4", "commit_top")], edges).images("0")
    assert [image.path for image in images] == ["/sr/a", "/sr/./base"]


def test_a_closed_disk_has_no_images_and_its_device_knows() -> None:
    blocks = [block("disk-0", "throttle"), block("closed-0", "blkdebug"), block("dead-1", "blkdebug")]
    found = built(
        [*blocks, block("disk-1", "throttle")], [("disk-0", "file", "closed-0"), ("disk-1", "file", "dead-1")]
    )
    assert found.images("0") == found.images("1") == []
    assert found.closed() == ["0"]
    assert (found.is_dead("0"), found.is_dead("1")) == (False, True)


def test_what_was_opened_here_and_is_used_no_more_is_known_by_its_name() -> None:
    blocks = [*PLAIN, block("image-0-b", "qcow2", "/b"), block("image-01-b", "qcow2"), block("closed-0", "blkdebug")]
    assert built(blocks, EDGES).unused("0") == ["image-0-b", "closed-0"]


@pytest.mark.parametrize(
    ("driver", "said", "kind", "path"),
    [
        ("file", "/sr/a", "file", "/sr/a"),
        ("file", 'json:{"driver": "file", "filename": "/sr/a", "locking": "off"}', "file", "/sr/a"),
        ("host_device", "/dev/mapper/a", "block", "/dev/mapper/a"),
        ("nbd", "nbd+unix:///the%20export?socket=/run/s", "nbd", "nbd:unix:/run/s:exportname=the export"),
        ("nbd", "nbd+unix://?socket=/run/s", "nbd", "nbd:unix:/run/s:exportname="),
        (
            "nbd",
            'json:{"driver": "nbd", "server.path": "/run/s", "server.type": "unix", "export": "e"}',
            "nbd",
            "nbd:unix:/run/s:exportname=e",
        ),
        (
            "nbd",
            'json:{"driver": "nbd", "server": {"type": "unix", "path": "/run/s"}}',
            "nbd",
            "nbd:unix:/run/s:exportname=",
        ),
    ],
)
def test_a_path_is_said_as_storage_says_it(driver: str, said: str, kind: str, path: str) -> None:
    blocks = [block("disk-0", "throttle"), block("i", "raw"), block("p", driver, said)]
    [image] = built(blocks, [("disk-0", "file", "i"), ("i", "file", "p")]).images("0")
    assert (image.kind, image.path, image.format) == (kind, path, "raw")
    again = Backend(dp="", kind=kind, path=path, format="raw", writable=True)
    assert nodes.image(again, "n", writable=True)["file"]["driver"] == driver


def test_a_job_is_named_for_its_work() -> None:
    name = jobs.name_of("commit", "12", "/a", "/b")
    assert name == jobs.name_of("commit", "12", "/a", "/b")
    assert name != jobs.name_of("commit", "12", "/a/b", "")
    assert jobs.kind_of(name) == "commit"
    assert len(nodes.image_node("255")) < 32, "QEMU's limit"
