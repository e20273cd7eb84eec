"""Tests of pairing: nothing may be left over."""

from __future__ import annotations

import pytest

from msst_keras.evaluation.pairing import pair_maps


def test_pairs_follow_the_masks():
    masks = {"cat": ["0", "1"], "bear": ["0"]}
    assert pair_maps(masks, {"bear": ["0"], "cat": ["1", "0"]}) == [("cat", "0"), ("cat", "1"), ("bear", "0")]


def test_maps_of_frames_without_mask_are_left_out():
    maps = {"camel": ["01", "02", "03"], "unlabelled": ["01"]}
    frames = {"camel": ["01", "02", "03"], "unlabelled": ["01", "02"]}
    assert pair_maps({"camel": ["01", "03"]}, maps, frames) == [("camel", "01"), ("camel", "03")]


def test_maps_of_frames_that_are_not_scored_are_not_demanded():
    masks, scored = {"cat": ["0", "1", "2"]}, {"cat": ["1"]}
    assert pair_maps(masks, {"cat": ["0", "1"]}, scored_names=scored) == [("cat", "1")]
    with pytest.raises(ValueError, match=r"^1 of 1 masks have no map \(cat/1\)"):
        pair_maps(masks, {"cat": ["0", "2"]}, scored_names=scored)


@pytest.mark.parametrize(
    "maps, message",
    [
        ({"cat": [str(i) for i in range(1, 9)]}, r"^1 of 9 masks have no map \(cat/0\): make them, or leave"),
        ({}, r"^9 of 9 masks have no map \(cat/0, cat/1, cat/2, cat/3, cat/4, \.\.\.\): "),
        ({"cat": [str(i) for i in range(11)]}, r"^2 maps belong to no frame \(cat/9, cat/10\): "),
        ({"cat": [str(i) for i in range(9)], "dog": ["0"]}, r"^1 sequences of maps are unknown \(dog\): "),
        ({"cat": [*"0112345678"]}, r"^1 frames have two maps \(cat/1\): "),
        ({"cat": ["00", *"12345678"]}, r"^1 of 9 masks have no map \(cat/0\); 1 maps belong to no frame \(cat/00\): "),
    ],
)
def test_maps_that_do_not_pair_are_listed(maps, message):
    with pytest.raises(ValueError, match=message):
        pair_maps({"cat": [str(i) for i in range(9)]}, maps)
