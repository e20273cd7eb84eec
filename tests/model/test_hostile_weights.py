"""Weights of another hand: files that unpack to more than they seem, that lead to other files, or hold no numbers."""

from __future__ import annotations

import json
import zipfile

import h5py
import keras
import numpy as np
import pytest

from msst_keras.model import weights
from msst_keras.motion.flow import FlowSettings
from msst_keras.motion.prior import MotionPrior
from msst_keras.motion.prior_files import load_prior
from msst_keras.motion.superpixels import SuperpixelSettings

NAMES = ("block1_conv1",)


def test_an_archive_that_unpacks_to_far_more_is_refused(tmp_path):
    np.savez_compressed(tmp_path / "bomb.npz", **{"block1_conv1/kernel": np.zeros(100 << 20, np.uint8)})
    for read in (weights.read_npz, lambda path: weights.read_layers(path, NAMES)):
        with pytest.raises(ValueError, match=r"bomb.npz: unpacks to \d+ bytes from \d+, which weights do not"):
            read(tmp_path / "bomb.npz")
    with zipfile.ZipFile(tmp_path / "bomb.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.weights.h5", bytes(100 << 20))
    for read in (load_prior, lambda path: weights.read_layers(path, NAMES)):
        with pytest.raises(ValueError, match=r"bomb.keras: unpacks to \d+ bytes from \d+"):
            read(tmp_path / "bomb.keras")


def test_an_hdf5_file_is_read_or_refused_wherever_an_address_in_it_is_wrong(tmp_path):
    path = tmp_path / "weights.h5"
    with h5py.File(path, "w") as file:
        for name in ("a", "b"):
            file[f"{name}/kernel"], file[f"{name}/bias"] = np.ones((2, 2), np.float32), np.ones(2, np.float32)
    sound, refused = path.read_bytes(), 0
    for offset in range(0, len(sound), 8):
        path.write_bytes(sound[:offset] + bytes.fromhex("685f32af11994068") + sound[offset + 8 :])
        try:
            weights.read_layers(path, ("a", "b"))
        except ValueError as error:
            refused += "cannot be read as a .h5 weights file" in str(error)
    assert refused > 50


def test_an_array_of_another_file_is_refused(tmp_path):
    (tmp_path / "secret").write_bytes(bytes(range(108)))
    with h5py.File(tmp_path / "vgg.h5", "w") as file:
        file.create_dataset("block1_conv1/kernel", (3, 3, 3, 1), "f4", external=[(str(tmp_path / "secret"), 0, 108)])
        file["block1_conv1/bias"] = np.zeros(1, np.float32)
    with pytest.raises(ValueError, match="vgg.h5 .*the array /block1_conv1/kernel lies in another file"):
        weights.read_layers(tmp_path / "vgg.h5", NAMES)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["kernel"] = np.zeros((3, 3, 3, 1), np.float32)
    layout = h5py.VirtualLayout((3, 3, 3, 1), "f4")
    layout[...] = h5py.VirtualSource(tmp_path / "other.h5", "kernel", (3, 3, 3, 1))
    with h5py.File(tmp_path / "virtual.h5", "w") as file:
        file.create_virtual_dataset("block1_conv1/kernel", layout)
    with pytest.raises(ValueError, match="virtual.h5 .*lies in another file"):
        weights.read_layers(tmp_path / "virtual.h5", NAMES)


def test_an_array_that_unpacks_to_far_more_is_refused(tmp_path):
    with h5py.File(tmp_path / "bomb.h5", "w") as file:
        file.create_dataset("block1_conv1/kernel", (1 << 28,), "f4", chunks=(1 << 20,), compression="gzip")
    with pytest.raises(ValueError, match="bomb.h5 .*block1_conv1/kernel unpacks to 1073741824 bytes"):
        weights.read_layers(tmp_path / "bomb.h5", NAMES)


def test_a_prior_that_holds_no_numbers_is_refused(tmp_path):
    prior = MotionPrior(superpixels=SuperpixelSettings(num_levels=1, max_regions=16), width=0.02)
    prior.save(tmp_path / "prior.keras")
    assert len(load_prior(tmp_path / "prior.keras").weights) == len(prior.weights)
    prior.weights[0].assign(np.full(prior.weights[0].shape, np.nan, np.float32))
    prior.save(tmp_path / "nan.keras")
    with pytest.raises(
        ValueError, match="nan.keras: 1 arrays of this prior are not finite, such as .*; train it again"
    ):
        load_prior(tmp_path / "nan.keras")


def rewrite(source, target, change):
    """Copies a .keras file with another config.json."""
    with zipfile.ZipFile(source) as read, zipfile.ZipFile(target, "w") as write:
        for name in read.namelist():
            content = read.read(name)
            write.writestr(name, change(json.loads(content)) if name == "config.json" else content)


def edit(**changes):
    return lambda config: json.dumps({**config, "config": {**config["config"], **changes}})


DENSE = keras.saving.serialize_keras_object(keras.layers.Dense(3))
LEVELS = {**SuperpixelSettings().to_dict(), "num_levels": 10**6}
HOSTILE_CONFIGS = {
    "wide": (edit(width=40), "width must be a positive number, at most 4, found 40"),
    "levels": (edit(superpixels=LEVELS, classifier_per_level=True), "num_levels must be a whole number of 1 to 64"),
    "size": (edit(flow={**FlowSettings().to_dict(), "method": "rm"}), "The flow method must be one of"),
    "layer": (lambda _: json.dumps(DENSE), "found a Dense"),
    "network": (
        lambda _: json.dumps({"class_name": "Sequential", "config": {"layers": [DENSE]}}),
        "found a Sequential",
    ),
    "name": (lambda c: json.dumps({**c, "registered_name": "Lambda"}), "found a Lambda"),
    "list": (lambda _: "[]", "its config.json names no class"),
    "text": (lambda _: "{", "Keras cannot load it: Expecting property name"),
    "deep": (lambda _: "[" * 10**5, "Keras cannot load it"),
}


