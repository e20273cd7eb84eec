"""ONNX files of a network's encoder and fuser, for programs that run neither TensorFlow nor Python.

    VERSION/encoder.onnx   frames float32 (B, H, W, 3) R, G, B in 0..255, prior float32 (B, H, W, 1 or 3) in 0..1
                           -> the maps of one time step
    VERSION/fuser.onnx     the maps, those with a time axis of the last T frames, the others of frame T
                           -> fused (B, H, W, 1), logits: the saliency is their sigmoid
    VERSION/msst.json      T, the network's size H x W, how motion is made, where the model came from

Resizing and the motion prior are left to the program: the prior solves equations, which ONNX has no operation for.
`inference.stream.MapStream` shows what is done with the two.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from msst_keras.files import publish
from msst_keras.model.msst import get_serving_parts

TOLERANCE = 1e-5  # of the largest value of an output


def export_onnx(path: str | Path, model: keras.Model, settings: dict) -> None:
    """Writes a folder with the two networks; it appears under `path` only when both give what Keras gives.

    Args:
      path: saved_models/NAME/VERSION.
      model: of `build_msst`.
      settings: the asset of `export_saved_model`.

    Raises:
      ValueError: the extra `onnx` is not installed; a network has an operation that ONNX has not, or ONNX Runtime
        gives something else than Keras.
      FileExistsError: `path` is there already.
    """
    if Path(path).exists():
        raise FileExistsError(f"{path} exists already; choose another --version")
    encoder, fuser = get_serving_parts(model, settings.get("logit_shift", 0.0))
    with publish(path) as folder:
        folder.mkdir()
        maps = _write_checked(folder / "encoder.onnx", encoder, _make_images(encoder, settings["image_size"]))
        _write_checked(folder / "fuser.onnx", fuser, _windows(fuser, maps))
        (folder / "msst.json").write_text(json.dumps(settings, indent=1) + "\n")


def _write_checked(path: Path, network: keras.Model, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Writes a network and compares the file with it; returns what both make of the inputs."""
    write_network(path, network)
    expected = {name: np.asarray(value) for name, value in network(inputs, training=False).items()}
    check_network(path, inputs, expected)
    return expected


def write_network(path: Path, network: keras.Model) -> None:
    """Writes a functional model as an ONNX file; sizes that it leaves open stay open.

    Raises:
      ValueError: the extra `onnx` is not installed, or the network has an operation that ONNX has not.
    """
    try:
        import onnx
        import tf2onnx  # noqa: F401  Keras needs it for the conversion
    except ModuleNotFoundError as error:
        raise ValueError(f"ONNX files need '{error.name}': pip install 'msst-keras[onnx]'") from None
    for layer in network._flatten_layers():
        if isinstance(layer, keras.layers.Normalization):  # whose constants would otherwise become inputs of the file
            layer.mean, layer.variance = np.asarray(layer.mean), np.asarray(layer.variance)
    signature = {name: keras.InputSpec(shape=x.shape, dtype=x.dtype, name=name) for name, x in network.input.items()}
    network.export(str(path), format="onnx", input_signature=[signature], verbose=False)
    written = onnx.load(str(path))
    # An operation that the converter does not know it writes as it is, and says nothing.
    foreign = sorted({node.op_type for node in _nodes(written.graph) if not onnx.defs.has(node.op_type, node.domain)})
    if foreign:
        raise ValueError(
            f"{network.name}: ONNX has no operation {', '.join(foreign)}, so no other program could run this network"
        )
    strange = sorted({each.name for each in written.graph.input} - set(network.input))
    if strange:
        raise ValueError(f"{network.name}: the converter made inputs of constants, {', '.join(strange)}")


def check_network(path: Path, inputs: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """Runs an ONNX file by ONNX Runtime and compares its outputs.

    Raises:
      ValueError: ONNX Runtime is not installed, cannot read the file, or gives something else.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise ValueError(f"ONNX files are checked with '{error.name}': pip install 'msst-keras[onnx]'") from None
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        names = [each.name for each in session.get_outputs()]
        found = session.run(names, {each.name: inputs[each.name] for each in session.get_inputs()})
    except Exception as error:  # its errors have no base class of their own
        raise ValueError(f"{path.name}: ONNX Runtime cannot run this network ({error})") from None
    if set(names) != set(expected):
        raise ValueError(f"{path.name}: has the outputs {', '.join(names)} instead of {', '.join(expected)}")
    for name, value in zip(names, found, strict=True):
        difference = np.abs(value - expected[name]).max() / max(np.abs(expected[name]).max(), 1e-30)
        if not difference <= TOLERANCE:
            raise ValueError(f"{path.name}: {name} differs from Keras's by {difference:.1e} of its largest value")


def _nodes(graph: Any) -> Iterator:
    """All nodes of a graph and of those inside its nodes (loops, branches)."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


def _make_images(encoder: keras.Model, size: tuple[int, int]) -> dict[str, np.ndarray]:
    """A frame of the network's size, and its motion image, to compare with."""
    generator = np.random.default_rng(0)
    highest = {"frames": 255.0, "prior": 1.0}
    return {
        name: generator.uniform(0, highest[name], (1, *size, value.shape[-1])).astype(np.float32)
        for name, value in encoder.input.items()
    }


def _windows(fuser: keras.Model, maps: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the fuser is given at the first frame of a video, which stands for those before it."""
    return {
        name: np.repeat(maps[name][:, None], value.shape[1] or 1, axis=1) if len(value.shape) == 5 else maps[name]
        for name, value in fuser.input.items()
    }
