"""A refused training leaves the run as it was: `msst train` compares a run before it changes anything there."""

from __future__ import annotations

import dataclasses
import hashlib

import pytest
from forked import msst

from msst_keras.conversion.shard_maker import ShardMaker
from msst_keras.conversion.sources import NewShard
from msst_keras.motion.flow import FlowSettings
from msst_keras.motion.settings import MAGNITUDE, MotionOptions, PriorSettings
from msst_keras.records.manifest import join_manifest, write_manifest
from msst_keras.records.shard_files import shard_path
from msst_keras.synthetic import videos
from msst_keras.training import run_dir as run


def make_records(folder, prior):
    """Records of one sequence that say that their prior is of this file; a training does not look into it."""
    folder.mkdir()
    motion = MotionOptions(FlowSettings(motion_size=(32, 48)), prior=MAGNITUDE)
    shard = NewShard(shard_path(folder, 0, 1), (videos.generate_sequence(0, 3, (32, 48), name="s"),), "fine")
    settings = dataclasses.replace(motion.settings(), prior=settings_of(prior))
    description = {"dataset": "generated", "motion": settings.to_dict()}
    write_manifest(folder, join_manifest(folder, [ShardMaker(motion).make(shard)[0]], description))


def settings_of(prior):
    """What records say of a prior's file."""
    return PriorSettings("network", hashlib.sha256(prior.read_bytes()).hexdigest())


def test_a_refused_training_leaves_the_prior_of_the_run(tmp_path):
    for name in ("first", "second"):
        (tmp_path / f"{name}.keras").write_bytes(name.encode())
        make_records(tmp_path / name, tmp_path / f"{name}.keras")
    kept = tmp_path / "run" / "prior.keras"

    def train(name, *flags):
        """Trains on the records of this name, into the one run."""
        return msst(
            "train", f"--records={tmp_path / name}", f"--run_dir={tmp_path / 'run'}", "--width=0.03", "--steps=1",
            "--weights=none", "--image_sizes=32x48", "--num_frames=1", "--precision=float32", *flags,
        )  # fmt: skip

    refused = train("first", f"--prior={tmp_path / 'second.keras'}")
    assert refused.returncode == 1 and "give the file they were made with as --prior" in refused.stderr
    assert not (tmp_path / "run").exists()  # so that a correction of --records is not another run
    begun = train("first", f"--prior={tmp_path / 'first.keras'}")
    assert begun.returncode == 0, begun.stderr
    assert kept.read_bytes() == b"first"

    refused = train("second", f"--prior={tmp_path / 'second.keras'}")
    assert refused.returncode == 1 and "holds a run whose motion" in refused.stderr.splitlines()[-1]
    assert kept.read_bytes() == b"first"

    kept.unlink()  # as a kill leaves it between run.json and the copy
    again = train("first", f"--prior={tmp_path / 'first.keras'}")
    assert again.returncode == 0, again.stderr
    assert kept.read_bytes() == b"first"


def test_to_find_the_prior_changes_nothing(tmp_path):
    path = tmp_path / "own.keras"
    path.write_bytes(b"weights")
    prior, folder = settings_of(path), tmp_path / "run"
    assert run.find_prior(folder, prior, path) == path
    assert run.find_prior(folder, None, path) is None  # `os` sees no motion
    assert run.find_prior(folder, PriorSettings("magnitude"), None) is None
    with pytest.raises(ValueError, match="give the file they were made with as --prior"):
        run.find_prior(folder, prior, None)
    assert not folder.exists()
    run.keep_prior(folder, prior, path)
    assert run.find_prior(folder, prior, None) is None  # the run has it already
