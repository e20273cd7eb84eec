"""SavedModels of random weights, for timings: they take the time of trained ones."""

from __future__ import annotations

from pathlib import Path

import keras

from msst_keras.model.msst import build_msst, fold_model
from msst_keras.motion.flow import FlowSettings
from msst_keras.motion.prior import MagnitudePrior, MotionPrior
from msst_keras.motion.superpixels import SuperpixelSettings
from msst_keras.serving.export import export_saved_model


def export_random_model(
    path: Path, backbone: str, image_size: tuple[int, int], precision: str = "float32", magnitude: bool = False
) -> keras.Model:
    """Exports the paper's network, variant msst over four frames, with a prior network of the same backbone.

    Args:
      path: its folder, which is made.
      backbone: of both streams, and of the prior.
      image_size: of the network.
      precision: of the network, as `msst export --precision`; the prior is in float32, as there.
      magnitude: whether the prior is flow's magnitude, without a network and superpixels.

    Returns:
      the network.
    """
    keras.utils.set_random_seed(0)
    flow, superpixels = FlowSettings(), SuperpixelSettings()
    keras.config.set_dtype_policy(precision)
    model = fold_model(build_msst("msst", backbone=backbone), {"variant": "msst", "backbone": backbone})
    keras.config.set_dtype_policy("float32")
    prior = MagnitudePrior(flow) if magnitude else MotionPrior(flow, superpixels, backbone)
    for weight in (*model.weights, *prior.weights):
        if weight.path.endswith("/bias"):  # zeros would be optimised away, and what follows them not be fused
            weight.assign(keras.random.uniform(weight.shape, -0.01, 0.01, seed=1))
    motion = {"flow": flow.to_dict(), "superpixels": superpixels.to_dict(), "prior": {"kind": "network", "sha256": "0"}}
    if magnitude:
        motion |= {"superpixels": None, "prior": {"kind": "magnitude"}}
    settings = {"num_frames": 4, "image_size": list(image_size), "motion": motion, "model": {"backbone": backbone}}
    export_saved_model(path, model, prior, settings)
    return model
