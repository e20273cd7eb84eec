from __future__ import annotations

import itertools
import time

import keras
import numpy as np
import pytest

from msst_keras.motion import prior_training
from msst_keras.motion.flow import FlowEstimator, FlowSettings
from msst_keras.motion.flow_pictures import magnitude_prior
from msst_keras.motion.kept_training import KeptTraining
from msst_keras.motion.prior import MotionPrior
from msst_keras.motion.prior_files import load_prior, save_prior
from msst_keras.motion.prior_training import predict_priors, summarise_regions, train_prior
from msst_keras.motion.superpixels import SuperpixelSettings, segment
from msst_keras.synthetic.videos import generate_sequence

SIZE = (64, 96)
SUPERPIXELS = SuperpixelSettings(num_levels=2, max_regions=96)


def make_prior(seed=0, camera="none", **options):
    """Fitting a homography makes a step's graph twice as large; tests/motion/test_camera.py has it."""
    keras.utils.set_random_seed(seed)
    return MotionPrior(FlowSettings(motion_size=SIZE), SUPERPIXELS, width=0.0625, camera=camera, **options)


def squares(batch=2):
    """A batch whose superpixels are a grid; the salient ones move up, the others down."""
    labels = np.arange(4 * 6, dtype=np.int32).reshape(4, 6).repeat(16, axis=0).repeat(16, axis=1)
    mask = np.isin(labels, (8, 9, 14))
    flow = np.where(mask[..., None], np.float32([0, -3]), np.float32([0, 3]))
    scene = {"flow": flow, "superpixels": np.stack([labels, labels], axis=-1), "mask": mask}
    return {name: np.stack([value] * batch) for name, value in scene.items()}


def scenes(seed, batch=4):
    """Batches of squares that move, each as fast as the others; salient are those that move up."""
    generator = np.random.default_rng(seed)
    while True:
        scene = squares(batch)
        for mask, flow in zip(scene["mask"], scene["flow"], strict=True):
            mask[:], flow[:] = False, (1, 0)
            for x in generator.permutation(6)[:4] * 16:
                y, up = 16 * generator.integers(4), generator.random() < 0.5
                mask[y : y + 16, x : x + 16] = up
                flow[y : y + 16, x : x + 16] = (1, -3 if up else 3)
        yield scene


def test_training_finds_what_magnitude_cannot_tell():
    model = make_prior(camera="homography")
    report = train_prior(scenes(0), model, steps=50)  # the backbone too
    held_out = next(scenes(1, batch=16))
    predicted = model({"flow": held_out["flow"], "superpixels": held_out["superpixels"]}).numpy()[..., 0]
    magnitude = np.stack([magnitude_prior(flow) for flow in held_out["flow"]])
    errors = [np.abs(maps - held_out["mask"]).mean() for maps in (predicted, magnitude)]
    assert errors[0] < 0.2 * errors[1]
    assert report["balanced_accuracy"] > 0.95


@pytest.mark.slow
def test_a_narrow_prior_beats_the_magnitude_on_generated_videos():
    size = (96, 144)
    estimator, superpixels = FlowEstimator(FlowSettings(motion_size=size)), SuperpixelSettings(max_regions=256)
    examples = {"flow": [], "superpixels": [], "mask": []}
    for seed in range(76):
        sequence = generate_sequence(seed, 6, size)
        for flow, mask in zip(estimator.flows(sequence.frames), sequence.masks, strict=True):
            for name, value in (("flow", flow), ("superpixels", segment(flow, superpixels)), ("mask", mask)):
                examples[name].append(value)
    examples = {name: np.array(values) for name, values in examples.items()}
    generator = np.random.default_rng(0)
    batches = ({name: x[chosen] for name, x in examples.items()} for chosen in generator.choice(360, (150, 4)))
    keras.utils.set_random_seed(0)
    model = MotionPrior(estimator.settings, superpixels, width=0.125)
    train_prior(batches, model, steps=150)
    held_out = {name: x[360:] for name, x in examples.items()}
    predicted = model({"flow": held_out["flow"], "superpixels": held_out["superpixels"]}).numpy()[..., 0]
    magnitude = np.stack([magnitude_prior(flow) for flow in held_out["flow"]])
    errors, f_measures = zip(*(score(maps, held_out["mask"]) for maps in (predicted, magnitude)), strict=True)
    assert errors[0] < 0.6 * errors[1]
    assert f_measures[0] > f_measures[1] + 0.005


