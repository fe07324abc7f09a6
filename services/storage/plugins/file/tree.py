"""Disks that share data: which nodes of an SR are needed, which are not. No I/O.

A node is an image; its parent is its backing file. Hidden nodes are nobody's disk: they carry data for their children.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from shared.bus.contract import Record


class Node(Record, frozen=True):
    """`parent`: key of the backing image, "" for none. `hidden`: not a disk of its own."""

    key: str
    parent: str
    hidden: bool


def children(nodes: Iterable[Node], key: str) -> list[str]:
    return sorted(node.key for node in nodes if node.parent == key)


def ancestors(nodes: Mapping[str, Node], key: str) -> list[str]:
    """The chain above a node, nearest first; it ends where a parent is missing or the chain comes round."""
    chain: list[str] = []
    node = nodes.get(key)
    while node is not None and node.parent and node.parent not in chain and node.parent != key:
        chain.append(node.parent)
        node = nodes.get(node.parent)
    return chain


def garbage(nodes: Iterable[Node]) -> list[str]:
    """Hidden nodes that no disk depends on, children before their parents."""
    table = {node.key: node for node in nodes}
    needed = {above for node in table.values() if not node.hidden for above in (node.key, *ancestors(table, node.key))}
    unneeded = [key for key in table if key not in needed]
    return sorted(unneeded, key=lambda key: (-len(ancestors(table, key)), key))
