"""Weights of another hand: files that unpack to more than they seem, that lead to other files, or hold no numbers."""

from __future__ import annotations

import zipfile

import h5py
import numpy as np
import pytest

from msst_keras.model import weights
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
