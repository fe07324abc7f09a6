from __future__ import annotations

from pathlib import Path

from services.api.rate_limit import costs


def test_lines_name_messages_and_their_costs() -> None:
    text = ["# comment", "", "VM.start = 100  # expensive", "VM.get_record=0.5"]
    assert costs.parse(text) == {"VM.start": 100.0, "VM.get_record": 0.5}


def test_what_is_no_cost_is_left_out() -> None:
    text = ["VM.start", "VM.start = much", "VM.start = -1", "VM.start = inf", "VM.start = nan", "= 3"]
    assert costs.parse(text) == {}


def test_without_a_file_every_call_costs_one(tmp_path: Path) -> None:
    assert costs.read("") == {}
    assert costs.read(str(tmp_path / "none")) == {}
    (tmp_path / "costs").write_bytes(b"\xff")
    assert costs.read(str(tmp_path / "costs")) == {}
