"""VMs that go from pool to pool without their disks: `/export_metadata` and `/import_metadata`."""

from __future__ import annotations

import io
import tarfile
from typing import Any

import pytest
from lxml import etree

from services.api.metadata import ova, tar
from services.api.metadata.ova import Document, Object, Version
from services.api.wire import result
from shared.contracts.db import Update
from shared.datamodel.types import RefType, SetType
from tests.api.core.role_matrix import log_in
from tests.api.handlers.conftest import Site
from tests.api.handlers.test_blob import is_cut_off

UNKNOWN = "OpaqueRef:00000000-0000-4000-8000-0000000000aa"


async def export(site: Site, query: str) -> Document:
    reply = await site.ask("GET", f"/export_metadata?{query}")
    assert (reply.line, reply["content-type"]) == ("HTTP/1.0 200 OK", "application/octet-stream")
    assert reply["content-disposition"] == 'attachment; filename="export.xva"'
    assert int(reply["content-length"]) == len(reply.body)
    return unpacked(reply.body)


def unpacked(data: bytes) -> Document:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        [member] = archive.getmembers()
        assert member.name == "ova.xml"
        file = archive.extractfile(member)
        assert file is not None
        return ova.read(file.read().decode())


def packed(document: Document) -> bytes:
    text = "".join(ova.write(document)).encode()
    return tar.header(len(text), 0) + text + tar.padding(len(text)) + tar.END


async def bring(site: Site, body: bytes, query: str = "") -> Any:
    """The task of an import, when it has ended."""
    task = await site.task()
    connection = await site.connect()
    await connection.send(site.request("PUT", f"/import_metadata?task_id={task}{query}", body))
    head = await connection.reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert f"task-id: {task}".encode() in head
    row = await site.ended(task)
    assert not await is_cut_off(connection)
    return row


async def brought(site: Site, document: Document, query: str = "") -> list[Any]:
    """The imported VMs' rows."""
    row = await bring(site, packed(document), query)
    assert row["error_info"] == []
    assert row["other_config"]["object_creation"] == "complete"
    refs = result.from_text(SetType(RefType("VM")), row["result"])
    return [site.pool.row("VM", ref) for ref in refs]


async def refused(site: Site, document: Document, query: str = "") -> list[str]:
    before = site.pool.store.generation
    vms = set(site.pool.store.rows("VM"))
    row = await bring(site, packed(document), query)
    assert set(site.pool.store.rows("VM")) == vms
    assert before < site.pool.store.generation  # the task alone
    return list(row["error_info"])


@pytest.fixture
async def vm(site: Site) -> str:
    """With a disk, an empty CD drive, an interface, a tag and a snapshot."""
    ref = await site.pool.vm(site.client, "exported", tags=["a"], version=3)
    network = site.pool.ref("network", "network")
    await site.client.call(
        "VIF.create",
        {"device": "0", "network": network, "VM": ref, "MAC": "", "MTU": "1500", "other_config": {},
         "qos_algorithm_type": "", "qos_algorithm_params": {}},
    )  # fmt: skip
    [sr] = site.pool.store.by_name_label("SR", "storage")
    disk = await site.client.call("VDI.create", new_disk(sr))
    drive = {"VM": ref, "VDI": disk, "userdevice": "0", "bootable": True, "mode": "RW", "type": "Disk",
             "empty": False, "other_config": {}, "qos_algorithm_type": "", "qos_algorithm_params": {}}  # fmt: skip
    await site.client.call("VBD.create", drive)
    drive = {"VM": ref, "VDI": "OpaqueRef:NULL", "userdevice": "3", "bootable": False, "mode": "RO", "type": "CD",
             "empty": True, "other_config": {}, "qos_algorithm_type": "", "qos_algorithm_params": {}}  # fmt: skip
    await site.client.call("VBD.create", drive)
    await site.client.call("VM.snapshot", ref, "its snapshot")
    return ref


