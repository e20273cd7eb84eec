"""Tests of the files and the table of an evaluation."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from msst_keras.evaluation.evaluator import Evaluator
from msst_keras.evaluation.protocols import PROTOCOLS, SCALARS
from msst_keras.evaluation.published import PUBLISHED, published_rows
from msst_keras.evaluation.report import format_published, format_table, read_frames, write_frames, write_results

MASK = np.array([[True, True, False, False]])


def _result(protocol="paper", level=255):
    evaluator = Evaluator(PROTOCOLS[protocol])
    evaluator.add("swan, black", "0", MASK * np.uint8(level), MASK)
    evaluator.add("bear", "0", np.zeros((1, 4), np.uint8), MASK)
    evaluator.add("bear", "1", np.full((1, 4), 51, np.uint8), MASK)
    return evaluator.result()


def test_names_that_begin_like_a_formula_are_text_in_the_tables(tmp_path):
    evaluator = Evaluator(PROTOCOLS["paper"])
    evaluator.add("=cmd|' /C calc'!A0", "-1", MASK * np.uint8(255), MASK)
    write_results(evaluator.result(), tmp_path)
    with write_frames(tmp_path) as write:
        write("=cmd|' /C calc'!A0", "-1", {"mae": 0.5})
    for name in ("metrics.csv", "frames.csv"):
        with open(tmp_path / name, newline="") as file:
            assert next(csv.DictReader(file))["sequence"] == "'=cmd|' /C calc'!A0"
    assert list(read_frames(tmp_path)) == [("=cmd|' /C calc'!A0", "-1")]


def test_json_holds_the_result(tmp_path):
    result = _result()
    write_results(result, tmp_path / "new" / "folder")
    assert json.loads((tmp_path / "new" / "folder" / "metrics.json").read_text()) == result
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == ["metrics.csv", "metrics.json"]


def test_csv_has_a_row_per_sequence_and_the_dataset_last(tmp_path):
    result = _result()
    write_results(result, tmp_path)
    with open(tmp_path / "metrics.csv", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["sequence", *SCALARS]
    assert [row[0] for row in rows] == ["bear", "swan, black", "dataset"]
    expected = [result["sequences"]["bear"], result["sequences"]["swan, black"], result]
    for row, scalars in zip(rows, expected, strict=True):
        assert row[1:] == ["" if scalars[name] is None else repr(scalars[name]) for name in SCALARS]
    assert float(rows[2][1]) == pytest.approx((0 + 0.5 + 0.5) / 3)


def test_writing_again_replaces_the_files(tmp_path):
    write_results(_result(), tmp_path)
    write_results(_result(level=51), tmp_path)
    assert json.loads((tmp_path / "metrics.json").read_text())["mae"] == pytest.approx((0.4 + 0.5 + 0.5) / 3)


def test_a_number_that_json_cannot_hold_leaves_the_old_files(tmp_path):
    write_results(_result(), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_results({**_result(level=51), "mae": float("nan")}, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_table():
    black = {"protocol": "davis16", "num_frames": 1376, "num_sequences": 20, **dict.fromkeys(SCALARS), "mae": 0.0814}
    ours = {**black, "protocol": "paper", "mae": 0.03249, "max_f": 0.8, "s_measure": 1, "weighted_f": 0.75}
    assert format_table({"all black": black, "ours": ours}).splitlines() == [
        "method     protocol  sequences  frames     MAE   max F       S  weighted F",
        "---------  --------  ---------  ------  ------  ------  ------  ----------",
        "all black  davis16          20    1376  0.0814       -       -           -",
        "ours       paper            20    1376  0.0325  0.8000  1.0000      0.7500",
    ]


def test_table_of_nothing():
    with pytest.raises(ValueError, match="no method to tabulate"):
        format_table({})


def test_another_method_has_files_of_its_name(tmp_path):
    result = _result()
    write_results(result, tmp_path, "flow magnitude")
    names = ["metrics-flow-magnitude.csv", "metrics-flow-magnitude.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert json.loads((tmp_path / "metrics-flow-magnitude.json").read_text()) == result


def test_frames_are_written_and_read_back(tmp_path):
    with write_frames(tmp_path / "new", "ours") as write:
        write("swan, black", "00001", {"mae": 0.1 + 0.2, "temporal_stability": 0.0})
        write("bear", "7", {"max_f": 1.0})
        assert not (tmp_path / "new" / "frames-ours.csv").exists()
    lines = (tmp_path / "new" / "frames-ours.csv").read_text().splitlines()
    assert lines[0] == ",".join(["sequence", "frame", *SCALARS])
    assert lines[1] == '"swan, black",00001,0.30000000000000004,,,,,,,,,,,0.0'
    empty = dict.fromkeys(SCALARS)
    assert list(read_frames(tmp_path / "new", "ours").items()) == [
        (("swan, black", "00001"), {**empty, "mae": 0.1 + 0.2, "temporal_stability": 0.0}),
        (("bear", "7"), {**empty, "max_f": 1.0}),
    ]


def test_frames_that_an_error_stopped_are_not_there(tmp_path):
    with pytest.raises(ValueError, match="stop"), write_frames(tmp_path) as write:
        write("bear", "7", {})
        raise ValueError("stop")
    assert list(tmp_path.iterdir()) == []


def test_published_numbers_are_marked_as_such():
    table = format_published(published_rows("fbms")).splitlines()
    assert table[0].startswith("published for all of FBMS test, not measured here")
    (row,) = [line for line in table if line.startswith("SSAV")]
    assert row.split()[:5] == ["SSAV", "0.040", "0.865", "0.879", "davsod"] and "CVPR 2019" in row
    (row,) = [line for line in table if line.startswith("MSST")]
    assert row.split()[:4] == ["MSST", "0.082", "-", "-"]


def test_every_published_row_has_a_source_a_protocol_and_possible_numbers():
    assert len({(row.method, row.dataset) for row in PUBLISHED}) == len(PUBLISHED) == 20
    for row in PUBLISHED:
        assert row.source and row.protocol and row.dataset in ("davis", "fbms")
        assert 0 < row.mae < 0.2 and all(value is None or 0.5 < value < 1 for value in (row.max_f, row.s_measure))
    assert published_rows("segtrackv2") == ()