def score(maps, masks):
    """Mean absolute error, and the mean over maps of their largest F-measure, beta^2 = 0.3."""
    best = []
    for saliency, mask in zip(maps, masks, strict=True):
        if mask.any():
            above = saliency >= np.linspace(1 / 255, 1, 255)[:, None, None]
            true = (above & mask).sum(axis=(1, 2))
            best.append((1.3 * true / (above.sum(axis=(1, 2)) + 0.3 * mask.sum())).max())
    return np.abs(maps - masks).mean(), np.mean(best)


def test_loss_and_report_are_those_of_the_clear_regions(monkeypatch):
    """Both classes weigh the same; a region that is half salient counts for neither, a nearly clear one does."""
    batch = squares()
    batch["mask"][:, :4, :16] = True  # a quarter of a superpixel
    batch["mask"][:, 16:24, :16] = True  # half of one
    model = make_prior(train_backbone=False)
    logits = model.score_regions({"flow": batch["flow"], "superpixels": batch["superpixels"]}).numpy()[0, 0, :24]
    salient = np.isin(np.arange(24), (8, 9, 14))
    other = ~salient & (np.arange(24) != 6)
    losses = np.logaddexp(0, np.where(salient, -logits, logits))
    right = (logits > 0) == salient
    monkeypatch.setattr(np.random, "default_rng", lambda seed: FakeGenerator(1.0))  # not mirrored
    report = train_prior([batch], model, steps=1)
    assert report == {
        "steps": 1,
        "loss": pytest.approx((losses[salient].mean() + losses[other].mean()) / 2, rel=1e-4),
        "region_accuracy": pytest.approx(right[salient | other].mean()),
        "balanced_accuracy": pytest.approx((right[salient].mean() + right[other].mean()) / 2),
        "num_regions": 2 * 2 * 23,  # maps, levels, regions
        "num_salient_regions": 2 * 2 * 3,
    }


def test_what_moves_alike_is_told_apart_by_its_colour():
    """Of two kinds of squares in the same motion the red ones are salient."""

    def batches(seed):
        for scene in scenes(seed):
            scene["frame"] = np.where(scene["mask"][..., None], np.uint8([200, 0, 0]), np.uint8([0, 0, 200]))
            scene["flow"][:] = (0, 3)
            yield scene

    model = make_prior(rgb_features=True)
    report = train_prior(batches(0), model, steps=30)
    assert report["balanced_accuracy"] > 0.95


def test_predictions_and_their_report():
    batch, model = squares(), make_prior(train_backbone=False)
    ((given, maps, counts),) = predict_priors([batch], model)
    assert given is batch
    inputs = {"flow": batch["flow"], "superpixels": batch["superpixels"]}
    np.testing.assert_allclose(maps, model(inputs)[..., 0], atol=1 / 255)
    found = model.score_regions(inputs).numpy()[..., :24] > 0
    salient = np.isin(np.arange(24), (8, 9, 14))
    expected = [found[..., salient].sum(), 2 * 2 * 3, (~found[..., ~salient]).sum(), 2 * 2 * 21]
    np.testing.assert_array_equal(counts, expected)
    assert summarise_regions(counts)["region_accuracy"] == pytest.approx((expected[0] + expected[2]) / (4 * 24))
    assert summarise_regions(np.array([1, 4, 9, 10])) == {
        "region_accuracy": 10 / 14, "balanced_accuracy": pytest.approx((0.25 + 0.9) / 2), "num_regions": 14,
        "num_salient_regions": 4,
    }  # fmt: skip
    assert summarise_regions(np.array([0, 0, 9, 10]))["balanced_accuracy"] is None


