"""The network of an exported SavedModel as a Keras model that can be trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from msst_keras.model.msst import build_msst, fold_model, get_serving_parts
from msst_keras.model.options import check_arguments
from msst_keras.serving.servable import list_weights


def load_network(path: Path, settings: dict[str, Any]) -> keras.Model:
    """Builds the network that was exported and gives it the weights of the SavedModel; nothing of its graph runs.

    The side outputs, which only training has, keep initial weights. Batch norms are folded, as `msst export` does it.

    Args:
      path: saved_models/NAME/VERSION.
      settings: its asset, of `inference.saved_models.read_settings`.

    Raises:
      ValueError: the asset does not say which network it is, or the weights are those of another one.
    """
    arguments = settings.get("model")
    try:
        if not isinstance(arguments, dict):
            raise ValueError("it does not say which network it is")
        arguments = arguments | {"weights": "none"}
        check_arguments(arguments)
        model = fold_model(build_msst(**arguments), arguments)
        reader = tf.train.load_checkpoint(str(path / "variables" / "variables"))
        weights, values = list_weights(*get_serving_parts(model)), []
        for number, weight in enumerate(weights):
            name = f"_weights/{number}/.ATTRIBUTES/VARIABLE_VALUE"
            values.append(reader.get_tensor(name) if reader.has_tensor(name) else None)
            if values[-1] is None or values[-1].shape != tuple(weight.shape):
                raise ValueError(f"weight {number} is not one of the network that it names")
    except (ValueError, TypeError, tf.errors.OpError) as error:
        raise ValueError(f"{path}: cannot be trained on ({error}); export the model again") from error
    for weight, value in zip(weights, values, strict=True):
        weight.assign(value)
    return model
