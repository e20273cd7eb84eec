"""`msst train_prior`: a prior with features of the frame, its report on held-out records, and what it refuses."""

from __future__ import annotations

import json

import numpy as np
import pytest
from forked import msst

from msst_keras.data import flow_files, images
from msst_keras.evaluation.evaluator import Evaluator
from msst_keras.evaluation.protocols import PROTOCOLS
from msst_keras.evaluation.scores import choose_headline
from msst_keras.jobs import train_prior as train_prior_module
from msst_keras.jobs.train_prior import train_prior as train_prior_job
from msst_keras.motion.flow import FlowSettings
from msst_keras.motion.kept_training import KeptTraining
from msst_keras.motion.options import PriorOptions, TrainPriorOptions
from msst_keras.motion.prior_files import load_prior
from msst_keras.motion.prior_folds import load_folds, trained_weights
from msst_keras.motion.superpixels import segment
from msst_keras.pipeline import clip_index
from msst_keras.pipeline.batches import flow_batches
from msst_keras.records.example import FrameRecord
from msst_keras.records.manifest import build_manifest, write_manifest
from msst_keras.records.shard_files import shard_path, write_shard

SIZE = (48, 64)
FLOW = FlowSettings("farneback", SIZE)


def make_records(folder, sequence, flow=FLOW, kind="fine"):
    """Five frames, twice the size of the flow; a red square moves, the rest stands still."""
    frames = []
    for index in range(5):
        mask = np.zeros(SIZE, bool)
        mask[10:30, 5 + 4 * index : 30 + 4 * index] = True
        flow_map = np.where(mask[..., None], np.float32([4, 0]), np.float32([0, 0]))
        big = mask.repeat(2, axis=0).repeat(2, axis=1)
        frame = np.where(big[..., None], np.uint8([200, 0, 0]), np.uint8([0, 40 * index, 90]))
        frames.append(FrameRecord(
            sequence, f"{index:05d}", index, *big.shape, images.encode_png(frame),
            images.encode_png(big.astype(np.uint8) * 255), kind, None, flow_files.encode_flow_png(flow_map),
        ))  # fmt: skip
    write_shard(shard_path(folder, 0, 1), frames)
    motion = {"flow": flow.to_dict(), "superpixels": None, "prior": {"kind": "none"}, "flow_stored": True}
    write_manifest(folder, build_manifest(folder, 1, {"dataset": "", "motion": motion}))
    return folder


def train_prior(folder, *arguments):
    small = ["--width=0.0625", "--max_regions=32", "--num_levels=2", "--steps=3", "--batch_size=2"]
    return msst("train_prior", f"--output={folder}/prior.keras", "--weights=none", *small, *arguments)


def test_flow_batches_give_the_frame_at_the_size_of_the_flow(tmp_path):
    index, settings = clip_index.index_flow([str(make_records(tmp_path / "a", "s"))])
    assert settings == FLOW.to_dict()
    (batch,) = flow_batches(index, 5, 0, 0, 1, with_frames=True).as_numpy_iterator()
    assert batch["frame"].shape == (5, *SIZE, 3)
    inside = batch["mask"] > 0
    np.testing.assert_array_equal(inside, batch["flow"][..., 0] == 4)
    # Where all of the eight pixels around are of one kind, resampling changes nothing.
    inner = inside[:, 1:-1, 1:-1] & inside[:, 2:, 1:-1] & inside[:, :-2, 1:-1] & inside[:, 1:-1, 2:]
    inner &= inside[:, 1:-1, :-2]
    np.testing.assert_allclose(batch["frame"][:, 1:-1, 1:-1][inner][..., 0], 200, atol=15)
    assert batch["frame"][~inside][..., 0].mean() < 10
    (batch,) = flow_batches(index, 5, 0, 0, 1).as_numpy_iterator()
    assert "frame" not in batch


@pytest.mark.slow
def test_the_report_is_of_held_out_records(tmp_path):
    train, val = make_records(tmp_path / "train", "a"), make_records(tmp_path / "val", "b")
    given = [f"--records={train}", "--rgb_features", "--camera=affine"]
    result = train_prior(tmp_path, *given, f"--val_records={val}", "--val_frames=4")
    assert result.returncode == 0, result.stderr
    report = json.loads((tmp_path / "prior.json").read_text())
    assert report["training"]["steps"] == 3
    validation = report["validation"]
    assert validation["num_frames"] == 4
    assert set(validation["maps"]) == {"prior", "flow magnitude", "all black"}
    # The square alone moves: magnitude is its mask.
    assert validation["maps"]["flow magnitude"] == {"mae": 0, "max_f": 1, "s_measure": pytest.approx(1)}
    assert 0 < validation["regions"]["num_salient_regions"] < validation["regions"]["num_regions"]
    assert "held out, 4 frames" in result.stdout
    prior = load_prior(tmp_path / "prior.keras")
    assert prior.needs_frames
    assert prior.flow_settings == FLOW
    assert prior.get_config()["camera"] == "affine"


