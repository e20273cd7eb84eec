"""`msst train` refuses what would not do what it says where batch norms are trained."""

from __future__ import annotations

import contextlib

import pytest

from msst_keras.jobs.train import _check_batch_norms
from msst_keras.model.options import ModelOptions
from msst_keras.training.options import OptimizerOptions, StepOptions, TrainingOptions, TrainOptions

LITE = {"backbone": "efficientnet_lite0"}


@pytest.mark.parametrize(
    ("network", "is_refused"),
    [
        ({}, False),  # VGG16 has none
        ({"backbone": "resnet50v2"}, False),  # its own stay as they are
        (LITE, True),
        (LITE | {"decoder": "topdown"}, True),
        ({"motion_backbone": "efficientnet_lite2"}, True),
        (LITE | {"batch_norm": "frozen"}, False),
        (LITE | {"batch_norm": "folded"}, False),
    ],
)
@pytest.mark.parametrize(
    ("training", "reason"),
    [
        (TrainingOptions(step=StepOptions(recompute=True)), "--recompute shows batch norms one frame at a time"),
        (TrainingOptions(optimizer=OptimizerOptions(backbone_factor=0.0)), "--backbone_factor=0 leaves the backbone's"),
    ],
)
def test_batch_norms_that_are_trained(network, is_refused, training, reason):
    options = TrainOptions(
        records=("records",), run_dir="run", prior=None, model=ModelOptions(**network), training=training
    )
    with pytest.raises(ValueError, match=reason) if is_refused else contextlib.nullcontext():
        _check_batch_norms(options)
