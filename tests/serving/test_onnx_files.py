"""ONNX files give what Keras gives; what ONNX has no operation for is named and nothing is written."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest

pytest.importorskip("tf2onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from msst_keras.model.msst import build_msst, get_parts  # noqa: E402
from msst_keras.serving.onnx_files import check_network, export_onnx, write_network  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
SETTINGS = {"num_frames": 2, "image_size": [64, 96]}


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(0)
    model = build_msst("msst", num_frames=2, width=0.0625, output_stride=16)
    generator = np.random.default_rng(1)
    for weight in model.trainable_weights:
        if weight.path.endswith(("_map/kernel", "recurrent_map/kernel")):
            weight.assign(generator.normal(size=weight.shape))
    return model


def test_the_files_give_what_keras_gives_at_another_size_and_batch_too(network, tmp_path):
    export_onnx(tmp_path / "1", network, SETTINGS)
    assert sorted(path.name for path in (tmp_path / "1").iterdir()) == ["encoder.onnx", "fuser.onnx", "msst.json"]
    assert json.loads((tmp_path / "1" / "msst.json").read_text()) == SETTINGS
    generator = np.random.default_rng(2)
    clip = {
        "frames": generator.uniform(0, 255, (3, 2, 48, 80, 3)).astype(np.float32),
        "prior": generator.uniform(0, 1, (3, 2, 48, 80, 1)).astype(np.float32),
    }
    encoder, fuser = (onnxruntime.InferenceSession(tmp_path / "1" / f"{name}.onnx") for name in ("encoder", "fuser"))
    names = [each.name for each in encoder.get_outputs()]
    steps = [encoder.run(names, {name: value[:, step] for name, value in clip.items()}) for step in range(2)]
    maps = {name: np.stack([step[index] for step in steps], axis=1) for index, name in enumerate(names)}
    expected = np.asarray(network(clip, training=False)["fused"])
    found = fuser.run(["fused"], maps)[0][:, :48, :80]
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    assert expected.std() > 0.01
    with pytest.raises(FileExistsError, match="choose another --version"):
        export_onnx(tmp_path / "1", network, SETTINGS)


def test_foreign_operations_fail_by_name(tmp_path):
    matrices = keras.Input((3, 3), name="matrices")
    solved = keras.ops.solve(matrices, keras.ops.ones_like(matrices))
    network = keras.Model({"matrices": matrices}, {"solved": solved}, name="camera")
    with pytest.raises(ValueError, match="camera: ONNX has no operation MatrixSolve, so no other program could run"):
        write_network(tmp_path / "camera.onnx", network)


def test_another_result_is_refused(network, tmp_path):
    encoder = get_parts(network)[0]
    write_network(tmp_path / "encoder.onnx", encoder)
    images = {"frames": np.full((1, 32, 48, 3), 90, np.float32), "prior": np.ones((1, 32, 48, 1), np.float32)}
    expected = {name: np.asarray(value) for name, value in encoder(images, training=False).items()}
    check_network(tmp_path / "encoder.onnx", images, expected)
    expected["last"] = expected["last"] * 1.001
    with pytest.raises(ValueError, match="encoder.onnx: last differs from Keras's by"):
        check_network(tmp_path / "encoder.onnx", images, expected)
