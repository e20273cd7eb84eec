"""The motion prior (section 3.1): flow and its superpixels to a map of how salient the motion is.

    flow (B, h, w, 2) -> colours -> backbone -> deep features ─┐
    (frame (B, H, W, 3) -> backbone -> deep features)  ────────┤
    superpixels (B, h, w, M) ──────────────────────────────────┴─> means over regions in context -> 300 -> 300 -> scores
    scores painted on their regions and averaged over the M levels (Eq. 1) -> prior (B, h, w, 1)

The deep features are those of MDF (the paper's [16]) but for one thing: MDF runs its network on three windows cut
around each region; here it runs once on the map, and a region's features are means over the cells of the same three
contexts. Hundreds of regions thus cost one pass.

Written with keras and keras.ops alone. Batch, height and width are free.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import keras
from keras import ops

from msst_keras.model.backbones import build_backbone, output_strides
from msst_keras.motion import regions
from msst_keras.motion.camera import check_camera
from msst_keras.motion.flow import FlowSettings
from msst_keras.motion.superpixels import SuperpixelSettings

HIDDEN_UNITS = 300  # of each of the two hidden layers: the "three-layer neural network (300 neurons)" of section 3.1
_OUTPUT_STRIDE = 16

Inputs = Mapping[str, keras.KerasTensor]  # what a prior sees, by name; see the classes
Settings = TypeVar("Settings", FlowSettings, SuperpixelSettings)


@keras.saving.register_keras_serializable(package="msst_keras")
class MotionPrior(keras.Model):
    """Scores of superpixels by their deep features, averaged over the segmentations (Eq. 1).

    Inputs: {"flow": (B, h, w, 2) float32, x then y, pixels per frame; "superpixels": (B, h, w, M) int32, labels below
    `max_regions`; with `rgb_features` also "frame": (B, H, W, 3) uint8 or float32 RGB in 0..255, of any size: it is
    resized here to the flow's, which then must be `flow_settings.motion_size`}. Output: (B, h, w, 1) float32 in 0..1,
    multiples of 1/255 as records hold it; unrounded if `training`.

    Features are both outputs of the backbone and the colours themselves. The middle output keeps detail, the last one
    sees most of the map; ImageNet files without classifier leave the convolutions behind the last one random, and such
    features alone would carry less. The colours are there because superpixels can be smaller than the 16 pixels of a
    cell: after a short training on generated motion max F is .83 with them, .80 without.

    One `.keras` file holds the weights and all settings.

    Attributes:
        flow_settings: How the flow it was trained on is made.
        superpixel_settings: How its superpixels are.
        backbone_weights: What the backbone started from.
    """

    def __init__(
        self,
        flow: FlowSettings | dict | None = None,
        superpixels: SuperpixelSettings | dict | None = None,
        backbone: str = "vgg16",
        width: float = 1.0,
        backbone_weights: str = "none",
        train_backbone: bool | None = None,
        camera: str = "homography",
        rgb_features: bool = False,
        classifier_per_level: bool = False,
        shared_backbone: keras.Model | None = None,
        **model_options: Any,
    ):
        """Makes an untrained prior.

        Args:
            flow: Settings or their `to_dict`; None for the defaults, here and below.
            superpixels: Likewise; `num_levels` and `max_regions` are built in.
            backbone, width: See `build_backbone`.
            backbone_weights: "none", "imagenet" or a file; see `build_backbone`.
            train_backbone: Whether the backbone is trained with the classifier. None, the default, trains one without
                weights and leaves one with weights as it is: then the features are MDF's, learned on ImageNet.
            camera: Which motion of the camera is removed before the map is coloured, one of `camera.CAMERAS`. The paper
                does not say. Removed, the same motion has the same colour under every motion of the camera. The default
                leaves least: S of the residual magnitude on 27 DAVIS-2016 training sequences is .278 of none, .681 of
                median, .715 of affine and .723 of homography (max F .221, .618, .643, .643; `python
                benchmarks/prior_choices.py --root=DAVIS_TRAIN --every=10`). A trained prior gains little: on five
                sequences held out max F is .695 of homography and .696 of median, S .782 and .777 (the command below
                with --camera). On the small generated videos of `msst demo` median is better (.815 and .783 for .771
                and .742).
            rgb_features: Whether features of the frame stand beside those of the flow, pooled over the same regions.
                The paper has none, hence False; they help: on five training sequences held out from the others max F
                goes from .695 to .762, S from .782 to .815 (MobileNetV2, M = 3; `python benchmarks/prior.py
                --train_root=DAVIS_TRAIN --hold_out=5 --every=6 --train_every=10`). Both passes go through the same
                weights: those of ImageNet are the same anyhow, and a backbone trained here has too few maps to learn
                two.
            classifier_per_level: True is the letter of Eq. 1, a classifier S^j per segmentation. False shares one,
                which sees M times the samples and may be smaller than its training set.
            shared_backbone: The backbone of another such prior, which this one is to have too; see `spawn`.

        Raises:
            ValueError: An argument is out of range.
            FileNotFoundError: The weights file is missing.
        """
        # In float32 under every policy: bfloat16 has no room for flow. The layers inside follow the policy.
        super().__init__(dtype="float32", **model_options)
        self.flow_settings = _read_settings(FlowSettings, flow)
        self.superpixel_settings = _read_settings(SuperpixelSettings, superpixels)
        self.backbone_weights = backbone_weights
        self._options: dict[str, Any] = {
            "backbone": backbone,
            "width": width,
            "train_backbone": backbone_weights == "none" if train_backbone is None else bool(train_backbone),
            "camera": check_camera(camera),
            "rgb_features": bool(rgb_features),
            "classifier_per_level": classifier_per_level,
        }
        self.backbone = shared_backbone or build_backbone(
            backbone, output_stride=_OUTPUT_STRIDE, width=width, weights=backbone_weights
        )
        self._strides = output_strides(backbone, _OUTPUT_STRIDE)
        self.backbone.trainable = self._options["train_backbone"]
        num_images = 2 if self.needs_frames else 1
        num_features = 3 + sum(output.shape[-1] for output in self.backbone.outputs)
        num_features *= regions.NUM_CONTEXTS * num_images
        num_classifiers = self.superpixel_settings.num_levels if classifier_per_level else 1
        self.classifiers = [_build_classifier(num_features) for _ in range(num_classifiers)]
        self.built = True

    @property
    def needs_frames(self) -> bool:
        """Whether the input "frame" is used."""
        return self._options["rgb_features"]

    def spawn(self) -> MotionPrior:
        """A prior of the same kind that was not trained; it shares a backbone that is not trained either."""
        shared = None if self._options["train_backbone"] else self.backbone
        return MotionPrior(**self.get_config(), shared_backbone=shared)

    def pool_features(self, inputs: Inputs, training: bool = False) -> keras.KerasTensor:
        """What the regions are classified by.

        Args:
            inputs: See the class.
            training: Passed to the backbone.

        Returns:
            (B, M, R, F) float32, R the most regions of a level of this batch; see `regions.pool_regions`.

        Raises:
            ValueError: The inputs have the wrong names, ranks or number of levels.
        """
        frame_size = self.flow_settings.motion_size if self.needs_frames else None
        _check_inputs(inputs, self.superpixel_settings.num_levels, frame_size)
        flow = inputs["flow"]
        images = [regions.color_flow(flow, self._options["camera"])]
        if self.needs_frames:
            frame = ops.cast(inputs["frame"], "float32")
            images.append(ops.image.resize(frame, self.flow_settings.motion_size, antialias=True))
        features = [output for image in images for output in self.backbone(image, training=training)]
        pixels = ops.concatenate(images, axis=-1) / 127.5 - 1
        superpixels = ops.cast(inputs["superpixels"], "int32")
        # Rows for the regions that there are: half of the usual maps', whose number is well below max_regions.
        num_regions = ops.max(superpixels) + 1
        return regions.pool_regions(pixels, features, self._strides * len(images), superpixels, num_regions)

    def classify(self, pooled: keras.KerasTensor, training: bool = False) -> keras.KerasTensor:
        """Scores before the sigmoid, of what `pool_features` returned: (B, M, R) float32 logits."""
        if len(self.classifiers) == 1:
            logits = self.classifiers[0](pooled, training=training)
        else:
            levels = [classify(pooled[:, m : m + 1], training=training) for m, classify in enumerate(self.classifiers)]
            logits = ops.concatenate(levels, axis=1)
        return ops.cast(logits[..., 0], "float32")

    def score_regions(self, inputs: Inputs, training: bool = False) -> keras.KerasTensor:
        """Scores before the sigmoid.

        Args:
            inputs: See the class.
            training: Passed to the layers.

        Returns:
            (B, M, max_regions) float32 logits; those of regions without pixels mean nothing.

        Raises:
            ValueError: The inputs have the wrong names, ranks or number of levels.
        """
        return self.score_pooled(self.pool_features(inputs, training), training)

    def score_pooled(self, pooled: keras.KerasTensor, training: bool = False) -> keras.KerasTensor:
        """`score_regions` of what `pool_features` returned."""
        logits = self.classify(pooled, training)
        missing = self.superpixel_settings.max_regions - ops.shape(logits)[-1]
        return ops.pad(logits, [[0, 0], [0, 0], [0, missing]])

    def call(self, inputs: Inputs, training: bool = False) -> keras.KerasTensor:
        """The prior of each flow map, see the class."""
        scores = ops.sigmoid(self.score_regions(inputs, training))
        prior = regions.paint_scores(scores, ops.cast(inputs["superpixels"], "int32"))
        return prior if training else _round(prior)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments but for a shared backbone."""
        settings = {"flow": self.flow_settings.to_dict(), "superpixels": self.superpixel_settings.to_dict()}
        return {"name": self.name, **settings, **self._options, "backbone_weights": self.backbone_weights}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> MotionPrior:
        """The inverse of `get_config`, also for files of earlier versions. The weights are loaded afterwards."""
        config = dict(config)
        if "remove_median" in config:  # of a file from before there were other cameras
            config["camera"] = "median" if config.pop("remove_median") else "none"
        # The weights come from the file that holds the configuration; where they once came from may be out of reach.
        prior = cls(**{**config, "backbone_weights": "none"})
        prior.backbone_weights = config["backbone_weights"]
        return prior


@keras.saving.register_keras_serializable(package="msst_keras")
class MagnitudePrior(keras.Model):
    """The residual magnitude of flow, `flow_pictures.magnitude_prior`, as a model like MotionPrior; nothing is trained.

    Inputs: {"flow": (B, h, w, 2) float32}; "superpixels" may be there and are ignored. Output: (B, h, w, 1) float32
    in 0..1, multiples of 1/255; unrounded if `training`.
    """

    superpixel_settings = None
    needs_frames = False

    def __init__(self, flow: FlowSettings | dict | None = None, camera: str = "median", **model_options: Any):
        super().__init__(dtype="float32", **model_options)
        self.flow_settings = _read_settings(FlowSettings, flow)
        self.camera = check_camera(camera)
        self.built = True

    def call(self, inputs: Inputs, training: bool = False) -> keras.KerasTensor:
        """The magnitude of each flow map, see the class."""
        _check_inputs(inputs)
        prior = regions.residual_magnitude(inputs["flow"], self.camera)
        return prior if training else _round(prior)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"name": self.name, "flow": self.flow_settings.to_dict(), "camera": self.camera}


