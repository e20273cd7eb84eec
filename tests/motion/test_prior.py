from __future__ import annotations

import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf

from msst_keras.model.backbones import build_backbone
from msst_keras.motion import regions
from msst_keras.motion.flow import FlowSettings
from msst_keras.motion.flow_pictures import flow_to_color, magnitude_prior
from msst_keras.motion.prior import MagnitudePrior, MotionPrior
from msst_keras.motion.prior_files import load_prior
from msst_keras.motion.superpixels import SuperpixelSettings, segment

SUPERPIXELS = SuperpixelSettings(num_levels=2, max_regions=12)


def random_flow(shape, seed=0):
    """(B, h, w, 2), multiples of 1/16 px with many ties, as real flow maps have them."""
    flow = np.random.default_rng(seed).normal(0, 3, (*shape, 2)).cumsum(axis=2) / 4
    return (np.round(flow * 16) / 16).astype(np.float32)


def random_labels(shape, num_regions, seed=0):
    return np.random.default_rng(seed).integers(0, num_regions, shape).astype(np.int32)


def random_inputs(batch=2, height=37, width=50, seed=0):
    labels = random_labels((batch, height // 5 + 1, width // 5 + 1, 2), 12, seed)
    labels = labels.repeat(5, axis=1).repeat(5, axis=2)[:, :height, :width]
    return {"flow": random_flow((batch, height, width), seed), "superpixels": labels}


def random_frames(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def prior():
    keras.utils.set_random_seed(0)
    return MotionPrior(superpixels=SUPERPIXELS, width=0.0625)


def test_colors_are_those_of_flow_to_color():
    flow = random_flow((2, 30, 41))
    flow[1] *= 0.01  # below the magnitude that noise is shown at
    flow[0, 3:9] = 0
    for image, expected in zip(regions.color_flow(flow).numpy(), flow, strict=True):
        np.testing.assert_allclose(image, flow_to_color(expected), atol=0.51)


def test_colors_without_the_motion_of_the_camera():
    flow = random_flow((1, 30, 41))
    residual = flow[0] - np.median(flow[0], axis=(0, 1))
    np.testing.assert_allclose(regions.color_flow(flow, "median")[0], flow_to_color(residual), atol=0.51)
    same = regions.color_flow(flow + np.float32([7, -2]), "median")
    np.testing.assert_allclose(same, regions.color_flow(flow, "median"), atol=1e-2)


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (7, 11), (12, 10)])
@pytest.mark.parametrize("percent", [50, 99])
def test_percentiles_are_numpys(size, percent):
    maps = np.random.default_rng(0).normal(size=(3, *size)).astype(np.float32)
    expected = np.percentile(maps, percent, axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(regions.percentile(maps, percent), expected, rtol=1e-6, atol=1e-7)


def test_pooling_by_hand():
    """4x4 pixels, cells of 2x2; regions are left column and rest at one level, top row and rest at the other."""
    labels = np.zeros((1, 4, 4, 2), np.int32)
    labels[0, :, 1:, 0] = 1
    labels[0, 1:, :, 1] = 2
    features = np.float32([[[[1, 0], [2, 0]], [[3, 0], [4, 8]]]])
    coarse = np.float32([[[[10]]]])
    images = np.zeros((1, 4, 4, 3), np.float32)
    images[0, 0, :, 0] = [1, 2, 3, 4]
    pooled = regions.pool_regions(images, [features, coarse], [2, 4], labels, 4).numpy()
    assert pooled.shape == (1, 2, 4, 3 * 6)
    whole = [10 / 16, 0, 0, 2.5, 2, 10]
    first = [[1 / 4, 0, 0, 2, 0, 10], [9 / 12, 0, 0, 32 / 12, 32 / 12, 10]]
    np.testing.assert_allclose(pooled[0, 0, 0], [*first[0], *whole, *whole], rtol=1e-6)
    np.testing.assert_allclose(pooled[0, 0, 1], [*first[1], *whole, *whole], rtol=1e-6)
    np.testing.assert_allclose(pooled[0, 1, 0, :6], [10 / 4, 0, 0, 1.5, 0, 10], rtol=1e-6)
    np.testing.assert_allclose(pooled[0, 1, 2, :6], [0, 0, 0, 34 / 12, 32 / 12, 10], rtol=1e-6)
    np.testing.assert_array_equal(pooled[0, 1, [1, 3], :12], 0)  # no such regions


def test_pooling_is_the_mean_over_pixels_of_regions_in_their_contexts():
    shape, num_regions, strides = (2, 13, 18), 6, (4, 8)
    labels = random_inputs(2, 13, 18)["superpixels"] % (num_regions - 1)
    labels[0, 6, 7, 0] = num_regions - 1  # a region of one pixel; the other maps have none of this number
    images = np.random.default_rng(1).normal(size=(*shape, 3)).astype(np.float32)
    features = [
        np.random.default_rng(stride).normal(size=(2, -(-13 // stride), -(-18 // stride), stride)).astype(np.float32)
        for stride in strides
    ]
    full = [f.repeat(s, axis=1).repeat(s, axis=2)[:, :13, :18] for f, s in zip(features, strides, strict=True)]
    full = np.concatenate([images, *full], axis=-1)
    pooled = regions.pool_regions(images, features, strides, labels, num_regions).numpy()
    for b, m, region in np.ndindex(2, 2, num_regions):
        level = labels[b, ..., m]
        inside = level == region
        if not inside.any():
            assert (pooled[b, m, region, : 2 * full.shape[-1]] == 0).all()
            continue
        near = inside.copy()
        near[1:] |= inside[:-1]
        near[:-1] |= inside[1:]
        near[:, 1:] |= inside[:, :-1]
        near[:, :-1] |= inside[:, 1:]
        near = np.isin(level, np.unique(level[near]))
        expected = np.concatenate([full[b][context].mean(axis=0) for context in (inside, near, level >= 0)])
        np.testing.assert_allclose(pooled[b, m, region], expected, rtol=1e-4, atol=1e-5)


def test_features_of_the_frame_stand_beside_those_of_the_flow(prior):
    """Per context: pixels of both images, then the features of the flow's colours, then those of the frame."""
    keras.utils.set_random_seed(0)
    model = MotionPrior(FlowSettings(motion_size=(37, 50)), SUPERPIXELS, width=0.0625, rgb_features=True)
    model.backbone.set_weights(prior.backbone.get_weights())
    inputs = random_inputs()
    frame = random_frames((2, 37, 50)).astype(np.float32)
    both = model.pool_features({**inputs, "frame": frame}).numpy()
    flow_alone = prior.pool_features(inputs).numpy()
    num_features = flow_alone.shape[-1] // 3
    both = both.reshape(*both.shape[:3], 3, 2 * num_features)
    of_flow = np.concatenate([both[..., :3], both[..., 6 : 3 + num_features]], axis=-1)
    np.testing.assert_allclose(of_flow.reshape(flow_alone.shape), flow_alone, rtol=1e-4, atol=1e-5)
    maps = [output.numpy() for output in prior.backbone(frame)]
    labels, strides = inputs["superpixels"], (16, 16)
    expected = regions.pool_regions(frame / 127.5 - 1, maps, strides, labels, both.shape[2]).numpy()
    of_frame = np.concatenate([both[..., 3:6], both[..., 3 + num_features :]], axis=-1)
    np.testing.assert_allclose(of_frame.reshape(expected.shape), expected, rtol=1e-4, atol=1e-5)


def test_frames_of_any_size_are_resized_as_the_records_are():
    keras.utils.set_random_seed(0)
    model = MotionPrior(FlowSettings(motion_size=(37, 50)), SUPERPIXELS, width=0.0625, rgb_features=True)
    inputs, frame = random_inputs(), random_frames((2, 90, 131))
    resized = tf.image.resize(tf.cast(frame, tf.float32), (37, 50), antialias=True)
    expected = model({**inputs, "frame": resized}, training=True)
    np.testing.assert_allclose(model({**inputs, "frame": frame}, training=True), expected, atol=1e-6)
    specs = {name: tf.TensorSpec([None] * (x.ndim - 1) + [x.shape[-1]], x.dtype) for name, x in inputs.items()}
    specs["frame"] = tf.TensorSpec([None, None, None, 3], tf.uint8)
    function = tf.function(model, input_signature=[specs])
    np.testing.assert_allclose(function({**inputs, "frame": frame}), expected, atol=0.5 / 255 + 1e-4)
    without = model({**inputs, "frame": 255 - frame}, training=True)
    assert np.abs(without - expected).max() > 1e-3  # the frame counts


@pytest.mark.parametrize("num_regions", [39, 2073])
def test_region_counts_are_ragged(num_regions):
    """Maps of few and of very many regions in one batch: each is scored as alone, absent regions leave no trace."""
    keras.utils.set_random_seed(0)
    model = MotionPrior(superpixels=SuperpixelSettings(num_levels=2, max_regions=2100), width=0.0625)
    few = np.arange(60 * 70).reshape(60, 70) * 5 // (60 * 70)
    many = np.arange(60 * 70).reshape(60, 70) * num_regions // (60 * 70)
    labels = np.stack([np.stack([few, few + 1], -1), np.stack([few, many], -1)]).astype(np.int32)
    flow = random_flow((2, 60, 70))
    together = model({"flow": flow, "superpixels": labels}, training=True).numpy()
    for index in range(2):
        alone = model({"flow": flow[index : index + 1], "superpixels": labels[index : index + 1]}, training=True)
        np.testing.assert_allclose(alone[0], together[index], rtol=1e-4)
    logits = model.score_regions({"flow": flow, "superpixels": labels}).numpy()
    assert logits.shape == (2, 2, 2100)
    assert np.isfinite(logits).all()


def test_neighbors_touch_sideways_or_lengthwise():
    labels = np.int32([[0, 0, 1], [0, 2, 2], [3, 3, 2]])[None, :, :, None]
    expected = np.eye(5)
    for first, second in ((0, 1), (0, 2), (0, 3), (1, 2), (2, 3)):  # not 1 and 3; there is no region 4
        expected[first, second] = expected[second, first] = 1
    np.testing.assert_array_equal(regions.find_neighbors(labels, 5)[0, 0], expected)


def test_scores_are_painted_and_averaged_over_levels():
    labels = np.stack([[[0, 1], [1, 1]], [[0, 0], [2, 2]]], axis=-1)[None].astype(np.int32)
    labels = np.concatenate([labels, labels[:, ::-1]])
    scores = np.float32([[[0.2, 0.4, 9], [0.6, 9, 0]], [[1, 0, 9], [0, 9, 0.5]]])
    painted = regions.paint_scores(scores, labels)[..., 0]
    np.testing.assert_allclose(painted[0], [[0.4, 0.5], [0.2, 0.2]])
    np.testing.assert_allclose(painted[1], [[0.25, 0.25], [0.5, 0]])


def test_regions_are_labelled_by_what_most_of_their_pixels_are():
    labels = np.zeros((1, 4, 10, 1), np.int32)
    labels[0, :, :, 0] = [[0], [1], [2], [3]]
    mask = np.zeros((1, 4, 10), np.float32)
    for row, salient in enumerate((8, 7, 3, 2)):
        mask[0, row, :salient] = 1
    salient, sampled = (x.numpy()[0, 0] for x in regions.label_regions(mask, labels, 5, 0.7))
    np.testing.assert_array_equal(salient, [1, 0, 0, 0, 0])
    np.testing.assert_array_equal(sampled, [1, 0, 0, 1, 0])
    salient, sampled = (x.numpy()[0, 0] for x in regions.label_regions(mask, labels, 5, 0.5))
    np.testing.assert_array_equal(salient, [1, 1, 0, 0, 0])
    np.testing.assert_array_equal(sampled, [1, 1, 1, 1, 0])


def test_prior_is_eq_1_of_the_scores_rounded(prior):
    inputs = random_inputs()
    scores = tf.sigmoid(prior.score_regions(inputs)).numpy()
    expected = np.empty((2, 37, 50, 1), np.float32)
    for b, y, x in np.ndindex(2, 37, 50):
        expected[b, y, x] = np.mean([scores[b, m, inputs["superpixels"][b, y, x, m]] for m in range(2)])
    assert np.ptp(expected) > 0.05
    np.testing.assert_allclose(prior(inputs, training=True), expected, rtol=1e-5)
    np.testing.assert_allclose(prior(inputs), np.round(expected * 255) / 255, atol=1e-6)


def test_regions_are_scored_alike_whatever_their_numbers_and_company(prior):
    """Other numbers of the regions, another map in the batch and room for more regions change nothing."""
    inputs = random_inputs(2)
    expected = prior(inputs, training=True).numpy()
    numbers = np.random.default_rng(0).permutation(12).astype(np.int32)
    renamed = {"flow": inputs["flow"][1:], "superpixels": numbers[inputs["superpixels"][1:]]}
    np.testing.assert_allclose(prior(renamed, training=True)[0], expected[1], rtol=1e-5)
    few = {**inputs, "superpixels": inputs["superpixels"] // 4}
    roomy = MotionPrior(superpixels=SuperpixelSettings(num_levels=2, max_regions=40), width=0.0625)
    roomy.set_weights(prior.get_weights())
    np.testing.assert_allclose(roomy(few, training=True), prior(few, training=True), rtol=1e-5)


def test_levels_share_a_classifier_unless_each_is_to_have_its_own():
    inputs = random_inputs()
    inputs["superpixels"][..., 1] = inputs["superpixels"][..., 0]
    for per_level in (False, True):
        keras.utils.set_random_seed(0)
        model = MotionPrior(superpixels=SUPERPIXELS, width=0.0625, classifier_per_level=per_level)
        logits = model.score_regions(inputs).numpy()
        assert np.allclose(logits[:, 0], logits[:, 1], rtol=1e-5) != per_level
        if per_level:
            model.classifiers[1].set_weights(model.classifiers[0].get_weights())
            logits = model.score_regions(inputs).numpy()
            np.testing.assert_allclose(logits[:, 0], logits[:, 1], rtol=1e-5)


@pytest.mark.parametrize("kind", ["network", "magnitude"])
def test_sizes_are_free_in_a_graph(kind, prior):
    model = prior if kind == "network" else MagnitudePrior()
    specs = {
        "flow": tf.TensorSpec([None, None, None, 2], tf.float32),
        "superpixels": tf.TensorSpec([None, None, None, 2], tf.int32),
    }
    function = tf.function(model, input_signature=[specs])
    for shape in ((2, 37, 50), (1, 64, 32), (3, 40, 41)):
        inputs = random_inputs(*shape)
        steps = [np.round(result * 255) for result in (function(inputs), model(inputs))]
        assert np.abs(steps[0] - steps[1]).max() <= 1
        assert np.mean(steps[0] != steps[1]) < 0.01


def test_flow_keeps_its_precision_under_every_policy():
    inputs = random_inputs()
    inputs["flow"] += 300  # bfloat16 would round it to multiples of 2
    keras.utils.set_random_seed(0)
    expected = MotionPrior(superpixels=SUPERPIXELS, width=0.0625)
    policy = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy("mixed_bfloat16")
        model = MotionPrior(superpixels=SUPERPIXELS, width=0.0625)
    finally:
        keras.config.set_dtype_policy(policy)
    model.set_weights(expected.get_weights())
    result = model(inputs, training=True)
    assert result.dtype == "float32"
    assert model.backbone.get_layer("fc7").compute_dtype == "bfloat16"
    np.testing.assert_allclose(result, expected(inputs, training=True), atol=0.02)
    magnitude = MagnitudePrior()(inputs, training=True)[0, ..., 0]
    np.testing.assert_allclose(magnitude, magnitude_prior(inputs["flow"][0]), atol=1e-4)


def test_one_file_holds_weights_and_settings(tmp_path):
    flow = FlowSettings("farneback", (37, 50), "backward", 2)
    for per_level in (False, True):
        keras.utils.set_random_seed(per_level)
        model = MotionPrior(
            flow, SUPERPIXELS, width=0.0625, train_backbone=False, camera="affine", rgb_features=per_level,
            classifier_per_level=per_level,
        )  # fmt: skip
        inputs = {**random_inputs(), "frame": random_frames((2, 61, 83))}
        expected = model(inputs)
        model.save(tmp_path / "prior.keras")
        del model
        loaded = load_prior(tmp_path / "prior.keras")
        np.testing.assert_array_equal(loaded(inputs), expected)
        assert (loaded.flow_settings, loaded.superpixel_settings) == (flow, SUPERPIXELS)
        assert not loaded.backbone.trainable
        assert loaded.get_config()["camera"] == "affine"
        assert loaded.needs_frames is per_level
        assert loaded.get_config()["classifier_per_level"] is per_level


@pytest.mark.parametrize(("remove_median", "camera"), [(True, "median"), (False, "none")])
def test_files_from_before_there_were_cameras(remove_median, camera):
    config = MotionPrior(superpixels=SUPERPIXELS, width=0.0625).get_config()
    for name in ("camera", "rgb_features"):
        del config[name]
    loaded = MotionPrior.from_config({**config, "remove_median": remove_median})
    assert loaded.get_config()["camera"] == camera
    assert not loaded.needs_frames


def test_a_saved_prior_does_not_need_the_file_its_weights_came_from(tmp_path, monkeypatch):
    built = []

    def build(backbone, output_stride, width, weights):
        built.append(weights)
        return build_backbone(backbone, output_stride=output_stride, width=width)

    monkeypatch.setattr("msst_keras.motion.prior.build_backbone", build)
    model = MotionPrior(superpixels=SUPERPIXELS, width=0.0625, backbone_weights="gone.h5")
    assert not model.backbone.trainable
    model.save(tmp_path / "prior.keras")
    loaded = load_prior(tmp_path / "prior.keras")
    assert built == ["gone.h5", "none"]
    assert loaded.backbone_weights == "gone.h5"
    assert not loaded.backbone.trainable


def test_magnitude_prior_is_numpys(tmp_path):
    flow = random_flow((3, 61, 47))
    flow[1] = 0
    flow[2] = 0
    flow[2, 5, 5] = 1
    expected = np.stack([magnitude_prior(each) for each in flow])[..., None]
    model = MagnitudePrior(FlowSettings(stride=3))
    assert not model.needs_frames
    affine = np.stack([magnitude_prior(each, "affine") for each in flow[:1]])[..., None]
    np.testing.assert_allclose(MagnitudePrior(camera="affine")({"flow": flow[:1]}, training=True), affine, atol=1e-3)
    np.testing.assert_allclose(model({"flow": flow}, training=True), expected, atol=1e-5)
    rounded = model({"flow": flow, "superpixels": np.zeros((3, 61, 47, 1), np.int32)}).numpy()
    np.testing.assert_allclose(rounded, expected, atol=0.5 / 255 + 1e-5)
    np.testing.assert_array_equal(rounded, np.round(rounded * 255).astype(np.float32) / np.float32(255))
    model.save(tmp_path / "magnitude.keras")
    loaded = load_prior(tmp_path / "magnitude.keras")
    np.testing.assert_array_equal(loaded({"flow": flow}), rounded)
    assert loaded.flow_settings.stride == 3
    assert loaded.superpixel_settings is None


def test_real_segmentations_fit():
    flow = random_flow((1, 96, 144))[0]
    settings = SuperpixelSettings()
    model = MotionPrior(superpixels=settings, width=0.0625)
    result = model({"flow": flow[None], "superpixels": segment(flow, settings)[None]}).numpy()
    assert np.isfinite(result).all()
    assert ((result >= 0) & (result <= 1)).all()
    np.testing.assert_array_equal(result, np.round(result * 255).astype(np.float32) / np.float32(255))


def test_files_that_hold_no_prior(tmp_path):
    with pytest.raises(FileNotFoundError, match="gone.keras: no such motion prior"):
        load_prior(tmp_path / "gone.keras")
    (tmp_path / "text.keras").write_text("hello")
    with pytest.raises(ValueError, match="text.keras: expected a motion prior.*found no .keras file"):
        load_prior(tmp_path / "text.keras")
    with zipfile.ZipFile(tmp_path / "other.keras", "w") as archive:
        archive.writestr("hello.txt", "hello")
    with pytest.raises(ValueError, match="other.keras: expected a motion prior.*cannot load it"):
        load_prior(tmp_path / "other.keras")
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)]).save(tmp_path / "dense.keras")
    with pytest.raises(ValueError, match="dense.keras: expected a motion prior.*found a Sequential"):
        load_prior(tmp_path / "dense.keras")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"flow": None}, r"'flow' must be \(B, h, w, 2\), found none"),
        ({"flow": np.zeros((37, 50, 2), np.float32)}, r"'flow' must be .*\(37, 50, 2\)"),
        ({"superpixels": None}, r"'superpixels' must be \(B, h, w, 2\), found none"),
        ({"superpixels": np.zeros((2, 37, 50, 3), np.int32)}, r"\(B, h, w, 2\), found \(2, 37, 50, 3\); segment"),
    ],
)
def test_bad_inputs(prior, change, message):
    inputs = {name: value for name, value in {**random_inputs(), **change}.items() if value is not None}
    with pytest.raises(ValueError, match=message):
        prior(inputs)
    if "flow" in change:
        with pytest.raises(ValueError, match=message):
            MagnitudePrior()(inputs)


