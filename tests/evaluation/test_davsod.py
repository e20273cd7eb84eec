"""The protocol `davsod` against its published definition, written out slowly: EvaluateTool/main.m of DAVSOD.

One step of the evaluation program after the other, in floating point, one threshold at a time, without a histogram.
"""

from __future__ import annotations

import numpy as np
import pytest

from msst_keras.evaluation.evaluator import Evaluator
from msst_keras.evaluation.protocols import PROTOCOLS

EPS = np.finfo(float).eps


def slow_davsod(sequences):
    """max F, mean F, adaptive F, S and MAE of {name: [(map uint8, mask bool), ...]}, with all annotated frames."""
    of_sequences = []
    for frames in sequences.values():
        of_frames = []
        for levels, mask in frames[1:-1]:  # the first and the last are skipped
            saliency = levels / 255
            if saliency.max() > saliency.min():
                saliency = (saliency - saliency.min()) / (saliency.max() - saliency.min())
            curve = [slow_f(saliency, mask, t / 255) for t in range(256)]
            adaptive = slow_f(saliency, mask, min(2 * saliency.mean(), 1))
            of_frames.append([*curve, adaptive, slow_s(saliency, mask), np.abs(mask - saliency).mean()])
        of_sequences.append(np.mean(of_frames, axis=0))
    *curve, adaptive, s_measure, mae = np.mean(of_sequences, axis=0)
    return {"max_f": max(curve), "mean_f": np.mean(curve), "adaptive_f": adaptive, "s_measure": s_measure, "mae": mae}


def slow_f(saliency, mask, threshold):
    selected = saliency >= threshold
    hits = (selected & mask).sum()
    if hits == 0:
        return 0.0
    precision, recall = hits / selected.sum(), hits / mask.sum()
    return 1.3 * precision * recall / (0.3 * precision + recall)


def slow_s(saliency, mask):
    if not mask.any():
        return 1 - saliency.mean()
    if mask.all():
        return saliency.mean()
    share = mask.mean()
    objects = share * slow_object(saliency[mask]) + (1 - share) * slow_object(1 - saliency[~mask])
    # MATLAB counts from 1 and rounds halves up; the quadrants are (1:Y, 1:X) and the rest.
    rows, columns = np.nonzero(mask)
    y, x = int(np.floor((rows + 1).mean() + 0.5)), int(np.floor((columns + 1).mean() + 0.5))
    regions = 0
    for part in (np.s_[:y, :x], np.s_[:y, x:], np.s_[y:, :x], np.s_[y:, x:]):
        regions += saliency[part].size / saliency.size * slow_ssim(saliency[part].ravel(), mask[part].ravel() * 1.0)
    return max(0, 0.5 * objects + 0.5 * regions)


def slow_object(values):
    return 2 * values.mean() / (values.mean() ** 2 + 1 + np.std(values, ddof=1) + EPS)


def slow_ssim(a, b):
    covariance = ((a - a.mean()) * (b - b.mean())).sum() / (a.size - 1 + EPS)
    variances = ((a - a.mean()) ** 2).sum() / (a.size - 1 + EPS) + ((b - b.mean()) ** 2).sum() / (b.size - 1 + EPS)
    alpha, beta = 4 * a.mean() * b.mean() * covariance, (a.mean() ** 2 + b.mean() ** 2) * variances
    if alpha != 0:
        return alpha / (beta + EPS)
    return 1.0 if beta == 0 else 0.0


def _dataset(kind, seed):
    """Three sequences of 3 to 7 frames with objects inside the frame, some of even width (centroids on a half)."""
    generator = np.random.default_rng(seed)
    sequences = {}
    for name in "abc":
        frames = []
        for _ in range(generator.integers(3, 8)):
            mask = np.zeros((24, 33), bool)
            top, left = generator.integers(1, 8), generator.integers(1, 12)
            mask[top : top + generator.integers(2, 12), left : left + generator.integers(2, 16)] = True
            soft = 0.6 * mask + generator.uniform(0, 0.5, mask.shape)
            if kind == "binary":
                soft = (soft > 0.45) * 1.0
            elif kind == "narrow":
                soft = 0.3 + 0.2 * soft
            elif kind == "few levels":
                soft = np.round(soft * 5) / 6
            frames.append((np.rint(255 * np.clip(soft, 0, 1)).astype(np.uint8), mask))
        sequences[name] = frames
    return sequences


def _evaluate(sequences):
    protocol = PROTOCOLS["davsod"]
    evaluator = Evaluator(protocol)
    for name, frames in sequences.items():
        for index in protocol.select_frames(name, range(len(frames))):
            evaluator.add(name, str(index), *frames[index])
    return evaluator.result()


@pytest.mark.parametrize("kind", ["soft", "binary", "narrow", "few levels"])
@pytest.mark.parametrize("seed", range(3))
def test_equals_the_published_definition(kind, seed):
    sequences = _dataset(kind, seed)
    result, expected = _evaluate(sequences), slow_davsod(sequences)
    assert {name: result[name] for name in expected} == pytest.approx(expected, rel=0, abs=1e-12)


def test_equals_the_published_definition_with_a_mask_that_is_empty_or_full():
    sequences = _dataset("soft", 5)
    sequences["a"][1] = sequences["a"][1][0], np.zeros((24, 33), bool)
    sequences["b"][1] = sequences["b"][1][0], np.ones((24, 33), bool)
    result, expected = _evaluate(sequences), slow_davsod(sequences)
    assert {name: result[name] for name in expected} == pytest.approx(expected, rel=0, abs=1e-12)


def test_real_maps_equal_the_published_definition(real_data):
    """Two published sequences, every tenth frame."""
    from msst_keras.data import images
    from msst_keras.data.masks import read_mask

    sequences = {}
    for name in ("dog", "soapbox"):
        masks = sorted((real_data / "davis16/Annotations/480p" / name).glob("*.png"))[::20]
        maps = [real_data / "results/segflow" / name / path.name for path in masks]
        sequences[name] = [
            (np.rint(images.read_map(a) * 255).astype(np.uint8), read_mask(b, "nonzero"))
            for a, b in zip(maps, masks, strict=True)
        ]
    result, expected = _evaluate(sequences), slow_davsod(sequences)
    assert {name: result[name] for name in expected} == pytest.approx(expected, rel=0, abs=1e-9)
