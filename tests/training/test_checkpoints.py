"""Torn checkpoints are recognised, the last few and the best are kept, and a full disk leaves what there was."""

from __future__ import annotations

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from msst_keras.training.checkpoints import Checkpoints, newest_checkpoint


def make(run_dir, keep=3, value=0.0, writes=True):
    """A model of one weight, an average beside it, and their checkpoints."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(500, use_bias=False)])
    model.weights[0].assign(np.full((1, 500), value))
    average = tf.Variable(value)
    checkpoints = Checkpoints(run_dir, keep, model, tf.train.Checkpoint(average=average), writes)
    return checkpoints, model.weights[0], average


def save_two(run_dir):
    checkpoints, weight, average = make(run_dir)
    for step in (10, 20):
        weight.assign(np.full((1, 500), step))
        average.assign(step)
        checkpoints.save(step)
    return run_dir / "checkpoints"


def cut(path, share):
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def flip(path, share):
    content = bytearray(path.read_bytes())
    content[int(len(content) * share)] ^= 0xFF
    path.write_bytes(bytes(content))


DAMAGES = {
    "data cut": ("data", lambda path: cut(path, 0.5)),
    "data empty": ("data", lambda path: cut(path, 0)),
    "data missing": ("data", lambda path: path.unlink()),
    "data flipped": ("data", lambda path: flip(path, 0.5)),
    "index cut": ("index", lambda path: cut(path, 0.5)),
    "index empty": ("index", lambda path: cut(path, 0)),
    "index flipped": ("index", lambda path: flip(path, 0.3)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_torn_checkpoint_is_named_and_the_one_before_it_is_used(tmp_path, damage, capsys):
    folder = save_two(tmp_path)
    part, harm = DAMAGES[damage]
    harm(next(folder.glob(f"ckpt-20.{part}*")))
    assert newest_checkpoint(folder) == f"{folder}/ckpt-10"
    left = {path.name: path.read_bytes() for path in folder.glob("ckpt-20.*")}
    reader, weight, average = make(tmp_path, writes=False)
    assert reader.restore() == 10
    assert list(folder.glob("ckpt-20.*"))  # one that only reads removes nothing
    writer, weight, average = make(tmp_path)
    capsys.readouterr()
    assert writer.restore() == 10
    assert capsys.readouterr().err == f"{folder}/ckpt-20 is torn; going on from the checkpoint before it\n"
    np.testing.assert_array_equal(weight, np.full((1, 500), 10))
    assert average.numpy() == 10
    assert {path.name: path.read_bytes() for path in folder.glob("torn-ckpt-20.*")} == {
        f"torn-{name}": content for name, content in left.items()
    }


def test_what_cannot_be_read_is_not_taken_for_torn(tmp_path):
    folder = save_two(tmp_path)
    data = folder / "ckpt-20.data-00000-of-00001"
    data.unlink()
    data.symlink_to("/proc/self/mem")  # gives an input or output error, as a disk that fails
    names = sorted(path.name for path in folder.iterdir())
    with pytest.raises(OSError, match="ckpt-20.data-00000-of-00001 cannot be read .*nothing was changed"):
        make(tmp_path)[0].restore()
    assert sorted(path.name for path in folder.iterdir()) == names


def test_without_a_whole_checkpoint_no_training_begins_again_by_itself(tmp_path):
    folder = save_two(tmp_path)
    for path in folder.glob("*.data*"):
        flip(path, 0.5)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for _ in range(2):
        with pytest.raises(ValueError, match="none of its checkpoints is whole .ckpt-20, ckpt-10., and a training"):
            make(tmp_path)[0].restore()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    (folder / "ckpt-20.index").rename(folder / "torn-ckpt-20.index")
    (folder / "ckpt-10.index").unlink()
    with pytest.raises(ValueError, match="none of its checkpoints is whole .torn-ckpt-20.,"):
        make(tmp_path)[0].restore()


def test_a_checkpoint_without_index_is_none(tmp_path):
    folder = save_two(tmp_path)
    (folder / "ckpt-20.index").unlink()
    assert make(tmp_path)[0].restore() == 10
    assert make(tmp_path / "empty")[0].restore() == 0
    assert newest_checkpoint(tmp_path / "empty") is None


def test_the_last_few_are_kept_and_what_a_killed_save_left_goes(tmp_path):
    checkpoints, _, _ = make(tmp_path, keep=2)
    left = tmp_path / "checkpoints" / "ckpt-7_temp"
    left.mkdir(parents=True)
    (left / "part").write_text("x")
    for step in (8, 9, 10):
        checkpoints.save(step)
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == [f"ckpt-{step}.{part}" for step in (10, 9) for part in ("data-00000-of-00001", "index")]
    make(tmp_path / "other", writes=False)[0].save(1)
    assert not (tmp_path / "other").exists()


def test_the_best_is_kept(tmp_path):
    checkpoints, weight, _ = make(tmp_path)
    for step, score in ((1, 0.5), (2, 0.7), (3, 0.6), (2, 0.7)):
        weight.assign(np.full((1, 500), step))
        assert checkpoints.save_best(step, {"mae": 0.1, "max_f": 0.2, "s_measure": score}) == (step != 3)
    assert json.loads((tmp_path / "best" / "best.json").read_text())["step"] == 2
    prefix = newest_checkpoint(tmp_path / "best")
    assert prefix.endswith("best/ckpt-2")
    reader = tf.train.load_checkpoint(prefix)
    (name,) = (name for name, shape in reader.get_variable_to_shape_map().items() if shape == [1, 500])
    np.testing.assert_array_equal(reader.get_tensor(name), np.full((1, 500), 2))


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path):
    program = f"""
import resource, signal, sys
sys.path.insert(0, {str(__file__.rpartition("/")[0])!r})
from pathlib import Path
import test_checkpoints as t
checkpoints, _, _ = t.make(Path({str(tmp_path)!r}))
checkpoints.save(10)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    checkpoints.save(20)
except OSError as error:
    print(error)
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    sentence = found.stdout.strip()
    assert sentence.startswith(f"{tmp_path}/checkpoints: ckpt-20 could not be written (")
    assert sentence.endswith("ckpt-10 is intact; make room and run the same command to go on")
    assert len(sentence.splitlines()) == 1
    assert make(tmp_path)[0].restore() == 10
    assert not list((tmp_path / "checkpoints").glob("ckpt-20*"))


def test_what_tensorflow_says_of_a_full_disk_is_said_in_plain_words(tmp_path, monkeypatch):
    checkpoints, *_ = make(tmp_path)
    checkpoints.save(10)

    def fail(self, prefix):
        message = f"{{{{function_node __wrapped__SaveV2}}}} {prefix}_temp/part-0; No space left on device [Op:SaveV2]"
        raise tf.errors.ResourceExhaustedError(None, None, message)

    monkeypatch.setattr(tf.train.Checkpoint, "write", fail)
    with pytest.raises(
        OSError, match=r"ckpt-20 could not be written \(the disk is full\); ckpt-10 is intact; make room"
    ):
        checkpoints.save(20)