def test_batches_of_a_prior_that_needs_frames():
    model = make_prior(train_backbone=False, rgb_features=True)
    with pytest.raises(ValueError, match="must hold flow, superpixels, frame and mask, found no frame"):
        train_prior([squares()], model, steps=1)
    with pytest.raises(ValueError, match=r"must hold frame \(2, H, W, 3\), found \(3, 64, 96, 3\)"):
        train_prior([{**squares(), "frame": np.zeros((3, 64, 96, 3), np.uint8)}], model, steps=1)


def test_report_covers_the_last_tenth_of_the_steps():
    with_object, without = squares(1), squares(1)
    without["mask"] = np.zeros_like(without["mask"])
    report = train_prior([with_object] * 18 + [without] * 2, make_prior(train_backbone=False), steps=20)
    assert report["num_regions"] == 2 * 2 * 24  # steps, levels, regions
    assert report["num_salient_regions"] == 0
    assert report["balanced_accuracy"] is None


class FakeGenerator:
    def __init__(self, *values):
        self.values = list(values)

    def random(self):
        return self.values.pop(0)


def test_mirrored_batches_show_the_mirrored_scene():
    batch, model = squares(), make_prior(rgb_features=True)
    batch["flow"] += np.float32([2, 0])
    batch["frame"] = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3)).astype(np.float32)
    plain, mirrored = (prior_training._prepare(batch, model, mirror) for mirror in (False, True))
    plain, mirrored = ({**inputs, "mask": mask} for inputs, mask in (plain, mirrored))
    assert plain.keys() == batch.keys()
    for name, original in plain.items():
        flipped = mirrored[name]
        np.testing.assert_array_equal(original, batch[name])
        sign = np.float32([-1, 1]) if name == "flow" else 1
        np.testing.assert_array_equal(flipped[:, :, ::-1], batch[name] * sign)


def test_backbone_is_trained_only_where_it_is_to_be():
    for train_backbone in (True, False):
        model = make_prior(train_backbone=train_backbone)
        before = [model.backbone.get_weights(), model.classifiers[0].get_weights()]
        train_prior([squares()] * 2, model, steps=2)
        after = [model.backbone.get_weights(), model.classifiers[0].get_weights()]
        changed = [any((a != b).any() for a, b in zip(*pair, strict=True)) for pair in zip(before, after, strict=True)]
        assert changed == [train_backbone, True]


def test_the_same_seeds_give_the_same_prior():
    weights = []
    for seed in (0, 0, 1):
        model = make_prior(train_backbone=False)
        train_prior(scenes(0), model, steps=5, seed=seed)
        weights.append(np.concatenate([w.ravel() for w in model.get_weights()]))
    np.testing.assert_array_equal(weights[0], weights[1])
    assert (weights[0] != weights[2]).any()


def test_every_level_trains_its_own_classifier():
    model = make_prior(train_backbone=False, classifier_per_level=True)
    batch = squares()
    batch["superpixels"][..., 1] = 0  # one region, neither salient nor not: the second classifier has no samples
    batch["mask"][:, :32] = True
    before = [classifier.get_weights() for classifier in model.classifiers]
    train_prior([batch] * 2, model, steps=2)
    changed = [
        any((a != b).any() for a, b in zip(weights, classifier.get_weights(), strict=True))
        for weights, classifier in zip(before, model.classifiers, strict=True)
    ]
    assert changed == [True, False]


