"""What `evaluate` is given by people: masks of every kind, maps on other scales, and fewer files than could be."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from msst_keras.evaluation.options import EvaluateOptions
from msst_keras.jobs.evaluate import evaluate

SIZE = (48, 64)


def draw(number):
    mask = np.zeros(SIZE, np.uint8)
    mask[10:30, 8 + 3 * number : 28 + 3 * number] = 255
    return mask


@pytest.fixture
def tree(tmp_path):
    """A DAVIS tree of a sequence of six frames, and perfect maps of it."""
    for folder in ("DAVIS/JPEGImages/480p/walk", "DAVIS/Annotations/480p/walk", "maps/walk"):
        (tmp_path / folder).mkdir(parents=True)
    for number in range(6):
        frame = np.random.default_rng(number).integers(0, 256, (*SIZE, 3), np.uint8)
        Image.fromarray(frame).save(tmp_path / f"DAVIS/JPEGImages/480p/walk/{number:05d}.jpg")
        Image.fromarray(draw(number)).save(tmp_path / f"DAVIS/Annotations/480p/walk/{number:05d}.png")
        Image.fromarray(draw(number)).save(tmp_path / f"maps/walk/{number:05d}.png")
    return tmp_path


def score(tree, protocol="paper", **options):
    options = {"baselines": False, "report": False, "num_workers": 1} | options
    results = evaluate(EvaluateOptions(
        predictions=str(tree / "maps"), ground_truth=str(tree / "DAVIS"), output_dir=str(tree / "out"),
        protocol=(protocol,), **options,
    ))  # fmt: skip
    return results["predictions", protocol]


def test_perfect_maps_of_jpeg_masks_are_perfect(tree):
    for path in sorted((tree / "DAVIS/Annotations/480p/walk").iterdir()):
        Image.open(path).save(path.with_suffix(".jpg"), quality=90)
        path.unlink()
    found = score(tree)
    assert (found["mae"], found["max_f"], found["s_measure"]) == (0, 1, pytest.approx(1))


def test_a_map_that_no_protocol_scores_is_not_demanded(tree):
    (tree / "maps/walk/00005.png").unlink()
    (tree / "maps/walk/00000.png").unlink()
    assert score(tree, "davis16")["j_mean"] == 1
    with pytest.raises(ValueError, match=r"2 of 6 masks have no map \(walk/00000, walk/00005\): make them, or leave"):
        score(tree, "paper")
    (tree / "maps/walk/00003.png").unlink()
    with pytest.raises(ValueError, match=r"1 of 4 masks have no map \(walk/00003\): make them"):
        score(tree, "davis16")


def test_maps_of_0_and_1_are_refused(tree):
    for number in range(6):
        Image.fromarray(draw(number) // 255).save(tree / f"maps/walk/{number:05d}.png")
    with pytest.raises(ValueError, match="maps: expected maps of 0 to 255, found nothing above 1 in any of them"):
        score(tree)
    assert not (tree / "out").exists()


def test_frames_are_not_demanded_where_masks_alone_are_scored(tree, capsys):
    expected = score(tree)
    shutil.rmtree(tree / "DAVIS/JPEGImages")
    assert score(tree, overwrite=True) == expected
    found = score(tree, baselines=True, report=True, overwrite=True)
    assert (
        found == expected and "'flow magnitude' is left out: there are masks and no frames" in capsys.readouterr().out
    )
    assert (tree / "out/report.html").is_file()
    with pytest.raises(FileNotFoundError, match="JPEGImages"):
        score(tree, temporal_stability=True, overwrite=True)


def test_names_that_a_mac_took_apart_pair(tree):
    expected = score(tree)
    for folder, name in (
        ("DAVIS/JPEGImages/480p", "v\u00fd"),
        ("DAVIS/Annotations/480p", "v\u00fd"),
        ("maps", "vy\u0301"),
    ):
        (tree / folder / "walk").rename(tree / folder / name)
        for path in (tree / folder / name).iterdir():
            path.rename(path.with_name(("\u00e9" if folder != "maps" else "e\u0301") + path.name))
    found = score(tree, overwrite=True)
    assert {**found, "sequences": 0} == {**expected, "sequences": 0}


@pytest.mark.parametrize("folder", ["@eaDir", "__MACOSX"])
def test_folders_that_systems_make_are_no_sequences(tree, folder):
    for place in ("maps", "DAVIS/JPEGImages/480p", "DAVIS/Annotations/480p", "maps/walk"):
        (tree / place / folder).mkdir()
    assert score(tree)["mae"] == 0


@pytest.mark.parametrize("name", ["\u30d5" * 80, "=cmd|' calc'!A1", "a, b; c"])
def test_names_of_every_length_and_kind_are_reported(tree, name):
    for folder in ("DAVIS/JPEGImages/480p", "DAVIS/Annotations/480p", "maps"):
        (tree / folder / "walk").rename(tree / folder / name)
    with_report = len(name) > 20  # which takes seconds
    assert score(tree, report=with_report)["sequences"][name]["mae"] == 0
    assert (tree / "out/report.html").is_file() == with_report