def new_disk(sr: str) -> dict[str, Any]:
    return {"name_label": "d", "name_description": "", "SR": sr, "virtual_size": str(2**20), "type": "user",
            "sharable": False, "read_only": False, "other_config": {}}  # fmt: skip


def disks(site: Site, vm: Any) -> list[str]:
    rows = [site.pool.row("VBD", ref) for ref in vm["VBDs"]]
    return [row["VDI"] for row in rows if row["type"] == "Disk"]


# ---- export


async def test_a_vm_brings_what_belongs_to_it(site: Site, vm: str) -> None:
    document = await export(site, f"ref={vm}")
    row = site.pool.row("VM", vm)
    classes = [one.cls for one in document.objects]
    assert classes == sorted(classes, key=ova.CLASSES.index)
    assert {*classes} >= {"VM", "VM_metrics", "VBD", "VIF", "network", "VDI", "SR"}
    [own, snapshot] = document.of("VM")
    assert (own.fields["uuid"], snapshot.fields["name_label"]) == (row["uuid"], "its snapshot")
    assert (snapshot.fields["snapshot_of"], own.fields["snapshots"]) == (own.id, [snapshot.id])
    assert all(one.id.startswith("Ref:") for one in document.objects)
    assert (own.fields["allowed_operations"], own.fields["consoles"]) == ([], [])
    fields = [{**one.fields, "snapshot_metadata": ""} for one in document.objects]
    assert "OpaqueRef:" not in str(fields).replace("OpaqueRef:NULL", "")
    assert document.version.format == 2


async def test_numbers_are_never_used_again(site: Site, vm: str) -> None:
    first, second = await export(site, f"ref={vm}"), await export(site, f"ref={vm}")
    assert not {one.id for one in first.objects} & {one.id for one in second.objects}


async def test_parts_can_be_left_out(site: Site, vm: str) -> None:
    document = await export(site, f"ref={vm}&export_snapshots=false&excluded_device_types=vif,VBD")
    assert {one.cls for one in document.objects} == {"VM", "VM_metrics"}
    [own] = document.of("VM")
    assert (own.fields["VIFs"], own.fields["VBDs"], own.fields["snapshots"]) == ([], [], [])


async def test_everything_is_all_but_the_toolstacks_own_templates(site: Site, vm: str) -> None:
    for query, with_dom0 in (("all=true", True), ("all=true&include_dom0=false", False)):
        names = {one.fields["name_label"] for one in (await export(site, query)).of("VM")}
        assert names >= {"exported", "its snapshot"}
        assert (
            "Tiny guest" not in names
            or not site.pool.row("VM", site.pool.ref("VM", "Tiny guest"))["is_default_template"]
        )
        assert any("Control domain" in name for name in names) == with_dom0


async def test_what_is_exported_must_be_named_and_known(site: Site) -> None:
    for query, error in (
        ("", b"A ref or uuid of a VM is needed."),
        ("all=yes", b"A ref or uuid of a VM is needed."),
        (f"ref={UNKNOWN}", f"HANDLE_INVALID: [ VM; {UNKNOWN} ]".encode()),
        ("uuid=", b"UUID_INVALID: [ VM;  ]"),
    ):
        for path in ("/export_metadata", "/export"):
            reply = await site.ask("GET", f"{path}?{query}")
            assert (reply.status, error in reply.body) == (500, True)


async def test_a_vm_without_disks_can_be_exported_whole(site: Site) -> None:
    vm = await site.client.call("VM.clone", site.pool.ref("VM", "Tiny guest"), "diskless")
    await site.client.call("VM.set_is_a_template", vm, False)
    task = await site.task()
    for compression in ("false", "true", "gzip", "frob"):
        reply = await site.ask("GET", f"/export?ref={vm}&use_compression={compression}&task_id={task}")
        assert reply.line == "HTTP/1.0 200 OK"
        assert not any(name == "content-length" for name, _ in reply.headers)
        [own] = unpacked(reply.body).of("VM")
        assert (own.fields["name_label"], own.fields["power_state"]) == ("diskless", "Halted")
    assert (await site.ended(task))["status"] == "success"


