"""The model that is installed with the package: it loads, follows what moves, and holds each weight once."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from tensorflow.core.protobuf import saved_model_pb2

from msst_keras.inference.stream import SHIPPED_MODEL, SaliencyModel, SaliencyStream, stream_maps
from msst_keras.model.msst import get_serving_parts
from msst_keras.serving.reload import load_network


@pytest.fixture(scope="module")
def model():
    return SaliencyModel()


def make_video():
    """A red rectangle that moves to the right: frames and masks."""
    background = np.random.default_rng(0).integers(90, 130, (144, 256, 3)).astype(np.uint8)
    for index in range(4):
        frame, mask = background.copy(), np.zeros((144, 256), bool)
        mask[50:100, 60 + 6 * index : 120 + 6 * index] = True
        frame[mask] = (200, 60, 40)
        yield frame, mask


def run(stream, frames):
    return np.stack([saliency for frame in frames for saliency in stream.push(frame)] + stream.close())


def test_it_finds_what_moves(model):
    frames, masks = zip(*make_video(), strict=True)
    maps = run(SaliencyStream(model), frames)
    assert len(maps) == 4
    for saliency, mask in zip(maps, masks, strict=True):
        assert saliency[mask].mean() > 0.5 > 0.2 > saliency[~mask].mean()


def run_mirrored(model, frames):
    return np.stack([saliency for _, _, saliency in stream_maps(model, enumerate(frames), mirror=True)])


def test_mirrored_maps_do_not_tell_left_from_right(model):
    frames = [frame for frame, _ in make_video()]
    maps = run_mirrored(model, frames)
    of_mirror_image = run_mirrored(model, [np.ascontiguousarray(frame[:, ::-1]) for frame in frames])
    np.testing.assert_allclose(maps, of_mirror_image[:, :, ::-1], atol=1e-6)
    plain = run(SaliencyStream(model), frames)
    assert np.abs(maps - plain).max() > 1e-3  # the plain stream does tell them apart
    np.testing.assert_allclose(maps, plain, atol=0.5)


def test_it_is_small_and_holds_each_weight_once(model):
    size = sum(path.stat().st_size for path in SHIPPED_MODEL.rglob("*") if path.is_file())
    variables = (SHIPPED_MODEL / "1" / "variables" / "variables.data-00000-of-00001").stat().st_size
    settings = model.settings
    assert settings["model"]["variant"] == "st" and size < 25e6
    # 3.8 M parameters of 4 bytes
    assert variables < 1.1 * 4 * 3.82e6


def test_each_layer_stands_once_in_its_graph(model):
    """Whatever the number of signatures: what stands twice is loaded twice, at each start."""
    saved_model = saved_model_pb2.SavedModel.FromString((model.path / "saved_model.pb").read_bytes())
    functions = saved_model.meta_graphs[0].graph_def.library.function
    operations = [node.op for function in functions for node in function.node_def]
    parts = get_serving_parts(load_network(model.path, model.settings))
    layers = {id(layer): layer for part in parts for layer in part._flatten_layers()}.values()
    for name, kind in {"Conv2D": keras.layers.Conv2D, "DepthwiseConv2dNative": keras.layers.DepthwiseConv2D}.items():
        assert operations.count(name) == sum(isinstance(layer, kind) for layer in layers) > 10
