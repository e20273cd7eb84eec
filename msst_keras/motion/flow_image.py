"""Flow as an image of three channels: what the temporal stream of the light network sees in place of a motion prior."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from msst_keras.motion import regions
from msst_keras.motion.camera import FIT_STEP, check_camera
from msst_keras.motion.flow import FlowSettings
from msst_keras.motion.settings import LEVELS, ZERO_LEVEL

# Full scale is this percentile of a map's residual lengths: an object of 2 % of the frame reaches it, and a few wrong
# vectors do not. It is taken of the rows and columns that the camera's fit sees, since sorting all takes longer than
# the fit. Full scale is at least SMALLEST_SCALE pixels of the map: below that nothing moves for certain, and noise
# must not be blown up to look like motion.
SCALE_PERCENTILE = 98
SMALLEST_SCALE = 0.75


@keras.saving.register_keras_serializable(package="msst_keras")
class FlowImage(keras.Model):
    """The flow that is left without the camera's, robustly scaled, with the interface of `prior.MotionPrior`.

    Inputs: {"flow": (B, h, w, 2) float32, pixels per frame}; "superpixels" are allowed and ignored. Output:
    (B, h, w, 3) float32 in 0..1, multiples of 1/255: x and y of the residual flow and its length, each divided by the
    map's scale and cut at 1, as (ZERO_LEVEL + LEVELS * value) / 255.

    Nothing is trained. It needs neither superpixels nor a network, so it costs a tenth of a motion prior, and the
    network behind it learns what a region classifier would.

    Args:
        flow: Settings of the flow.
        camera: The motion of the camera that is removed, one of `camera.CAMERAS`. A homography describes a camera that
            turns, and a scene that is far away.
        **model_options: Options of `keras.Model`: name, trainable.
    """

    superpixel_settings = None
    needs_frames = False

    def __init__(self, flow: FlowSettings | dict | None = None, camera: str = "homography", **model_options: Any):
        super().__init__(dtype="float32", **model_options)
        self.flow_settings = FlowSettings.from_dict(flow) if isinstance(flow, dict) else flow or FlowSettings()
        self.camera = check_camera(camera)
        self.built = True

    def call(self, inputs: Mapping[str, keras.KerasTensor], training: bool = False) -> keras.KerasTensor:
        """The residual flow as an image, see the class."""
        residual = regions.subtract_camera_planes(inputs["flow"], self.camera)  # (B, 2, h, w)
        length = ops.sqrt(ops.sum(ops.square(residual), axis=1))
        scale = ops.maximum(regions.percentile(length[:, ::FIT_STEP, ::FIT_STEP], SCALE_PERCENTILE), SMALLEST_SCALE)
        image = ops.concatenate([residual, ops.expand_dims(length, 1)], axis=1) / ops.expand_dims(scale, 1)
        levels = (ZERO_LEVEL + ops.round(LEVELS * ops.clip(image, -1.0, 1.0))) / 255
        return ops.transpose(levels, (0, 2, 3, 1))

    def get_config(self) -> dict[str, Any]:
        """The arguments that make the same model again."""
        return {"name": self.name, "flow": self.flow_settings.to_dict(), "camera": self.camera}
