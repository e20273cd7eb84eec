"""The dense CRF: parity with pydensecrf (committed outputs; live where it is installed), properties and errors."""

from __future__ import annotations

import math
import platform
import sys
from pathlib import Path

import numpy as np
import pytest

from msst_keras.inference import crf as crf_module
from msst_keras.inference.crf import CRF_PRESETS, CrfOptions, DenseCrf, refine
from msst_keras.inference.parallel import map_in_order
from msst_keras.inference.permutohedral import PermutohedralLattice

REFERENCE_PATH = Path(__file__).parent / "data" / "crf_reference.npz"  # written by make_reference.py beside it
CASES = [(name, index) for name in ("astronaut", "coffee", "chelsea") for index in (0, 1)]


def read_case(name: str, index: int) -> tuple[np.ndarray, np.ndarray, CrfOptions, np.ndarray]:
    with np.load(REFERENCE_PATH) as arrays:
        iterations, *others = arrays[f"{name}_options"][index].tolist()
        saliency = arrays[f"{name}_saliency"].astype(np.float32) / 255
        refined = arrays[f"{name}_refined"][index] / 65535
        return arrays[f"{name}_frame"], saliency, CrfOptions(int(iterations), *others), refined


@pytest.fixture
def frame() -> np.ndarray:
    return read_case("astronaut", 0)[0]


@pytest.fixture
def saliency() -> np.ndarray:
    return read_case("astronaut", 0)[1]


@pytest.mark.parametrize("name, index", CASES)
def test_committed_outputs_of_pydensecrf(name, index):
    frame, saliency, options, expected = read_case(name, index)
    refined = refine(frame, saliency, options)
    assert refined.dtype == np.float32
    assert np.abs(expected - saliency).mean() > 0.15  # the reference does change the map
    np.testing.assert_allclose(refined, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name, index", CASES)
def test_live_parity(name, index):
    pytest.importorskip("pydensecrf")
    frame, saliency, options, expected = read_case(name, index)
    reference = refine(frame, saliency, options, backend="pydensecrf")
    np.testing.assert_allclose(reference, expected, rtol=0, atol=1e-4)
    np.testing.assert_allclose(refine(frame, saliency, options), reference, rtol=0, atol=1e-4)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="pydensecrf fills up with zeros on x86 alone")
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 5), (2, 23), (15, 11), (37, 53)])
@pytest.mark.parametrize("brightness", [0.03, 1.0])
def test_live_parity_of_small_odd_frames(size, brightness):
    # Small dark frames show whether the lattice is the same to the last vertex.
    pytest.importorskip("pydensecrf")
    random = np.random.default_rng(size[0] * size[1])
    frame = (random.integers(0, 256, (*size, 3)) * brightness).astype(np.uint8)
    saliency = random.random(size, dtype=np.float32)
    for options in (CrfOptions(), CrfOptions(2, 1.0, 3, 20, 13, 5)):
        reference = refine(frame, saliency, options, backend="pydensecrf")
        np.testing.assert_allclose(refine(frame, saliency, options), reference, rtol=0, atol=1e-4)


@pytest.mark.parametrize("backend", ["numpy", "pydensecrf"])
def test_one_pixel_by_hand(backend):
    # Normalised, the kernels of a single pixel are 1: each update adds compat * (2 Q1 - 1) to the unary log odds.
    if backend == "pydensecrf":
        pytest.importorskip("pydensecrf")
    frame, saliency = np.full((1, 1, 3), 90, np.uint8), np.full((1, 1), 0.6, np.float32)
    once = 1 / (1 + math.exp(-(math.log(0.6 / 0.4) + (3 + 5) * (2 * 0.6 - 1))))
    twice = 1 / (1 + math.exp(-(math.log(0.6 / 0.4) + (3 + 5) * (2 * once - 1))))
    assert refine(frame, saliency, CrfOptions(iterations=1), backend)[0, 0] == pytest.approx(once, abs=1e-6)
    assert refine(frame, saliency, CrfOptions(iterations=2), backend)[0, 0] == pytest.approx(twice, abs=1e-6)


