"""Folds are dealt by sequence; each prior of a fold is trained without it; a file gives a sequence the right one."""

from __future__ import annotations

import zipfile

import keras
import numpy as np
import pytest

from msst_keras.motion.flow import FlowSettings
from msst_keras.motion.kept_training import KeptTraining
from msst_keras.motion.prior import MotionPrior
from msst_keras.motion.prior_files import load_prior
from msst_keras.motion.prior_folds import add_folds, deal_sequences, load_folds, trained_weights
from msst_keras.motion.prior_training import train_prior
from msst_keras.motion.superpixels import SuperpixelSettings

SIZE = (32, 48)


def make_prior(**options):
    """Fitting a homography would make a step's graph twice as large; tests/motion/test_camera.py has it."""
    keras.utils.set_random_seed(0)
    superpixels = SuperpixelSettings(num_levels=1, max_regions=8)
    return MotionPrior(FlowSettings(motion_size=SIZE), superpixels, width=0.03, camera="none", **options)


def examples(folds, seed=0):
    """A batch of maps of six squares in random motion, of random salience."""
    generator = np.random.default_rng(seed)
    labels = np.arange(6, dtype=np.int32).reshape(2, 3).repeat(16, axis=0).repeat(16, axis=1)
    flow = generator.uniform(-3, 3, (len(folds), 6, 2)).astype(np.float32)[:, labels]
    mask = (generator.random((len(folds), 6)) < 0.5)[:, labels]
    superpixels = np.repeat(labels[None, ..., None], len(folds), axis=0)
    return {"flow": flow, "mask": mask, "superpixels": superpixels, "fold": np.array(folds)}


def without(batch, fold):
    kept = batch["fold"] != fold
    return {name: value[kept] for name, value in batch.items()}


def test_sequences_are_dealt_by_their_lengths_in_whatever_order_they_come():
    lengths = {"a": 5, "b": 4, "c": 3, "d": 3, "e": 2, "f": 1}
    folds = deal_sequences(lengths, 3)
    assert folds == {"a": 0, "b": 1, "c": 2, "d": 2, "e": 1, "f": 0}
    assert deal_sequences(dict(reversed(lengths.items())), 3) == folds
    with pytest.raises(ValueError, match="7 folds need as many sequences with labels, found 6"):
        deal_sequences(lengths, 7)
    with pytest.raises(ValueError, match="two folds or more, or none, not 1"):
        deal_sequences(lengths, 1)


@pytest.mark.parametrize("train_backbone", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_each_prior_of_a_fold_is_trained_as_if_the_fold_were_not_there(train_backbone):
    batches = [examples([0, 1, 1, 0, 1], seed) for seed in range(3)]
    prior = make_prior(train_backbone=train_backbone)
    spawned = [prior.spawn() for _ in range(2)]
    assert all((each.backbone is prior.backbone) != train_backbone for each in spawned)
    starts = [trained_weights(each) for each in (prior, *spawned)]
    assert any((a != b).any() for a, b in zip(*starts[1:], strict=True))  # they do not begin alike
    report = train_prior(batches, prior, steps=3, folds=spawned)
    for number, (found, start) in enumerate(zip((prior, *spawned), starts, strict=True), start=-1):
        alone = make_prior(train_backbone=train_backbone)
        if not train_backbone:
            alone.backbone.set_weights(prior.backbone.get_weights())
        for variable, array in zip(alone.trainable_variables, start, strict=True):
            variable.assign(array)
        report_alone = train_prior([without(batch, number) for batch in batches], alone, steps=3)
        for one, other in zip(trained_weights(found), trained_weights(alone), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=2e-5)
        if number < 0:
            assert report["loss"] == pytest.approx(report_alone["loss"], rel=1e-4)
    with pytest.raises(ValueError, match=r"must hold fold \(5,\), numbers below 2, found \[0, 1, 1, 0, 2\]"):
        train_prior([examples([0, 1, 1, 0, 2])], prior, steps=1, folds=spawned)


def test_a_file_with_folds_is_the_prior_of_all_and_gives_each_sequence_the_one_that_did_not_see_it(tmp_path):
    prior = make_prior(train_backbone=False)
    weights = [[array + number for array in trained_weights(prior)] for number in (1, 2)]
    path = tmp_path / "prior.keras"
    prior.save(path)
    assert load_folds(path, load_prior(path)) is None
    add_folds(path, {"a": 0, "b": 1}, weights)
    loaded = load_prior(path)
    folds = load_folds(path, loaded)
    first = trained_weights(prior)[-1]
    for sequence, added in (("a", 1), ("b", 2), ("new", 0), ("b", 2), (None, 0)):
        folds.use(sequence)
        for found, expected in zip(trained_weights(loaded), trained_weights(prior), strict=True):
            np.testing.assert_array_equal(found, expected + np.float32(added))
    np.testing.assert_array_equal(trained_weights(prior)[-1], first)

    for name, content, message in (
        ("folds/1.npz", b"PK", "its folds are damaged"), ("folds/folds.json", b"{", "its folds are damaged"),
        ("folds/folds.json", b'{"num_folds": 2, "sequences": {"a": 2}}', "its folds are damaged"),
    ):  # fmt: skip
        damaged = tmp_path / "damaged.keras"
        with zipfile.ZipFile(path) as source, zipfile.ZipFile(damaged, "w") as target:
            for member in source.namelist():
                target.writestr(member, content if member == name else source.read(member))
        with pytest.raises(ValueError, match=f"damaged.keras: {message}.*train the prior again"):
            load_folds(damaged, loaded)
    other = tmp_path / "other.keras"
    prior.save(other)
    add_folds(other, {"a": 0}, [[array[..., :1] for array in trained_weights(prior)]])
    with pytest.raises(ValueError, match="its folds are of another network than its prior"):
        load_folds(other, loaded)


def test_a_training_that_was_killed_goes_on_with_its_folds(tmp_path):
    batches = [examples([0, 1, 1, 0], seed) for seed in range(4)]

    def train(kept, first):
        prior = make_prior(train_backbone=False)
        spawned = [prior.spawn() for _ in range(2)]
        report = train_prior(batches[first:], prior, steps=4, kept=kept, folds=spawned)
        return report, [array for each in (prior, *spawned) for array in trained_weights(each)]

    expected = train(None, 0)

    class Killed(KeptTraining):
        def keep(self, variables):
            super().keep(variables)
            if self.done == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(Killed(tmp_path / "state.npz", seconds=0), 0)
    report, weights = train(KeptTraining(tmp_path / "state.npz"), 3)
    assert report == expected[0]
    for found, wanted in zip(weights, expected[1], strict=True):
        np.testing.assert_array_equal(found, wanted)
