"""The prior and the saliency network behind the signatures of an export, over one set of weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from msst_keras.data.flow_files import MAX_FLOW
from msst_keras.model.msst import get_serving_parts
from msst_keras.motion.settings import MotionSettings
from msst_keras.serving import checks
from msst_keras.serving.fingerprint import fingerprint
from msst_keras.serving.step import Spec, Stepper, make_describe


def list_weights(*parts: keras.Model) -> list[keras.Variable]:
    """The weights of the parts in the order in which a SavedModel holds them, each once."""
    return list({id(weight): weight for part in parts for weight in part.weights}.values())


class Servable(tf.Module):
    """The signatures over one set of weights."""

    def __init__(self, model: keras.Model, prior: keras.Model | None, settings: dict):
        super().__init__()
        # Keras variables wrap TensorFlow's, which a SavedModel tracks. The models themselves are hidden in an
        # object that it does not look into: it would store each weight again under their names.
        encoder, fuser = get_serving_parts(model, settings.get("logit_shift", 0.0))
        self._weights = [weight.value for weight in list_weights(encoder, fuser, *([prior] if prior else []))]
        self._models = _Untracked(encoder, fuser, prior)
        # Each network is a function of its own in the graph, which the signatures call.
        self._models.encode = tf.function(self._run_encoder, autograph=False)
        self._models.fuse = tf.function(self._run_fuser, autograph=False)
        self._models.see_motion = tf.function(prior, autograph=False) if prior else None
        self._num_frames = settings["num_frames"]
        height, width = settings["image_size"]
        self._image_size: tuple[int, int] = height, width
        motion = MotionSettings.from_dict(settings["motion"]) if settings["motion"] else None
        self._superpixels = motion.superpixel_settings if motion else None
        self._motion_size = motion.flow_settings.motion_size if motion else None
        maps = self._map_shapes()
        windows = {name: shape for name, shape in maps.items() if self._is_window(name)}
        stepper = Stepper(self, settings, windows, self._motion_size, self._superpixels)
        asset = {**settings, "step": stepper.wire}
        asset["fingerprint"] = fingerprint(asset, (weight.numpy() for weight in self._weights))
        stepper.set_fingerprint(asset["fingerprint"])
        self._models.asset, self._models.stepper = asset, stepper
        self._models.shapes = self._input_shapes(maps)

    @property
    def asset(self) -> dict[str, Any]:
        """The settings that go into the folder."""
        return self._models.asset

    @property
    def stepper(self) -> Stepper:
        """The signature `step`."""
        return self._models.stepper

    @property
    def shapes(self) -> dict[str, dict[str, Spec]]:
        """Signature -> input -> (dtype, shape), None where a side is free."""
        return self._models.shapes

    @property
    def image_size(self) -> tuple[int, int]:
        """Of the network."""
        return self._image_size

    @property
    def needs_frames(self) -> bool:
        """Whether the prior looks at the frame as it is."""
        return self._models.prior is not None and self._models.prior.needs_frames

    def signatures(self) -> dict:
        """The concrete function of each signature; all shapes are open, and checked when a request comes."""
        functions = {
            "serving_default": self._saliency,
            "encode": self._encode,
            "fuse": self._fuse,
            "step": self.stepper.step,
            "describe": make_describe(self.asset),
        }
        made = {}
        for signature, function in functions.items():
            shapes = self.shapes[signature]
            # Of maps the number of axes is kept, by which a stream knows what is a window of T.
            specs = {
                name: tf.TensorSpec([None] * len(shape) if signature in ("fuse", "step", "describe") else None, dtype,
                                    name=name)
                for name, (dtype, shape) in shapes.items()
            }  # fmt: skip
            made[signature] = tf.function(function, autograph=False).get_concrete_function(**specs)
        return made

    def _input_shapes(self, maps: dict[str, tuple[int, int, int]]) -> dict[str, dict[str, Spec]]:
        frame: dict[str, Spec] = {"frame": (tf.uint8, (None, None, None, 3))}
        if self._motion_size:
            frame["flow"] = (tf.float32, (None, *self._motion_size, 2))
            if self._superpixels:
                frame["superpixels"] = (tf.int32, (None, *self._motion_size, self._superpixels.num_levels))
        # A clip's inputs are a frame's with a time axis; "frame" becomes "frames".
        clip: dict[str, Spec] = {
            "frames" if name == "frame" else name: (dtype, (None, self._num_frames, *shape[1:]))
            for name, (dtype, shape) in frame.items()
        }
        fuse: dict[str, Spec] = {
            name: (tf.float32, (None, *([self._num_frames] if self._is_window(name) else []), *shape))
            for name, shape in maps.items()
        }
        fuse["frame_size"] = (tf.int32, (None, 2))
        strings: dict[str, Spec] = {name: (tf.string, (None,)) for name in self.stepper.inputs}
        return {
            "serving_default": clip, "encode": frame, "fuse": fuse, "step": strings,
            "describe": {"client_bytes": (tf.string, (None,))},
        }  # fmt: skip

    def _map_shapes(self) -> dict[str, tuple[int, int, int]]:
        """(h_r, w_r, S) of each of the encoder's maps at the network's size."""
        inputs = {
            name: keras.KerasTensor((1, *self._image_size, value.shape[-1]))
            for name, value in self._models.encoder.input.items()
        }
        maps = self._models.encoder.compute_output_spec(inputs)
        return {name: tuple(value.shape[1:]) for name, value in maps.items()}

    def _check(self, signature: str, tensors: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The inputs of a signature, after everything that can be wrong with one of them was looked at."""
        tensors = {
            name: checks.check_shape(tensors[name], name, shape) for name, (_, shape) in self.shapes[signature].items()
        }
        tensors = checks.check_rows(tensors)
        for name in ("frame", "frames"):
            if name in tensors:
                height, width = tf.unstack(tf.shape(tensors[name])[-3:-1])
                tensors[name] = checks.check_size(height, width, "a frame", tensors[name])
        if "flow" in tensors:
            tensors["flow"] = checks.check_flow(tensors["flow"], MAX_FLOW)
        if "superpixels" in tensors and self._superpixels:
            tensors["superpixels"] = checks.check_superpixels(tensors["superpixels"], self._superpixels.max_regions)
        return tensors

    def _encode(self, **inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return self.encode_checked(**self._check("encode", inputs))

    def encode_checked(
        self,
        frame: tf.Tensor,
        flow: tf.Tensor | None = None,
        superpixels: tf.Tensor | None = None,
        prior_frame: tf.Tensor | None = None,
    ) -> dict[str, tf.Tensor]:
        """The maps of one time step of checked inputs.

        Args:
          frame: uint8 or float32 (B, H, W, 3); of the network's size it is taken as it is.
          flow, superpixels: see `export`.
          prior_frame: the frame for the prior, if it is not `frame`.
        """
        inputs = {"frames": self.resize(frame, self._image_size)}
        if self._models.see_motion is not None:
            motion = {"flow": flow} if superpixels is None else {"flow": flow, "superpixels": superpixels}
            if self.needs_frames:
                motion["frame"] = frame if prior_frame is None else prior_frame
            inputs["prior"] = self.resize(self._models.see_motion(motion), self._image_size)
        return self._models.encode(inputs)

    def _run_encoder(self, inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        maps = self._models.encoder(inputs, training=False)
        return {name: tf.cast(value, tf.float32) for name, value in maps.items()}

    @staticmethod
    def resize(images: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
        """(B, H, W, C) of any type -> (B, h, w, C) float32; from uint8 without a copy in floating point."""
        sides = images.shape[-3:-1]
        if tuple(sides) == tuple(size):
            return tf.cast(images, tf.float32)
        # Where both sides grow, antialiasing changes nothing and takes three times as long.
        grows = None not in sides and all(new >= old for new, old in zip(size, sides, strict=True))
        return tf.image.resize(images, size, antialias=not grows)

    def _fuse(self, frame_size: tf.Tensor, **maps: tf.Tensor) -> dict[str, tf.Tensor]:
        tensors = self._check("fuse", {**maps, "frame_size": frame_size})
        size = tensors.pop("frame_size")
        maps = {name: checks.check_finite(value, name) for name, value in tensors.items()}
        size = checks.refuse_unless(size == size[:1], "frame_size must be alike in all rows of a request", size)
        size = checks.check_size(size[:, 0], size[:, 1], "frame_size", size)
        size = checks.check_answer(tf.shape(size)[0], size[0, 0], size[0, 1], size)
        with tf.control_dependencies([size]):
            maps = {name: tf.identity(value) for name, value in maps.items()}
        return {"saliency": self._enlarge(self.fuse_checked(maps), size[0])}

    def fuse_checked(self, maps: dict[str, tf.Tensor]) -> tf.Tensor:
        """The saliency at the network's size, float32 (B, h, w, 1) in 0..1, of checked maps."""
        return self._models.fuse(maps)

    def _run_fuser(self, maps: dict[str, tf.Tensor]) -> tf.Tensor:
        logits = self._models.fuser(maps, training=False)["fused"]
        height, width = self._image_size
        return tf.sigmoid(logits[:, :height, :width])  # the maps' grid may reach beyond the image: see build_msst

    def _enlarge(self, saliency: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
        """Maps (B, h, w, 1) at a size (2,) int32, in 0..1."""
        # Where both sides grow, antialiasing changes nothing and takes ten times as long.
        resized = tf.cond(
            tf.reduce_all(size >= tf.constant(self._image_size)),
            lambda: tf.image.resize(saliency, size),
            lambda: tf.image.resize(saliency, size, antialias=True),
        )
        return tf.clip_by_value(tf.ensure_shape(resized, (None, None, None, 1)), 0.0, 1.0)

    def _is_window(self, name: str) -> bool:
        """Whether the fuser takes these maps of all T frames."""
        return len(self._models.fuser.input[name].shape) == 5

    def _saliency(self, **inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        tensors = self._check("serving_default", inputs)
        shape = tf.shape(tensors["frames"])
        frames = checks.check_answer(shape[0], shape[2], shape[3], tensors.pop("frames"))
        merged = {name: tf.reshape(x, tf.concat([[-1], tf.shape(x)[2:]], 0)) for name, x in tensors.items()}
        for name, value in tensors.items():
            merged[name].set_shape([None, *value.shape[2:]])
        maps = self.encode_checked(tf.reshape(frames, [-1, shape[2], shape[3], 3]), **merged)
        windows = {}
        for name, x in maps.items():
            windows[name] = tf.reshape(x, (-1, self._num_frames, *x.shape[1:]))
            if not self._is_window(name):
                windows[name] = windows[name][:, -1]
        return {"saliency": self._enlarge(self.fuse_checked(windows), shape[2:4])}


class _Untracked:
    """What `tf.Module` is not to find: encoder, fuser and prior, and what a `Servable` makes of them."""

    def __init__(self, encoder: keras.Model, fuser: keras.Model, prior: keras.Model | None):
        self.encoder, self.fuser, self.prior = encoder, fuser, prior

    asset: dict[str, Any]
    encode: Callable[[dict[str, tf.Tensor]], dict[str, tf.Tensor]]
    fuse: Callable[[dict[str, tf.Tensor]], tf.Tensor]
    see_motion: Callable[[dict[str, tf.Tensor | None]], tf.Tensor] | None
    stepper: Stepper
    shapes: dict[str, dict[str, Spec]]
