"""HDF5 files whose numbers lie in other files are refused: they would put any file of the machine into a model."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from msst_keras.model.weights import read_layers


def write(path, kernel):
    with h5py.File(path, "w") as file:
        group = file.create_group("conv")
        kernel(group)
        group["bias"] = np.zeros(4, "float32")
    return path


def sound(group):
    group["kernel"] = np.ones((3, 3, 1, 4), "float32")


def external_storage(group):
    group.create_dataset("kernel", (3, 3, 1, 4), "float32", external=[(group.file.filename + ".secret", 0, 144)])


def external_link(group):
    group["kernel"] = h5py.ExternalLink(group.file.filename + ".secret", "/x")


def virtual(group):
    layout = h5py.VirtualLayout((3, 3, 1, 4), "float32")
    layout[:] = h5py.VirtualSource(group.file.filename + ".secret", "x", (3, 3, 1, 4))
    group.create_virtual_dataset("kernel", layout)


@pytest.mark.parametrize("kernel", [external_storage, external_link, virtual])
def test_numbers_from_elsewhere(tmp_path, kernel):
    secret = tmp_path / "weights.h5.secret"
    if kernel is external_storage:
        secret.write_bytes(b"root:x:0:0:root" * 10)
    else:
        with h5py.File(secret, "w") as file:
            file["x"] = np.full((3, 3, 1, 4), 7, "float32")
    path = write(tmp_path / "weights.h5", kernel)
    with pytest.raises(ValueError, match="conv/kernel (lies in another file|is a link to another file)"):
        read_layers(path, ["conv"])


def test_a_sound_file_is_read(tmp_path):
    found = read_layers(write(tmp_path / "weights.h5", sound), ["conv"])
    np.testing.assert_array_equal(found["conv"][0], np.ones((3, 3, 1, 4)))
