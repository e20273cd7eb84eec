"""Tests of the protocols: what is averaged over what, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import pickle

import numpy as np
import pytest

from msst_keras.evaluation.evaluator import Evaluator
from msst_keras.evaluation.protocols import PROTOCOLS, SCALARS

PAPER, PYSODMETRICS = PROTOCOLS["paper"], PROTOCOLS["pysodmetrics"]
DAVSOD, DAVIS16 = PROTOCOLS["davsod"], PROTOCOLS["davis16"]
CURVES = ["precision", "recall", "f_curve", "e_curve"]
KEYS = ["protocol", "num_frames", "num_sequences", *SCALARS, *CURVES, "sequences"]
MASK = np.array([[True, True, False, False]])


def _frames(num_frames, seed=0):
    """Maps and masks of random objects, the maps somewhat like them."""
    generator = np.random.default_rng(seed)
    for _ in range(num_frames):
        mask = np.zeros((12, 16), bool)
        mask[2 : generator.integers(4, 10), 3 : generator.integers(5, 12)] = True
        yield (0.5 * mask + 0.5 * generator.random(mask.shape)).astype(np.float32), mask


def _evaluate(protocol, *sequences):
    evaluator = Evaluator(protocol)
    for name, frames in sequences:
        for index, (saliency, mask) in enumerate(frames):
            evaluator.add(name, f"{index:05d}", saliency, mask)
    return evaluator


def test_every_protocol_is_listed_under_its_name():
    names = ("paper", "davsod", "davis16", "pysodmetrics")
    assert {name: protocol.name for name, protocol in PROTOCOLS.items()} == {name: name for name in names}


@pytest.mark.parametrize(
    "change, message",
    [
        ({"normalisation": "minmax"}, "protocol paper: normalisation must be one of .*'min_max'.* not 'minmax'"),
        ({"averaging": "pixels"}, "averaging must be one of"),
        ({"metrics": ("mae", "auc")}, r"metrics \['auc'\] are not among"),
        ({"metrics": ("mae", "j_mean")}, r"metrics \['j_mean'\] are not among"),
        ({"thresholds": "half"}, r"metrics \['adaptive_e', .*\] are not among \('j_mean', 'f_boundary_mean'\)"),
    ],
)
def test_a_protocol_of_unknown_rules_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(PAPER, **change)


PERFECT = {"mae": 0, "max_e": 192 / 191, "adaptive_e": 192 / 191}  # N / (N - 1) for E, and 1 for all the others


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=lambda protocol: protocol.name)
def test_a_perfect_map(protocol):
    result = _evaluate(protocol, ("a", [(mask.astype(np.float32), mask) for _, mask in _frames(3)])).result()
    exact = [name for name in protocol.metrics if not name.startswith("mean_")]
    assert {name: result[name] for name in exact} == pytest.approx({name: PERFECT.get(name, 1) for name in exact})
    if protocol.has_curves:
        assert result["mae"] == 0
        assert result["precision"][1:] == result["recall"][1:] == [1.0] * 255
        assert result["f_curve"][1:] == pytest.approx([1] * 255)
        assert result["e_curve"][1:] == pytest.approx([192 / 191] * 255)


@pytest.mark.parametrize("protocol", [DAVSOD, DAVIS16], ids=lambda protocol: protocol.name)
def test_the_first_and_the_last_annotated_frame_are_skipped(protocol):
    assert list(protocol.select_frames("camel", ["01", "20", "40", "60"])) == ["20", "40"]
    with pytest.raises(ValueError, match=f"^sequence camel has 2 annotated frames, and protocol {protocol.name} skips"):
        protocol.select_frames("camel", ["01", "20"])
    with pytest.raises(ValueError, match="sequence camel has 1 annotated frame, .* it needs 3; leave the sequence out"):
        protocol.select_frames("camel", ["01"])


def test_every_annotated_frame_counts():
    assert list(PAPER.select_frames("camel", ["01", "20"])) == ["01", "20"]


def test_sequences_weigh_the_same():
    # J: 1, 1, 1 in one sequence; 1/2 in the other.
    half = np.array([[255, 0, 0, 0]], np.uint8)
    result = _evaluate(DAVIS16, ("a", [(MASK * np.uint8(255), MASK)] * 3), ("b", [(half, MASK)])).result()
    assert (result["j_mean"], result["num_frames"]) == (0.75, 4)
    assert [result["sequences"][name]["j_mean"] for name in "ab"] == [1, 0.5]
    assert [result[name] for name in CURVES] == [None] * 4
    assert [name for name in SCALARS if result[name] is not None] == ["j_mean", "f_boundary_mean"]


def test_a_segmentation_is_the_map_from_one_half_on():
    frames = [(np.array([[level, level, 0, 0]], np.uint8), MASK) for level in (127, 128)]
    assert [_evaluate(DAVIS16, ("a", [frame])).result()["j_mean"] for frame in frames] == [0, 1]


def test_max_f_is_the_maximum_of_the_curve_averaged_over_frames_then_sequences():
    low, high = np.array([[80, 80, 0, 255]], np.uint8), np.array([[200, 200, 100, 0]], np.uint8)
    frames = {"a": [(low, MASK), (high, MASK), (high, MASK)], "b": [(low, MASK)]}
    curves = {name: [_evaluate(DAVSOD, ("x", [f])).result()["f_curve"] for f in fs] for name, fs in frames.items()}
    expected = np.mean([np.mean(curve, axis=0) for curve in curves.values()], axis=0)
    result = _evaluate(DAVSOD, *frames.items()).result()
    np.testing.assert_allclose(result["f_curve"], expected, rtol=0, atol=1e-12)
    assert result["max_f"] == pytest.approx(expected.max(), abs=1e-12)


def test_the_centroid_is_rounded_as_matlab_rounds_it():
    # Columns 0 and 1: the centroid, 0.5, is in column 1 for MATLAB, in column 0 for NumPy.
    mask = np.zeros((4, 4), bool)
    mask[1:3, 0:2] = True
    saliency = np.arange(16, dtype=np.uint8).reshape(4, 4) * 17
    frames = ("a", [(saliency, mask)])
    up, even = (_evaluate(p, frames).result()["s_measure"] for p in (DAVSOD, PROTOCOLS["pysodmetrics"]))
    assert up != even
    assert up == _evaluate(dataclasses.replace(PYSODMETRICS, centroid="half_up"), frames).result()["s_measure"]


def test_add_returns_the_scalars_of_that_frame():
    evaluator = Evaluator(PAPER)
    frames = list(_frames(2))
    for index, (saliency, mask) in enumerate(frames):
        scalars = evaluator.add("a", str(index), saliency, mask)
        alone = _evaluate(PAPER, ("a", [(saliency, mask)])).result()
        assert scalars == {name: alone[name] for name in PAPER.metrics}


def test_flicker_is_averaged_like_the_scores_over_its_own_frames():
    for protocol, expected in ((PAPER, 0.3), (DAVIS16, 0.35)):
        evaluator = _evaluate(protocol, ("a", _frames(1)), ("b", _frames(1)))
        for value in (0.1, 0.3):
            evaluator.add_flicker("a", value)
        evaluator.add_flicker("b", 0.5)
        result = evaluator.result()
        assert result["temporal_stability"] == pytest.approx(expected)
        assert [result["sequences"][name]["temporal_stability"] for name in "ab"] == pytest.approx([0.2, 0.5])


def test_result_has_the_keys_of_metrics_json_in_plain_values():
    result = _evaluate(PAPER, ("b", _frames(2)), ("a", _frames(1, seed=1))).result()
    assert list(result) == KEYS
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert (result["protocol"], result["num_frames"], result["num_sequences"]) == ("paper", 3, 2)
    assert [len(result[name]) for name in CURVES] == [256] * 4
    assert list(result["sequences"]) == ["a", "b"]
    assert all(list(scalars) == list(SCALARS) for scalars in result["sequences"].values())
    undefined = {name for name in SCALARS if result[name] is None}
    assert undefined == {"j_mean", "f_boundary_mean", "temporal_stability"}


def test_a_metric_that_the_protocol_does_not_define_is_null():
    result = _evaluate(dataclasses.replace(PAPER, metrics=("mae",)), ("a", _frames(1))).result()
    assert [name for name in SCALARS if result[name] is not None] == ["mae"]
    assert result["sequences"]["a"] == {name: result[name] for name in SCALARS}


def test_frames_of_all_sequences_weigh_the_same_however_sparse():
    # MAE .25 on three frames of one sequence, 1 on the only annotated frame of the other.
    close = np.array([[0, 255, 0, 0]], np.uint8)
    result = _evaluate(PAPER, ("dense", [(close, MASK)] * 3), ("sparse", [(~MASK * np.uint8(255), MASK)])).result()
    assert result["mae"] == pytest.approx((3 * 0.25 + 1) / 4)
    assert result["sequences"]["dense"]["mae"] == 0.25 and result["sequences"]["sparse"]["mae"] == 1


def test_how_the_f_curve_is_averaged():
    # Frame 1 finds half the object and nothing else: P = 1, R = 1/2. Frame 2 finds everything: P = 1/2, R = 1.
    frames = [(np.array([[255, 0, 0, 0]], np.uint8), MASK), (np.array([[255, 255, 255, 254]], np.uint8), MASK)]
    # The threshold 255 gives the best of both: frame 2 then has P = 2/3.
    precision, recall = (1 + 2 / 3) / 2, 0.75
    of_means = 1.3 * precision * recall / (0.3 * precision + recall)
    mean = (1.3 * 0.5 / (0.3 + 0.5) + 1.3 * (2 / 3) / (0.3 * 2 / 3 + 1)) / 2
    paper = _evaluate(PAPER, ("a", frames)).result()
    unnormalised = _evaluate(dataclasses.replace(PAPER, f_curve="mean"), ("a", frames)).result()
    assert paper["max_f"] == pytest.approx(of_means)
    assert unnormalised["max_f"] == pytest.approx(mean)
    assert paper["precision"][255] == pytest.approx(precision) and paper["recall"][255] == pytest.approx(recall)


def test_mean_and_max_of_the_curves():
    # At t = 0 everything is selected (P = 1/2, R = 1), from there to 255 the mask is.
    result = _evaluate(PAPER, ("a", [(MASK * np.uint8(255), MASK)])).result()
    assert result["mean_f"] == pytest.approx((1.3 * 0.5 / 1.15 + 255) / 256)
    assert result["mean_e"] == pytest.approx((4 * 0.25 / 3 + 255 * 4 / 3) / 256)


def test_normalisation():
    dim = np.array([[100, 100, 50, 50]], np.uint8)
    assert _evaluate(PAPER, ("a", [(dim, MASK)])).result()["mae"] == pytest.approx((155 + 50) / 510)
    assert _evaluate(PYSODMETRICS, ("a", [(dim, MASK)])).result()["mae"] == 0


def test_the_best_f_of_a_dataset_is_not_the_mean_of_the_sequences_best():
    # Each sequence alone has a threshold that is perfect for it; together they have none.
    low, high = np.array([[80, 80, 0, 0]], np.uint8), np.array([[200, 200, 100, 100]], np.uint8)
    result = _evaluate(PAPER, ("low", [(low, MASK)]), ("high", [(high, MASK)])).result()
    assert [scalars["max_f"] for scalars in result["sequences"].values()] == [1, 1]
    # At t = 1..80: P = (1 + .5) / 2, R = 1.
    assert result["max_f"] == pytest.approx(1.3 * 0.75 / (0.3 * 0.75 + 1))


def test_a_float_map_scores_as_the_8_bit_map_it_is_published_as():
    floats = [(saliency, mask) for saliency, mask in _frames(3)]
    levels = [(np.rint(255 * saliency).astype(np.uint8), mask) for saliency, mask in floats]
    read = [(saliency.astype(np.float32) / 255, mask) for saliency, mask in levels]
    results = [_evaluate(PAPER, ("a", frames)).result() for frames in (floats, levels, read)]
    assert results[0] == results[1] == results[2]


def test_a_map_of_another_size_is_resized_bilinearly():
    # Pixel centres aligned: 0, 1 over twice as many columns is 0, 1/4, 3/4, 1; then rounded to 8 bits.
    small, mask = np.array([[0.0, 1.0]], np.float32), np.array([[False, False, True, False]] * 2)
    expected = (0 + 64 + (255 - 191) + 255) / 4 / 255
    assert _evaluate(PAPER, ("a", [(small, mask)])).result()["mae"] == pytest.approx(expected)
    small = np.array([[0, 255]], np.uint8)
    assert _evaluate(PAPER, ("a", [(small, mask)])).result()["mae"] == pytest.approx(expected)


def test_a_map_of_another_shape_is_refused():
    evaluator = Evaluator(PAPER)
    evaluator.add("a", "0", np.zeros((240, 432), np.uint8), np.zeros((480, 854), bool))  # differs by 1.2 %
    with pytest.raises(ValueError, match=r"a, frame 1: the map is \(480, 480\) and the mask \(480, 854\).*than 5%"):
        evaluator.add("a", "1", np.zeros((480, 480), np.uint8), np.zeros((480, 854), bool))
    assert evaluator.result()["num_frames"] == 1


@pytest.mark.parametrize(
    "saliency, mask, message",
    [
        (np.full((1, 4), np.nan, np.float32), MASK, "NaN"),
        (np.full((1, 4), 1.5, np.float32), MASK, r"must lie in \[0, 1\], not run from 1.5 to 1.5"),
        (np.full((1, 4), -0.1, np.float32), MASK, r"must lie in \[0, 1\], not run from -0.1 to -0.1"),
        (np.full((1, 4), np.inf, np.float32), MASK, r"must lie in \[0, 1\], not run from inf to inf"),
        (np.zeros((1, 4), np.int32), MASK, r"must be \(H, W\) float in \[0, 1\] or uint8, not \(1, 4\) int32"),
        (np.zeros((1, 4, 1), np.uint8), MASK, r"must be \(H, W\) .*, not \(1, 4, 1\) uint8"),
        (np.zeros((0, 4), np.uint8), MASK, r"must be \(H, W\) .*, not \(0, 4\) uint8"),
        (np.zeros((1, 4), np.uint8), MASK.astype(np.uint8), r"mask must be \(H, W\) bool .*, not \(1, 4\) uint8"),
        (np.zeros((1, 4), np.uint8), MASK[0], r"mask must be \(H, W\) bool .*, not \(4,\) bool"),
        (np.zeros((1, 1), np.uint8), MASK[:, :1], r"at least two pixels, not \(1, 1\) bool"),
    ],
)
def test_arrays_that_cannot_be_scored(saliency, mask, message):
    evaluator = Evaluator(PAPER)
    with pytest.raises(ValueError, match=f"sequence bear, frame 00007: the .*{message}"):
        evaluator.add("bear", "00007", saliency, mask)
    with pytest.raises(ValueError, match="no frame was scored"):
        evaluator.result()


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=lambda protocol: protocol.name)
def test_merging_whole_sequences_gives_the_same_result_to_the_bit(protocol):
    sequences = [(name, list(_frames(3 + seed, seed))) for seed, name in enumerate("abcd")]
    whole = _evaluate(protocol, *sequences).result()
    first, second = _evaluate(protocol, *sequences[1:3]), _evaluate(protocol, sequences[3], sequences[0])
    second.merge(pickle.loads(pickle.dumps(first)))  # as it comes from another process
    assert second.result() == whole


def test_merging_parts_of_a_sequence_gives_the_same_result():
    frames = list(_frames(7))
    first, second = _evaluate(PAPER, ("a", frames[:3])), _evaluate(PAPER, ("a", frames[3:]))
    first.merge(second)
    merged, whole = first.result(), _evaluate(PAPER, ("a", frames)).result()
    assert merged["num_frames"] == 7
    assert merged["sequences"]["a"] == pytest.approx(whole["sequences"]["a"], abs=1e-12)
    assert merged["precision"] == pytest.approx(whole["precision"], abs=1e-12)


def test_merging_different_protocols_is_refused():
    with pytest.raises(ValueError, match="cannot merge scores under protocol pysodmetrics with paper's"):
        Evaluator(PAPER).merge(Evaluator(PYSODMETRICS))