def test_a_loss_that_is_not_finite_stops():
    batch = squares()
    batch["flow"][0, 5, 5] = np.nan
    with pytest.raises(ValueError, match="loss of the prior is nan at step 0; use a lower learning rate"):
        train_prior([batch], make_prior(train_backbone=False), steps=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask": None}, "must hold flow, superpixels and mask, found no mask"),
        ({"mask": np.zeros((2, 32, 96), bool)}, r"mask \(B, h, w\), .* found \(2, 32, 96\), \(2, 64, 96, 2\)"),
        ({"flow": np.zeros((2, 64, 96, 3), np.float32)}, r"found \(2, 64, 96\), \(2, 64, 96, 3\)"),
        ({"superpixels": np.zeros((2, 64, 96, 3), np.int32)}, r"superpixels \(B, h, w, 2\), found .*96, 3\)"),
        ({"superpixels": np.full((2, 64, 96, 2), 96)}, "below the prior's max_regions, 96, found 96"),
    ],
)
def test_bad_batches(change, message):
    batch = {name: value for name, value in {**squares(), **change}.items() if value is not None}
    with pytest.raises(ValueError, match=message):
        train_prior([batch], make_prior(train_backbone=False), steps=1)


def test_bad_arguments():
    model = make_prior(train_backbone=False)
    with pytest.raises(ValueError, match="steps must be a whole number, 1 or more, found 0"):
        train_prior([], model, steps=0)
    with pytest.raises(ValueError, match="min_purity must be from 0.5 to below 1, found 0.3"):
        train_prior([], model, steps=1, min_purity=0.3)
    with pytest.raises(ValueError, match="Expected 3 batches to train on, found 2"):
        train_prior([squares()] * 2, model, steps=3)


class Interrupted(Exception):
    """Stands for a kill."""


def test_a_training_that_was_killed_goes_on_to_the_same_weights(tmp_path):
    path = tmp_path / "state.npz"
    whole = make_prior()
    expected = train_prior(scenes(3), whole, 12)

    class Killed(KeptTraining):
        def keep(self, variables):
            super().keep(variables)
            if self.done in (5, 11):
                raise Interrupted

    for first in (0, 5):
        kept, prior = Killed(path, seconds=0), make_prior(seed=first)  # other first weights: they are restored
        assert kept.done == first
        if first == 0:
            prior.set_weights(make_prior().get_weights())
        with pytest.raises(Interrupted):
            train_prior(itertools.islice(scenes(3), first, None), prior, 12, kept=kept)
    kept, prior = KeptTraining(path), make_prior(seed=9)
    assert kept.done == 11
    assert train_prior(itertools.islice(scenes(3), 11, None), prior, 12, kept=kept) == expected
    for found, wanted in zip(prior.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_array_equal(found, wanted)
    assert path.exists()
    kept.remove()
    assert not path.exists()


def test_a_kept_state_that_does_not_fit_is_refused(tmp_path):
    path = tmp_path / "state.npz"
    kept = KeptTraining(path, seconds=0)
    kept.keep([np.zeros(3)])
    with pytest.raises(ValueError, match="state.npz: holds the state of another model; remove it"):
        KeptTraining(path).restore([np.zeros(4)])
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="state.npz: damaged .*; remove it to train from the start"):
        KeptTraining(path)


def test_the_same_prior_is_the_same_bytes(tmp_path):
    prior = make_prior()
    for name in ("a.keras", "b.keras"):
        save_prior(prior, tmp_path / name)
        time.sleep(1.1)  # the file would say the second in which it was written
    assert (tmp_path / "a.keras").read_bytes() == (tmp_path / "b.keras").read_bytes()
    np.testing.assert_array_equal(load_prior(tmp_path / "a.keras").get_weights()[0], make_prior().get_weights()[0])


def test_weights_that_are_not_finite_are_refused(tmp_path):
    prior = make_prior()
    weights = prior.get_weights()
    weights[0].flat[3] = np.nan
    prior.set_weights(weights)
    save_prior(prior, tmp_path / "nan.keras")
    with pytest.raises(ValueError, match="nan.keras: 1 arrays of this prior are not finite"):
        load_prior(tmp_path / "nan.keras")