def test_one_pixel_by_hand_with_the_energies_of_dss():
    frame, saliency = np.full((1, 1, 3), 90, np.uint8), np.full((1, 1), 0.6, np.float32)

    def energy(probability):
        return -math.log(probability + 1e-8) * (1 + math.exp(-probability)) / 1.05

    unary = energy(0.4) - energy(0.6)
    log_odds = unary + (3 + 5) * math.tanh(unary / 2)  # the first estimate, of these energies alone, is not 0.6
    assert refine(frame, saliency, CRF_PRESETS["dss"])[0, 0] == pytest.approx(1 / (1 + math.exp(-log_odds)), abs=1e-6)


def test_presets_are_what_their_authors_published():
    kernels = {"gaussian_sxy": 3, "gaussian_compat": 3, "bilateral_sxy": 60, "bilateral_srgb": 5, "bilateral_compat": 5}
    assert CRF_PRESETS["pdb"] == CrfOptions(iterations=5, unary="log", **kernels) == CrfOptions()
    assert CRF_PRESETS["dss"] == CrfOptions(iterations=1, unary="dss", **kernels)


@pytest.mark.parametrize("preset", list(CRF_PRESETS))
def test_presets_agree_between_backends(preset, frame, saliency):
    pytest.importorskip("pydensecrf")
    reference = refine(frame, saliency, CRF_PRESETS[preset], backend="pydensecrf")
    assert np.abs(reference - saliency).max() > 0.2
    np.testing.assert_allclose(refine(frame, saliency, CRF_PRESETS[preset]), reference, rtol=0, atol=1e-4)


def test_a_batch_of_maps_on_one_frame_costs_the_lattice_once(frame, saliency, monkeypatch):
    built = []

    class CountedLattice(PermutohedralLattice):
        def __init__(self, features):
            built.append(len(features))
            super().__init__(features)

    monkeypatch.setattr(crf_module, "PermutohedralLattice", CountedLattice)
    crf_module._spatial_kernel.cache_clear()
    crf = DenseCrf(frame)
    maps = [crf.refine(saliency * np.float32(scale)) for scale in (1, 0.8, 0.6, 0.4)]
    assert sorted(built) == [2, 5]  # one lattice of positions, one of positions and colours
    refine(np.ascontiguousarray(frame[::-1]), saliency)
    assert sorted(built) == [2, 5, 5]  # another frame of that size shares the first
    assert len({refined.tobytes() for refined in maps}) == 4


@pytest.mark.parametrize("num_workers", [2, 3])
def test_frames_side_by_side_give_the_same_bytes_in_the_same_order(num_workers):
    items = [read_case(name, index)[:2] for name, index in CASES] * 2

    def refine_one(item):
        return refine(*item, CrfOptions(iterations=2)).tobytes()

    assert list(map_in_order(refine_one, items, num_workers)) == [refine_one(item) for item in items]


def test_edges_of_the_frame_attract_the_map():
    # A bright square on a dark ground and a map blurred across its border: the refined one is cut along the border.
    mask = np.zeros((60, 80), bool)
    mask[18:42, 25:60] = True
    frame = np.where(mask[..., None], np.uint8(200), np.uint8(40)).repeat(3, axis=2)
    rows, columns = np.indices(mask.shape)
    blurred = np.exp(-(((rows - 30) / 17) ** 2 + ((columns - 42) / 24) ** 2)).astype(np.float32)
    refined = refine(frame, blurred)
    assert np.abs(blurred - mask).mean() > 0.15
    assert np.abs(refined - mask).mean() < 0.01


def test_complement(frame, saliency):
    # The two labels are treated alike.
    np.testing.assert_allclose(refine(frame, 1 - saliency), 1 - refine(frame, saliency), atol=1e-4)


