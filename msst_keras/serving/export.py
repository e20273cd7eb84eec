"""Export: the motion prior and the saliency network in one SavedModel that predict, the clients and TF Serving use.

Signatures (rows B of one request, 1 to 16; frame size H x W is free; T, M, and the motion size h x w are the asset's):

    serving_default  frames uint8 (B, T, H, W, 3) RGB, flow float32 (B, T, h, w, 2), superpixels int32 (B, T, h, w, M)
                     -> saliency float32 (B, H, W, 1) in 0..1, of frame T
    encode           frame (B, H, W, 3), flow (B, h, w, 2), superpixels (B, h, w, M)
                     -> middle, last float32 (B, h_r, w_r, S): the streams' maps of one time step (Eq. 3 before
                     upsampling); of the light network stride4, stride8, stride16, stride32, and with a ConvLSTM memory
    fuse             middle, last (B, T, h_r, w_r, S), frame_size int32 (B, 2): H and W, alike in a batch; of the light
                     network memory (B, T, ...) and the others of frame T alone (B, ...)
                     -> saliency (B, H, W, 1)
    step             frame_bytes string (B,): a JPEG or PNG, of any size; flow_bytes, superpixels_bytes: 16-bit PNGs
                     (see `decoding`); state_bytes: what the last answer gave, empty to start a stream
                     -> saliency_bytes string (B,): an 8-bit grey PNG of the network's size; state_bytes
    describe         client_bytes string (B,): anything, such as the client's name -> settings_bytes (B,): the asset

A variant without motion (`os`) takes no flow and no superpixels; neither the magnitude prior nor a network that sees
flow itself takes superpixels. `step` and `describe` are for clients far away and for batches of any mixture of streams:
strings have one shape whatever is in them, REST sends inputs and outputs of such names as base64, and the answers
are small. The other signatures are for use in one process. Wrong requests are refused by `checks`.

`assets/msst.json` holds T, the sizes, the flow and superpixel settings and where the model came from;
`assets.extra/tf_serving_warmup_requests` requests that a server runs before it takes others.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import keras
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from msst_keras.files import publish
from msst_keras.serving import warm_up
from msst_keras.serving.servable import Servable

ASSET_NAME = "msst.json"


def export_saved_model(path: str | Path, model: keras.Model, prior: keras.Model | None, settings: dict) -> None:
    """Writes a SavedModel folder; it appears under `path` only when whole, and when its warm-up requests were answered.

    Args:
      path: saved_models/NAME/VERSION; VERSION a number, as TF Serving wants it.
      model: of `build_msst`.
      prior: of `msst_keras.motion.prior`; None for a model without a temporal stream.
      settings: the asset: "num_frames" (T), "image_size" (the network's), "motion" (of the records; None for `os`), and
        whatever tells where the model came from. "logit_shift", where there is one, is added to the logits of all maps.
        "fingerprint" and "step", what clients send, are added here.

    Raises:
      ValueError: a temporal stream without a prior or a prior without one.
      FileExistsError: `path` is there already.
    """
    temporal = "prior" in model.input
    if temporal != (prior is not None):
        raise ValueError(f"this model {'needs a' if temporal else 'has no use for a'} motion prior")
    if Path(path).exists():
        raise FileExistsError(f"{path} exists already; choose another --version")
    module = Servable(model, prior, settings)
    with tempfile.TemporaryDirectory() as folder, publish(path) as temporary:
        asset = Path(folder) / ASSET_NAME
        asset.write_text(json.dumps(module.asset, indent=1) + "\n")
        module.settings = tf.saved_model.Asset(str(asset))
        tf.saved_model.save(module, str(temporary), signatures=module.signatures())
        _describe_shapes(temporary / "saved_model.pb", module.shapes)
        warm_up.write(temporary, module.shapes, module.stepper)


def _describe_shapes(path: Path, shapes: dict[str, dict[str, tuple]]) -> None:
    """Writes into the signatures what their inputs must be, for `saved_model_cli show` and a server's metadata.

    The graph itself leaves the shapes open, see `checks.check_shape`.
    """
    saved_model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    for graph in saved_model.meta_graphs:
        for signature, inputs in shapes.items():
            for name, (_, shape) in inputs.items():
                described = tf.TensorShape(shape).as_proto()
                graph.signature_def[signature].inputs[name].tensor_shape.CopyFrom(described)
    path.write_bytes(saved_model.SerializeToString(deterministic=True))