async def test_disks_are_not_exported_yet(site: Site, vm: str) -> None:
    reply = await site.ask("GET", f"/export?ref={vm}")
    assert (reply.status, b"Disks are not exported yet" in reply.body) == (501, True)


# ---- import


async def test_an_imported_vm_is_another_with_the_same_disks(site: Site, vm: str) -> None:
    document = await export(site, f"ref={vm}")
    await site.client.call("VM.set_name_label", vm, "the first")
    [copy] = await brought(site, document)
    row = site.pool.row("VM", vm)
    assert copy["uuid"] != row["uuid"]
    assert (copy["name_label"], copy["tags"], copy["version"], copy["power_state"]) == ("exported", ["a"], 0, "Halted")
    assert disks(site, copy) == disks(site, row) != []
    assert copy["other_config"]["mac_seed"] != row["other_config"]["mac_seed"]
    [theirs], [ours] = ([site.pool.row("VIF", ref) for ref in one["VIFs"]] for one in (row, copy))
    assert (ours["network"], ours["device"], ours["MAC_autogenerated"]) == (theirs["network"], "0", True)
    assert ours["MAC"] != theirs["MAC"]
    [snapshot] = [site.pool.row("VM", ref) for ref in copy["snapshots"]]
    assert (snapshot["name_label"], snapshot["is_a_snapshot"]) == ("its snapshot", True)
    assert copy["parent"] == next(ref for ref in copy["snapshots"])
    assert await site.client.call("VM.start", site.pool.ref("VM", "exported"), False, False) == ""


async def test_what_is_imported_can_be_exported_again(site: Site, vm: str) -> None:
    first = await export(site, f"ref={vm}")
    [copy] = await brought(site, first)
    second = await export(site, f"uuid={copy['uuid']}")
    assert [one.cls for one in second.objects] == [one.cls for one in first.objects]
    before, after = first.of("VM")[0].fields, second.of("VM")[0].fields
    new = {"memory_overhead", "uuid", "version", "other_config", "generation_id", "metrics", "guest_metrics", "VIFs"}
    new |= {"VBDs", "snapshots", "parent", "children", "requires_reboot"}
    assert {name for name in before if before[name] != after[name]} <= new


async def test_a_restored_vm_takes_the_place_of_an_older_one(site: Site, vm: str) -> None:
    document = await export(site, f"ref={vm}")
    error = await refused(site, document, "&restore=true")
    assert error == ["VM_TO_IMPORT_IS_NOT_NEWER_VERSION", vm, "3", "3"]
    uuid = site.pool.row("VM", vm)["uuid"]
    await site.pool.write(Update(cls="VM", ref=vm, fields={"version": 2, "name_label": "changed"}))
    [snapshot] = site.pool.row("VM", vm)["snapshots"]
    await site.pool.write(Update(cls="VM", ref=snapshot, fields={"version": -1}))
    mac = site.pool.row("VIF", site.pool.row("VM", vm)["VIFs"][0])["MAC"]
    [back] = await brought(site, document, "&restore=true")
    assert (back["uuid"], back["name_label"], back["version"]) == (uuid, "exported", 4)
    assert site.pool.row("VIF", back["VIFs"][0])["MAC"] == mac
    assert site.pool.row("VM", vm) is None
    assert len(back["snapshots"]) == 1
    assert len([row for row in site.pool.store.rows("VM").values() if row["uuid"] == uuid]) == 1


async def test_a_restored_vm_does_not_take_the_place_of_one_that_runs(site: Site, vm: str) -> None:
    document = await export(site, f"ref={vm}&export_snapshots=false")
    await site.client.call("VM.start", vm, False, False)
    for force in ("", "&force=true"):
        assert await refused(site, document, f"&restore=true{force}") == [
            "VM_BAD_POWER_STATE", vm, "Halted", "Running",
        ]  # fmt: skip


