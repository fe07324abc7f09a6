from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from services.api.decisions import (
    provision,
)
from services.api.decisions.provision import Disk, Restriction
from shared.errors import ApiError


def refusal(make: Callable[[], Any]) -> list[str]:
    with pytest.raises(ApiError) as caught:
        make()
    return caught.value.description


def test_disks_of_a_template_are_read() -> None:
    text = """<provision><!-- one --><disk device="0" size="10737418240" sr="" bootable="true" type="system"/>
              <disk device="1" size="1" sr="uuid" bootable="false" type="user"/></provision>"""
    first, second = provision.disks(text)
    assert first == Disk(device="0", size=10737418240, sr="", bootable=True, type="system")
    assert not first.unpluggable
    assert (second.sr, second.unpluggable) == ("uuid", True)


@pytest.mark.parametrize("text", ["", "  ", "<provision/>"])
def test_a_template_may_have_no_disks(text: str) -> None:
    assert provision.disks(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "junk",
        "<provision>",
        "<other/>",
        '<provision><disk device="0" size="big"/></provision>',
        '<provision><disk device="0" size="-1"/></provision>',
        '<provision><disk size="1"/></provision>',
        '<provision><disk device="0" size="1" type="frob"/></provision>',
        '<!DOCTYPE p [<!ENTITY x SYSTEM "file:///etc/passwd">]><provision>&x;</provision',
    ],
)
def test_a_broken_list_of_disks_is_refused_with_its_text(text: str) -> None:
    assert refusal(lambda: provision.disks(text)) == ["INVALID_VALUE", "disks", text]


def test_entities_are_not_expanded() -> None:
    bomb = '<!DOCTYPE p [<!ENTITY a "x">]><provision>&a;<disk device="0" size="1"/></provision>'
    assert len(provision.disks(bomb)) == 1


def test_recommendations_are_read() -> None:
    text = """<restrictions><restriction field="memory-static-max" max="137438953472"/>
        <restriction field="vcpus-max" min="1" max="32"/><restriction property="number-of-vbds" max="255"/>
        <restriction field="has-vendor-device" value="true"/></restrictions>"""
    assert provision.restrictions(text) == [
        Restriction("memory-static-max", maximum=137438953472),
        Restriction("vcpus-max", minimum=1, maximum=32),
        Restriction("number-of-vbds", maximum=255),
        Restriction("has-vendor-device", value="true"),
    ]
    assert provision.restrictions("") == []
    assert refusal(lambda: provision.restrictions("<x"))[:2] == ["INVALID_VALUE", "recommendations"]