@pytest.mark.parametrize("frame", [None, np.zeros((2, 37, 50), np.uint8)])
def test_bad_frames(frame):
    model = MotionPrior(FlowSettings(motion_size=(37, 50)), SUPERPIXELS, width=0.0625, rgb_features=True)
    inputs = random_inputs() if frame is None else {**random_inputs(), "frame": frame}
    found = "none" if frame is None else r"\(2, 37, 50\)"
    with pytest.raises(ValueError, match=rf"RGB features; its input 'frame' must be \(B, H, W, 3\), found {found}"):
        model(inputs)
    with pytest.raises(ValueError, match=r"its input 'flow' must be of its motion_size, \(37, 50\), found \(40, 50\)"):
        model({**random_inputs(2, 40, 50), "frame": random_frames((2, 37, 50))})


def test_bad_settings():
    with pytest.raises(ValueError, match="camera must be one of"):
        MotionPrior(camera="zoom")
    with pytest.raises(ValueError, match="camera must be one of"):
        MagnitudePrior(camera="zoom")
    with pytest.raises(ValueError, match="backbone must be one of"):
        MotionPrior(backbone="alexnet")
    with pytest.raises(ValueError, match="Superpixel settings must be"):
        MotionPrior(superpixels={"num_levels": 3})
    with pytest.raises(ValueError, match="Flow settings must have the keys"):
        MagnitudePrior({"method": "dis"})


@pytest.mark.parametrize("size", [(13, 29), (1, 1), (40, 25)])
@pytest.mark.parametrize("percent", [50, 98, 99])
def test_percentiles_are_those_of_numpy_whether_sizes_are_known_or_not(size, percent):
    maps = np.random.default_rng(3).normal(size=(2, *size)).astype(np.float32)
    maps[1] = np.round(maps[1])  # many ties
    expected = np.percentile(maps, percent, axis=(1, 2), keepdims=True)
    for known in (size, (None, None)):
        measure = tf.function(lambda x: regions.percentile(x, percent), input_signature=[tf.TensorSpec((None, *known))])
        np.testing.assert_allclose(measure(maps), expected, rtol=1e-6, atol=1e-7)