async def test_two_vms_do_not_share_a_seed_of_addresses(site: Site, vm: str) -> None:
    document = changed(await export(site, f"ref={vm}&export_snapshots=false"), "VM", uuid=UNKNOWN[10:])
    seed = site.pool.row("VM", vm)["other_config"]["mac_seed"]
    assert await refused(site, document, "&restore=true") == ["DUPLICATE_MAC_SEED", seed]


async def test_a_dry_run_finds_what_is_wrong_and_makes_nothing(site: Site, vm: str) -> None:
    document = await export(site, f"ref={vm}")
    vms = set(site.pool.store.rows("VM"))
    assert await brought(site, document, "&dry_run=true") == []
    assert set(site.pool.store.rows("VM")) == vms
    bad = changed(document, "VDI", location="elsewhere")
    assert (await refused(site, bad, "&dry_run=true"))[0] == "VDI_LOCATION_MISSING"


async def test_a_disk_that_is_not_here_is_an_error_unless_forced_or_mapped(site: Site, vm: str) -> None:
    document = changed(await export(site, f"ref={vm}&export_snapshots=false"), "VDI", location="elsewhere")
    [sr] = {row["SR"] for row in site.pool.store.rows("VDI").values()}
    assert await refused(site, document) == ["VDI_LOCATION_MISSING", sr, "elsewhere"]
    unknown_sr = changed(document, "SR", uuid="another")
    assert await refused(site, unknown_sr) == ["VDI_CONTENT_ID_MISSING"]
    [forced] = await brought(site, document, "&force=true")
    assert disks(site, forced) == []
    disk = await site.client.call("VDI.create", new_disk(sr))
    for name in (disk, site.pool.row("VDI", disk)["uuid"]):
        [mapped] = await brought(site, document, f"&vdi:{document.of('VDI')[0].fields['uuid']}={name}")
        assert disks(site, mapped) == [disk]


async def test_networks_are_found_by_name_then_by_bridge_or_made(site: Site, vm: str) -> None:
    document = await export(site, f"ref={vm}&export_snapshots=false")
    there = site.pool.ref("network", "network")
    for fields, made in (
        ({"bridge": "other"}, False),
        ({"name_label": "other"}, False),
        ({"name_label": "new", "bridge": "new0", "MTU": 9000}, True),
    ):
        [copy] = await brought(site, changed(document, "network", **fields))
        network = site.pool.row("VIF", copy["VIFs"][0])["network"]
        assert (network != there) == made
    row = site.pool.row("network", network)
    assert (row["name_label"], row["bridge"], row["MTU"]) == ("new", "xapi0", 9000)


async def test_a_newer_toolstacks_exports_are_not_read(site: Site, vm: str) -> None:
    document = await export(site, f"ref={vm}")
    newer = Version(**{**_fields(document.version), "xapi": (document.version.xapi[0], 999)})
    assert await refused(site, Document(newer, document.objects)) == ["IMPORT_INCOMPATIBLE_VERSION"]


async def test_guarded_keys_need_their_role_in_imports_too(site: Site, vm: str) -> None:
    document = await export(site, f"ref={vm}&export_snapshots=false")
    bad = changed(document, "VM", platform={"hvm_serial": "file:/etc/passwd"})
    client = await log_in(site.pool, "vm-admin")
    site.client.session = client.session
    assert (await refused(site, bad))[:2] == ["RBAC_PERMISSION_DENIED", "vm.add_to_platform/key:hvm_serial"]
    assert len(await brought(site, document)) == 1


async def test_devices_of_imported_vms_have_sane_names(site: Site, vm: str) -> None:
    document = await export(site, f"ref={vm}&export_snapshots=false")
    assert await refused(site, changed(document, "VBD", userdevice="../../etc")) == ["INVALID_DEVICE", "../../etc"]
    assert await refused(site, changed(document, "VIF", device="-1")) == ["INVALID_DEVICE", "-1"]
    assert await refused(site, changed(document, "VBD", userdevice="5")) == ["DEVICE_ALREADY_EXISTS", "5"]
    assert (await refused(site, changed(document, "VM", uuid="../x"), "&restore=true"))[0] == "IMPORT_ERROR"
    lost = Document(document.version, tuple(one for one in document.objects if one.cls != "network"))
    assert (await refused(site, lost))[0] == "IMPORT_ERROR_FAILED_TO_FIND_OBJECT"


