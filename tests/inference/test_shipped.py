"""The model that is installed with the package: it loads, follows what moves, and holds each weight once."""

from __future__ import annotations

import numpy as np

from msst_keras.inference.stream import SHIPPED_MODEL, SaliencyModel, SaliencyStream


def test_it_finds_what_moves():
    stream = SaliencyStream(SaliencyModel())
    rng = np.random.default_rng(0)
    background = rng.integers(90, 130, (144, 256, 3)).astype(np.uint8)
    maps, masks = [], []
    for index in range(4):
        frame, mask = background.copy(), np.zeros((144, 256), bool)
        mask[50:100, 60 + 6 * index : 120 + 6 * index] = True
        frame[mask] = (200, 60, 40)
        maps += stream.push(frame)
        masks.append(mask)
    maps += stream.close()
    assert len(maps) == 4
    for saliency, mask in zip(maps, masks, strict=True):
        assert saliency[mask].mean() > 0.5 > 0.2 > saliency[~mask].mean()


def test_it_is_small_and_holds_each_weight_once():
    size = sum(path.stat().st_size for path in SHIPPED_MODEL.rglob("*") if path.is_file())
    variables = (SHIPPED_MODEL / "1" / "variables" / "variables.data-00000-of-00001").stat().st_size
    settings = SaliencyModel().settings
    assert settings["model"]["variant"] == "st" and size < 25e6
    # 3.8 M parameters of 4 bytes
    assert variables < 1.1 * 4 * 3.82e6