def _build_classifier(num_features: int) -> keras.Sequential:
    layers = keras.layers
    classifier = keras.Sequential(
        [
            # Features differ in size between backbones and between maps.
            layers.LayerNormalization(),
            layers.Dense(HIDDEN_UNITS, activation="relu", kernel_initializer="he_normal"),
            layers.Dense(HIDDEN_UNITS, activation="relu", kernel_initializer="he_normal"),
            layers.Dense(1),
        ],
        name="classifier",
    )
    classifier.build((None, None, None, num_features))
    return classifier


def _read_settings(kind: type[Settings], settings: Settings | Mapping[str, Any] | None) -> Settings:
    if settings is None:
        return kind()
    return kind.from_dict(settings) if isinstance(settings, Mapping) else settings


def _check_inputs(inputs: Inputs, num_levels: int | None = None, frame_size: tuple[int, int] | None = None) -> None:
    if "flow" not in inputs or len(inputs["flow"].shape) != 4 or inputs["flow"].shape[-1] != 2:
        found = inputs["flow"].shape if "flow" in inputs else "none"
        raise ValueError(f"The prior's input 'flow' must be (B, h, w, 2), found {found}.")
    if num_levels is None:
        return
    shape = _shape(inputs, "superpixels")
    if len(shape) != 4 or shape[-1] != num_levels:
        raise ValueError(
            f"This prior's input 'superpixels' must be (B, h, w, {num_levels}), found {shape or 'none'}; "
            "segment the flow with the prior's own superpixel settings."
        )
    if frame_size is None:
        return
    shape = _shape(inputs, "frame")
    if len(shape) != 4 or shape[-1] != 3:
        raise ValueError(
            f"This prior has RGB features; its input 'frame' must be (B, H, W, 3), found {shape or 'none'}."
        )
    found = tuple(inputs["flow"].shape[1:3])
    if None not in found and found != frame_size:
        raise ValueError(
            f"This prior has RGB features; its input 'flow' must be of its motion_size, {frame_size}, found {found}."
        )


def _shape(inputs: Inputs, name: str) -> tuple[int | None, ...]:
    """The shape of an input; () if it is not there."""
    return tuple(inputs[name].shape) if name in inputs else ()


def _round(prior: keras.KerasTensor) -> keras.KerasTensor:
    return ops.round(prior * 255) / 255