def test_folds_are_in_the_file_and_the_report_is_of_sequences_that_were_not_seen(tmp_path):
    folders = [make_records(tmp_path / name, name) for name in ("a", "b", "c")]
    options = TrainPriorOptions(
        records=tuple(map(str, folders)), output=str(tmp_path / "prior.keras"), steps=2, batch_size=2, folds=2,
        val_frames=4,
        prior=PriorOptions(weights="none", width=0.03, num_levels=1, max_regions=16, train_backbone=False),
    )  # fmt: skip
    report = train_prior_job(options)
    assert report["validation"] is None and report["out_of_fold"]["num_frames"] == 4
    prior = load_prior(tmp_path / "prior.keras")
    folds = load_folds(tmp_path / "prior.keras", prior)
    assert folds.sequences == {"a": 0, "b": 1, "c": 0}
    whole = trained_weights(prior)
    used = {}
    for name in ("a", "b", "c", "new"):
        folds.use(name)
        used[name] = trained_weights(prior)
    for one, other, same in (("a", "c", True), ("a", "b", False), ("b", "new", False)):
        pairs = zip(used[one], used[other], strict=True)
        assert all((x == y).all() for x, y in pairs) == same
    assert all((x == y).all() for x, y in zip(used["new"], whole, strict=True))
    # The report is what each frame's own classifier answers, by hand.
    index, _ = clip_index.index_flow(options.records)
    evaluator = Evaluator(PROTOCOLS["paper"])
    for batch in flow_batches(index, 1, 0, 0, 4).as_numpy_iterator():
        name = index.names[batch["clip"][0]]
        folds.use(name.partition("/")[0])
        superpixels = segment(batch["flow"][0], prior.superpixel_settings)[None]
        saliency = prior({"flow": batch["flow"], "superpixels": superpixels}).numpy()[0, ..., 0]
        evaluator.add(*name.split("/"), saliency, batch["mask"][0] > 0.5)
    expected = choose_headline(evaluator.result())
    assert report["out_of_fold"]["maps"]["prior"] == pytest.approx(expected, abs=1e-3)
    assert json.loads((tmp_path / "prior.json").read_text()) == report


def small_options(folder, **options):
    """Of a short training on the sequences a and b."""
    network = PriorOptions(weights="none", width=0.03, num_levels=1, max_regions=16, train_backbone=False)
    given = {"steps": 4, "batch_size": 2, "val_frames": 2, "prior": network} | options
    records = (str(folder / "a"), str(folder / "b"))
    return TrainPriorOptions(records=records, output=str(folder / "prior.keras"), **given)


def test_a_command_that_was_refused_does_not_stand_in_the_way_of_the_mended_one(tmp_path):
    for name in ("a", "b"):
        make_records(tmp_path / name, name)
    with pytest.raises(ValueError, match="5 folds need as many sequences with labels, found 2"):
        train_prior_job(small_options(tmp_path, folds=5))
    with pytest.raises((ValueError, FileNotFoundError), match="none.such.h5"):
        train_prior_job(small_options(tmp_path, prior=PriorOptions(weights=f"{tmp_path}/none_such.h5")))
    with pytest.raises(ValueError, match="The loss of the prior is nan"):
        train_prior_job(small_options(tmp_path, learning_rate=1e38))
    assert train_prior_job(small_options(tmp_path))["training"]["steps"] == 4
    assert not (tmp_path / ".training-prior.keras").exists()


def test_a_killed_training_goes_on_and_is_no_other_one(tmp_path, monkeypatch):
    for name in ("a", "b"):
        make_records(tmp_path / name, name)
    train_prior_job(small_options(tmp_path))
    whole, report = trained_weights(load_prior(tmp_path / "prior.keras")), (tmp_path / "prior.json").read_text()
    work, begun = tmp_path / ".training-prior.keras", []

    class Killed(KeptTraining):
        """Is written after each step, and killed before the fourth one."""

        def __init__(self, path):
            super().__init__(path, seconds=0)
            begun.append(self.done)

        def keep(self, variables):
            super().keep(variables)
            if self.done == 3:
                raise KeyboardInterrupt

    work.mkdir()
    (work / "state.npz").write_bytes(b"of nobody knows what")
    monkeypatch.setattr(train_prior_module, "KeptTraining", Killed)
    with pytest.raises(KeyboardInterrupt):
        train_prior_job(small_options(tmp_path))
    with pytest.raises(ValueError, match="was begun with something else: steps 4 .now 5.; repeat those flags to go on"):
        train_prior_job(small_options(tmp_path, steps=5))
    train_prior_job(small_options(tmp_path))
    assert begun == [0, 3] and not work.exists()
    found = trained_weights(load_prior(tmp_path / "prior.keras"))
    assert all((one == other).all() for one, other in zip(found, whole, strict=True))
    assert (tmp_path / "prior.json").read_text() == report


def test_fine_labels_alone_may_teach(tmp_path):
    folders = [str(make_records(tmp_path / "fine", "a")), str(make_records(tmp_path / "coarse", "b", kind="coarse"))]
    assert len(clip_index.index_flow(folders)[0]) == 10
    index, _ = clip_index.index_flow(folders, ("fine",))
    assert [name.partition("/")[0] for name in index.names] == ["a"] * 5


@pytest.mark.slow
def test_without_held_out_records_it_says_so(tmp_path):
    result = train_prior(tmp_path, f"--records={make_records(tmp_path / 'train', 'a')}")
    assert result.returncode == 0, result.stderr
    assert "nothing was held out" in result.stdout
    assert json.loads((tmp_path / "prior.json").read_text())["validation"] is None


@pytest.mark.slow
def test_validation_records_that_do_not_fit_are_refused(tmp_path):
    train = make_records(tmp_path / "train", "a")
    other = make_records(tmp_path / "other", "b", FlowSettings("dis", SIZE))
    result = train_prior(tmp_path, f"--records={train}", f"--val_records={other}")
    assert result.returncode == 1
    assert "--val_records were made with other flow settings than --records" in result.stderr
    same = make_records(tmp_path / "same", "a")
    result = train_prior(tmp_path, f"--records={train}", f"--val_records={same}")
    assert result.returncode == 1
    assert "the sequence 'a' is in" in result.stderr
