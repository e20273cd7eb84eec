"""Export: the motion prior and the saliency network in one SavedModel that predict, the clients and TF Serving use.

Signatures (batch B, frame size H x W are free; T, M, and the motion size h x w are the asset's):

    serving_default  frames uint8 (B, T, H, W, 3) RGB, flow float32 (B, T, h, w, 2), superpixels int32 (B, T, h, w, M)
                     -> saliency float32 (B, H, W, 1) in 0..1, of frame T
    encode           frame (B, H, W, 3), flow (B, h, w, 2), superpixels (B, h, w, M)
                     -> middle, last float32 (B, h_r, w_r, S): the streams' maps of one time step (Eq. 3 before
                     upsampling); of the light network stride4, stride8, stride16, stride32
    fuse             middle, last (B, T, h_r, w_r, S), frame_size int32 (B, 2): H and W, alike in a batch; of the light
                     network stride16 (B, T, ...) and the others of frame T alone (B, ...)
                     -> saliency (B, H, W, 1)

A variant without motion (`os`) takes no flow and no superpixels; neither the magnitude prior nor a network that sees
flow itself takes superpixels.
`assets/msst.json` holds T, the sizes, the flow and superpixel settings and where the model came from.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import keras
import tensorflow as tf
from keras import ops

from msst_keras.files import publish
from msst_keras.model.msst import get_serving_parts
from msst_keras.motion.settings import MotionSettings

ASSET_NAME = "msst.json"


def export_saved_model(path: str | Path, model: keras.Model, prior: keras.Model | None, settings: dict) -> None:
    """Writes a SavedModel folder; it appears under `path` only when whole.

    Args:
      path: saved_models/NAME/VERSION; VERSION a number, as TF Serving wants it.
      model: of `build_msst`.
      prior: of `msst_keras.motion.prior`; None for a model without a temporal stream.
      settings: the asset: "num_frames" (T), "image_size" (the network's), "motion" (of the records; None for `os`), and
        whatever tells where the model came from.

    Raises:
      ValueError: a temporal stream without a prior or a prior without one.
      FileExistsError: `path` is there already.
    """
    temporal = "prior" in model.input
    if temporal != (prior is not None):
        raise ValueError(f"this model {'needs a' if temporal else 'has no use for a'} motion prior")
    if Path(path).exists():
        raise FileExistsError(f"{path} exists already; choose another --version")
    module = _Servable(model, prior, settings)
    with tempfile.TemporaryDirectory() as folder, publish(path) as temporary:
        asset = Path(folder) / ASSET_NAME
        asset.write_text(json.dumps(settings, indent=1) + "\n")
        module.settings = tf.saved_model.Asset(str(asset))
        motion = MotionSettings.from_dict(settings["motion"]) if settings["motion"] else None
        tf.saved_model.save(module, str(temporary), signatures=module.signatures(motion))


class _Servable(tf.Module):
    """The three signatures over one set of weights."""

    def __init__(self, model: keras.Model, prior: keras.Model | None, settings: dict):
        super().__init__()
        # Keras variables wrap TensorFlow's, which a SavedModel tracks. The models themselves are hidden in an
        # object that it does not look into: it would store each weight again under their names.
        encoder, fuser = get_serving_parts(model)
        weights = {id(weight): weight.value for part in (encoder, fuser, prior) if part for weight in part.weights}
        self._weights = list(weights.values())
        self._models = _Untracked(encoder, fuser, prior)
        self._num_frames = settings["num_frames"]
        self._image_size = tuple(settings["image_size"])

    def signatures(self, motion: MotionSettings | None) -> dict:
        """The concrete function of each signature; `motion` is that of the asset."""
        frame_specs = {"frame": tf.TensorSpec([None, None, None, 3], tf.uint8)}
        if self._models.prior is not None:
            height, width = motion.flow_settings.motion_size
            frame_specs["flow"] = tf.TensorSpec([None, height, width, 2], tf.float32)
            if motion.superpixels is not None:
                levels = motion.superpixel_settings.num_levels
                frame_specs["superpixels"] = tf.TensorSpec([None, height, width, levels], tf.int32)
        # A clip's inputs are a frame's with a time axis; "frame" becomes "frames".
        clip_specs = {
            "frames" if name == "frame" else name: tf.TensorSpec([None, self._num_frames, *spec.shape[1:]], spec.dtype)
            for name, spec in frame_specs.items()
        }
        map_specs = {
            name: tf.TensorSpec([None, *([self._num_frames] if self._is_window(name) else []), None, None,
                                 value.shape[-1]], tf.float32)
            for name, value in self._models.fuser.input.items()
        }  # fmt: skip
        map_specs["frame_size"] = tf.TensorSpec([None, 2], tf.int32)
        return {
            "serving_default": _function(self._saliency, clip_specs),
            "encode": _function(self._encode, frame_specs),
            "fuse": _function(self._fuse, map_specs),
        }

    def _encode(self, frame, flow=None, superpixels=None):
        frames = tf.cast(frame, tf.float32)
        inputs = {"frames": ops.image.resize(frames, self._image_size, antialias=True)}
        prior = self._models.prior
        if prior is not None:
            motion = {"flow": flow} if superpixels is None else {"flow": flow, "superpixels": superpixels}
            if prior.needs_frames:
                motion["frame"] = frame
            image = prior(motion)
            # Where both sides grow, antialiasing changes nothing and takes three times as long.
            shrinks = any(new < old for new, old in zip(self._image_size, image.shape[1:3], strict=True))
            inputs["prior"] = ops.image.resize(image, self._image_size, antialias=shrinks)
        maps = self._models.encoder(inputs, training=False)
        return {name: tf.cast(value, tf.float32) for name, value in maps.items()}

    def _fuse(self, frame_size, **maps):
        logits = self._models.fuser(maps, training=False)["fused"]
        height, width = self._image_size
        saliency = tf.sigmoid(logits[:, :height, :width])  # the maps' grid may reach beyond the image: see build_msst
        size = frame_size[0]
        # Where both sides grow, antialiasing changes nothing and takes ten times as long.
        resized = tf.cond(
            tf.reduce_all(size >= tf.constant(self._image_size)),
            lambda: tf.image.resize(saliency, size),
            lambda: tf.image.resize(saliency, size, antialias=True),
        )
        return {"saliency": tf.clip_by_value(resized, 0.0, 1.0)}

    def _is_window(self, name: str) -> bool:
        """Whether the fuser takes these maps of all T frames."""
        return len(self._models.fuser.input[name].shape) == 5

    def _saliency(self, frames, **motion):
        shape = tf.shape(frames)
        merged = {name: tf.reshape(x, tf.concat([[-1], tf.shape(x)[2:]], 0)) for name, x in motion.items()}
        for name, value in motion.items():
            merged[name].set_shape([None, *value.shape[2:]])
        maps = self._encode(tf.reshape(frames, [-1, shape[2], shape[3], 3]), **merged)
        split = {
            name: tf.reshape(x, tf.concat([[shape[0], self._num_frames], tf.shape(x)[1:]], 0))
            for name, x in maps.items()
        }
        for name, value in maps.items():
            split[name].set_shape([None, self._num_frames, *value.shape[1:]])
            if not self._is_window(name):
                split[name] = split[name][:, -1]
        return self._fuse(tf.repeat(shape[None, 2:4], shape[0], axis=0), **split)


class _Untracked:
    """Encoder, fuser and prior where `tf.Module` does not find them."""

    def __init__(self, encoder: keras.Model, fuser: keras.Model, prior: keras.Model | None):
        self.encoder, self.fuser, self.prior = encoder, fuser, prior


def _function(function, specs: dict):
    """A concrete function whose inputs have the names of `specs`."""
    named = {name: tf.TensorSpec(spec.shape, spec.dtype, name=name) for name, spec in specs.items()}
    return tf.function(function).get_concrete_function(**named)