@pytest.mark.parametrize("name", HOSTILE_CONFIGS)
def test_a_prior_that_would_build_something_else_is_refused_before_that(tmp_path, monkeypatch, name):
    change, message = HOSTILE_CONFIGS[name]
    prior = MotionPrior(superpixels=SuperpixelSettings(num_levels=1, max_regions=16), width=0.02)
    prior.save(tmp_path / "prior.keras")
    rewrite(tmp_path / "prior.keras", tmp_path / "evil.keras", change)
    built = []
    monkeypatch.setattr(keras.layers.Dense, "__init__", lambda *_, **__: built.append(1))
    with pytest.raises(ValueError, match=f"evil.keras: expected a motion prior, .*{message}"):
        load_prior(tmp_path / "evil.keras")
    assert not built


def write_member(path, content, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("block1_conv1/kernel.npy", content)


def npy(header):
    """An array file of NumPy with this header, and a few numbers behind it."""
    header = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(64)


HEADERS = {
    "a bracket that stays open": "{'descr': (",
    "an indentation": "  {\n 'descr'",
    "no expression": "{'descr': '<f4', 'shape' (}",
    "an array of 40 TB": "{'descr': '<f4', 'fortran_order': False, 'shape': (10000000000000,), }",
    "a hundred digits": "{'descr': '<f4', 'fortran_order': False, 'shape': (1" + 100 * "0" + ",), }",
    "brackets without end": "(" * 5000,
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_an_array_header_that_is_none_is_told_with_the_file(tmp_path, header):
    write_member(tmp_path / "evil.npz", npy(header))
    for read in (weights.read_npz, lambda path: weights.read_layers(path, NAMES)):
        with pytest.raises(ValueError, match=r"evil.npz cannot be read as a .npz weights file \(.+\); save it again"):
            read(tmp_path / "evil.npz")


def test_a_damaged_lzma_stream_is_told_with_the_file(tmp_path):
    path = tmp_path / "evil.npz"
    write_member(path, npy("{'descr': '<f4', 'fortran_order': False, 'shape': (16,), }"), zipfile.ZIP_LZMA)
    content = bytearray(path.read_bytes())
    content[len("block1_conv1/kernel.npy") + 30 + 4] = 0xFF  # the first of the stream's properties
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"evil.npz cannot be read as a .npz weights file \(.+\); save it again"):
        weights.read_npz(path)


@pytest.mark.parametrize("name", ["block1_conv1/kernel", "optimizer_weights"])
@pytest.mark.parametrize("kind", [h5py.SoftLink, lambda path: h5py.ExternalLink("other.h5", path)])
def test_links_of_every_kind_are_refused_under_every_name(tmp_path, name, kind):
    """By "optimizer", which is not read, a soft link would get at another file."""
    with h5py.File(tmp_path / "vgg.h5", "w") as file:
        file["block1_conv1/bias"] = np.zeros(1, np.float32)
        file[name] = kind("/block1_conv1/bias")
    with pytest.raises(ValueError, match=f"vgg.h5 .*/{name} is a link to another (file|place); save it whole"):
        weights.read_layers(tmp_path / "vgg.h5", NAMES)


def test_what_lies_in_the_file_under_two_names_is_refused(tmp_path):
    with h5py.File(tmp_path / "array.h5", "w") as file:
        file["block1_conv1/kernel"] = np.zeros((3, 3, 3, 1), np.float32)
        file["block1_conv1/more"] = file["block1_conv1/kernel"]
    with pytest.raises(ValueError, match="array.h5 .*/block1_conv1/more lies in the file a second time"):
        weights.read_layers(tmp_path / "array.h5", NAMES)
    with h5py.File(tmp_path / "groups.h5", "w") as file:  # 2 ** 40 ways to the last one
        for level in range(40):
            group = file.create_group(f"g{level}")
            if level:
                file[f"g{level - 1}/a"] = file[f"g{level - 1}/b"] = group
    with pytest.raises(ValueError, match="groups.h5 .* lies in the file a second time"):
        weights.read_layers(tmp_path / "groups.h5", NAMES)
    with h5py.File(tmp_path / "circle.h5", "w") as file:
        file["block1_conv1/root"] = file["/"]
    with pytest.raises(ValueError, match="circle.h5 .*/block1_conv1/root lies in the file a second time"):
        weights.read_layers(tmp_path / "circle.h5", NAMES)


def test_many_arrays_are_refused_by_their_sum_and_not_all_named(tmp_path, monkeypatch):
    with h5py.File(tmp_path / "many.h5", "w") as file:
        for number in range(100):
            file[f"block1_conv1/{number}"] = np.zeros((5, 5), np.float32)
    with pytest.raises(ValueError, match=r"found arrays of shape \(5, 5\)(, \(5, 5\)){3} and 96 more; give"):
        weights.read_layers(tmp_path / "many.h5", NAMES)
    monkeypatch.setattr(weights, "MAX_UNPACKED", 9_999)
    with pytest.raises(ValueError, match="many.h5 .*its arrays unpack to more than 9999 bytes"):
        weights.read_layers(tmp_path / "many.h5", NAMES)