def test_undecided_map_stays_undecided(frame):
    np.testing.assert_allclose(refine(frame, np.full(frame.shape[:2], 0.5, np.float32)), 0.5, atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_all_zero_and_all_one_maps_stay(frame, value):
    refined = refine(frame, np.full(frame.shape[:2], value, np.float32))
    np.testing.assert_allclose(refined, value, atol=1e-5)
    assert refined.min() >= 0 and refined.max() <= 1


def test_constant_frame_smooths_noise():
    # Without edges the pixels of a weakly salient map vote, so single dissenters join the rest.
    saliency = np.full((40, 50), 0.7, np.float32)
    saliency[::7, ::7] = 0.1
    assert refine(np.full((40, 50, 3), 128, np.uint8), saliency).min() > 0.99


def test_lattice_is_reused_and_inputs_are_left_alone(frame, saliency):
    crf = DenseCrf(frame)
    frame_before, saliency_before = frame.copy(), saliency.copy()
    first = crf.refine(saliency)
    assert np.abs(crf.refine(1 - saliency) - first).max() > 0.9
    np.testing.assert_array_equal(crf.refine(saliency), first)
    np.testing.assert_array_equal(refine(frame, saliency), first)
    np.testing.assert_array_equal(frame, frame_before)
    np.testing.assert_array_equal(saliency, saliency_before)


@pytest.mark.parametrize("backend", ["numpy", "pydensecrf"])
def test_strided_views(frame, saliency, backend):
    if backend == "pydensecrf":
        pytest.importorskip("pydensecrf")
    frame, saliency = frame[:, ::-1, ::-1], saliency[:, ::-1]
    expected = refine(np.ascontiguousarray(frame), np.ascontiguousarray(saliency), backend=backend)
    np.testing.assert_array_equal(refine(frame, saliency, backend=backend), expected)


def test_numpy_scalars_as_options_keep_float32(frame, saliency):
    options = CrfOptions(np.int64(1), np.float64(3), np.float64(3), np.float64(60), np.float64(5), np.float64(5))
    refined = refine(frame, saliency, options)
    assert refined.dtype == np.float32
    np.testing.assert_array_equal(refined, refine(frame, saliency, CrfOptions(iterations=1)))


@pytest.mark.parametrize(
    "wrong, message",
    [
        ([[1]], "must be a .H, W, 3. uint8 array, got list"),
        (np.zeros((4, 5, 3), np.float32), "got shape .4, 5, 3. of float32"),
        (np.zeros((4, 5), np.uint8), "got shape .4, 5. of uint8"),
        (np.zeros((4, 5, 4), np.uint8), "got shape .4, 5, 4."),
        (np.zeros((0, 5, 3), np.uint8), "got shape .0, 5, 3."),
    ],
)
def test_wrong_frame(wrong, message):
    with pytest.raises(ValueError, match=message):
        DenseCrf(wrong)


@pytest.mark.parametrize(
    "wrong, message",
    [
        (np.zeros((5, 4), np.float32), "float32 array of its frame's size .4, 5., got shape .5, 4."),
        (np.zeros((4, 5), np.float64), "got shape .4, 5. of float64"),
        (np.zeros((4, 5), np.uint8), "of uint8"),
        (np.full((4, 5), np.nan, np.float32), "must lie in .0, 1., its values go from nan to nan"),
        (np.full((4, 5), -0.25, np.float32), "its values go from -0.25 to -0.25"),
        (np.full((4, 5), 255, np.float32), "its values go from 255.0 to 255.0"),
    ],
)
def test_wrong_saliency(wrong, message):
    with pytest.raises(ValueError, match=message):
        DenseCrf(np.zeros((4, 5, 3), np.uint8)).refine(wrong)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"iterations": 0}, "iterations must be a whole number of at least 1, got 0"),
        ({"iterations": 2.5}, "got 2.5"),
        ({"gaussian_sxy": 0}, "gaussian_sxy must be a positive number, got 0"),
        ({"bilateral_sxy": -1}, "bilateral_sxy must be a positive number"),
        ({"bilateral_srgb": math.nan}, "bilateral_srgb must be a positive number, got nan"),
        ({"gaussian_compat": -1}, "gaussian_compat must be zero or a positive number, got -1"),
        ({"bilateral_compat": math.inf}, "bilateral_compat must be zero or a positive number, got inf"),
        ({"unary": "softmax"}, "unary must be one of log, dss, got 'softmax'"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        CrfOptions(**options)


def test_too_narrow_kernel(frame):
    with pytest.raises(ValueError, match="use wider Gaussians"):
        DenseCrf(frame, CrfOptions(bilateral_srgb=1e-4))


def test_unknown_backend(frame):
    with pytest.raises(ValueError, match="backend must be one of numpy, pydensecrf, got 'cuda'"):
        DenseCrf(frame, backend="cuda")


def test_missing_backend(frame, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", None)
    with pytest.raises(ValueError, match="backend pydensecrf is not installed: pip install pydensecrf2"):
        DenseCrf(frame, backend="pydensecrf")
