"""A model of random weights as `msst export` writes it, made once for all tests that only need some model."""

from __future__ import annotations

import fcntl

NUM_FRAMES, STRIDE = 3, 2


def export_once(folder):
    """Returns folder/model, a SavedModel whose maps depend on three frames and on flow over two."""
    path = folder / "model"
    with open(folder / "model.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (path / "1").exists():
            _export(path / "1")
    return path


def _export(path):
    import keras
    import numpy as np

    from msst_keras.model.msst import build_msst
    from msst_keras.motion.flow import FlowSettings
    from msst_keras.motion.prior import MagnitudePrior
    from msst_keras.serving.export import export_saved_model

    keras.utils.set_random_seed(0)
    generator = np.random.default_rng(1)
    model = build_msst("msst", num_frames=NUM_FRAMES, width=0.0625)
    for weight in model.trainable_weights:
        if weight.path.endswith(("_map/kernel", "recurrent_map/kernel")):
            weight.assign(generator.normal(size=weight.shape))
    flow = FlowSettings(motion_size=(32, 48), stride=STRIDE)
    motion = {"flow": flow.to_dict(), "superpixels": None, "prior": {"kind": "magnitude"}}
    settings = {"num_frames": NUM_FRAMES, "image_size": (33, 49), "motion": motion}
    export_saved_model(path, model, MagnitudePrior(), settings)