async def test_the_role_and_live_imports(site: Site) -> None:
    task = await site.task()
    reply = await site.ask("PUT", f"/import_metadata?live=true&task_id={task}", b"")
    assert reply.status == 501
    assert (await site.ended(task))["error_info"] == ["NOT_IMPLEMENTED", "http/put_import_metadata"]


def archive(name: str, content: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as made:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        made.addfile(info, io.BytesIO(content))
    return out.getvalue()


async def test_what_is_no_export_fails_the_task(site: Site) -> None:
    for body, error in (
        (b"junk", ["INTERNAL_ERROR"]),
        (b"", ["INTERNAL_ERROR"]),
        (b"x" * 2000, ["INTERNAL_ERROR"]),
        (archive("other", b"x"), ["IMPORT_ERROR_UNEXPECTED_FILE", "ova.xml", "other"]),
        (archive("ova.xml", b"x" * 5000)[:2000], ["IMPORT_ERROR_PREMATURE_EOF"]),
        (archive("ova.xml", b"junk"), ["IMPORT_ERROR"]),
        (archive("ova.xml", b"\xff\xfe"), ["IMPORT_ERROR"]),
        (archive("ova.xml", b"<value><string>x</string></value>"), ["IMPORT_ERROR"]),
        (archive("ova.xml", b"<value><struct></struct></value>"), ["IMPORT_ERROR"]),
        (archive("ova.xml", b'<!DOCTYPE a [<!ENTITY b "c">]><value>&b;</value>'), ["IMPORT_ERROR"]),
        (tar.header(2**32, 0) + b"x", ["IMPORT_ERROR"]),
        (tar.header(tar.LARGEST, 0) + b"x", ["IMPORT_ERROR_PREMATURE_EOF"]),
        (
            tar.header(tar.LARGEST + 1, 0) + b"x",
            ["IMPORT_ERROR", f"ova.xml of {tar.LARGEST + 1} bytes: at most {tar.LARGEST} are read"],
        ),
    ):
        row = await bring(site, body)
        assert (row["status"], row["error_info"][: len(error)]) == ("failure", error)


async def test_an_import_without_length_ends_with_the_archive(site: Site, vm: str) -> None:
    document = await export(site, f"ref={vm}")
    task = await site.task()
    connection = await site.connect()
    await connection.send(site.request("PUT", f"/import_metadata?task_id={task}") + packed(document))
    assert (await site.ended(task))["status"] == "success"


def test_the_document_is_an_xmlrpc_value_with_untyped_integers() -> None:
    version = Version("host", "2024-01-01", "8", "brand", "1", (2, 23))
    one = Object(
        "VTPM", "Ref:7", {"VM": "Ref:1", "uuid": "u", "is_unique": True, "is_protected": False, "content": "c"}
    )
    root = etree.fromstring("".join(ova.write(Document(version, (one,)))))
    assert [name.text for name in root.findall("struct/member/name")] == ["version", "objects"]
    assert root.findtext("struct/member/value/struct/member[8]/value") == "2"
    names = [name.text for name in root.iter("name")]
    assert names[-5:] == ["vTPM'_VM", "vTPM'_uuid", "vTPM'_is_unique", "vTPM'_is_protected", "vTPM'_content"]
    assert ova.read(etree.tostring(root, encoding="unicode")).objects == (one,)


def changed(document: Document, cls: str, **fields: Any) -> Document:
    """Every object of that class with other fields."""
    return Document(
        document.version,
        tuple(Object(one.cls, one.id, {**one.fields, **fields}) if one.cls == cls else one for one in document.objects),
    )


def _fields(version: Version) -> dict[str, Any]:
    return {name: getattr(version, name) for name in Version.__slots__}
