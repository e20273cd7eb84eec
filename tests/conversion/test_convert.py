"""Conversion: what was on disk is in the records, interrupted or not, and a prior can be added later.

Shards are made in this process here; tests/conversion/test_workers.py has the processes.
"""

from __future__ import annotations

import json

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf

from msst_keras.conversion import convert, new_prior, workers
from msst_keras.conversion.shard_maker import ShardMaker
from msst_keras.conversion.sources import NewShard
from msst_keras.conversion.work_report import WorkReport
from msst_keras.data import flow_files, images
from msst_keras.data.datasets import find_sequences
from msst_keras.data.label_folders import add_coarse_labels
from msst_keras.data.masks import read_mask
from msst_keras.data.sequences import FileSequence
from msst_keras.motion.flow import FlowEstimator, FlowSettings
from msst_keras.motion.flow_pictures import magnitude_prior
from msst_keras.motion.prior import MotionPrior
from msst_keras.motion.prior_files import load_prior
from msst_keras.motion.prior_folds import add_folds, trained_weights
from msst_keras.motion.settings import MotionOptions
from msst_keras.motion.superpixels import SuperpixelSettings, segment
from msst_keras.records import shard_files
from msst_keras.records.manifest import read_manifest
from msst_keras.records.shard_files import scan_shard, shard_path

FLOW = FlowSettings("farneback", motion_size=(32, 48))
DESCRIPTION = {"dataset": "davis", "split": "all"}


def make_davis(root, lengths=(3, 2)):
    """Frames of noise that shifts by two pixels a frame, with a mask on all but the first frame."""
    generator = np.random.default_rng(0)
    for number, length in enumerate(lengths):
        texture = cv2.GaussianBlur(generator.integers(0, 256, (64, 96 + 2 * length, 3)).astype(np.uint8), (0, 0), 2)
        for index in range(length):
            frames = root / "JPEGImages" / "480p" / f"s{number}"
            masks = root / "Annotations" / "480p" / f"s{number}"
            frames.mkdir(parents=True, exist_ok=True)
            masks.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(frames / f"{index:05d}.jpg"), texture[:, 2 * index : 2 * index + 96])
            if index:
                mask = np.zeros((64, 96), np.uint8)
                mask[10:30, 10 + index : 40] = 255
                cv2.imwrite(str(masks / f"{index:05d}.png"), mask)
    return root


def make_motion(*, prior="magnitude", store_flow=True):
    return MotionOptions(FLOW, None, prior, store_flow)


def make_shards_here(shards, motion, num_workers, on_frame, report):
    maker = ShardMaker(motion)
    return [maker.make(shard, on_frame)[0] for shard in shards]


def read(folder):
    manifest = read_manifest(folder)
    found = [record for shard in manifest["shards"] for _, record in scan_shard(folder / shard["name"])]
    return {(record.sequence, record.index): record for record in found}


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def davis(tmp_path):
    return make_davis(tmp_path / "davis")


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    monkeypatch.setattr(workers, "make_shards", make_shards_here)


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """The file of an untrained prior on flow of FLOW."""
    return save_prior(tmp_path_factory.mktemp("prior") / "prior.keras", camera="median")


def save_prior(path, **options):
    keras.utils.set_random_seed(0)
    superpixels = SuperpixelSettings(num_levels=2, max_regions=32, min_sizes=(60, 30))
    MotionPrior(FLOW, superpixels, width=0.0625, **options).save(path)
    return path


def network_motion(path, store_flow=True):
    prior = load_prior(path)
    return MotionOptions(prior.flow_settings, prior.superpixel_settings, str(path), store_flow)


def test_records_hold_what_was_on_disk_and_what_was_computed(davis, tmp_path):
    sequences = find_sequences("davis", davis)
    manifest = convert.convert(sequences, tmp_path / "out", make_motion(), DESCRIPTION, "coarse", num_shards=8)
    assert len(manifest["shards"]) == 2  # never more than sequences
    assert (manifest["num_frames"], manifest["num_labelled"], manifest["dataset"]) == (5, 3, "davis")
    found = read(tmp_path / "out")
    assert sorted(found) == [("s0", 0), ("s0", 1), ("s0", 2), ("s1", 0), ("s1", 1)]
    for sequence in sequences:
        frames = [images.read_frame(path) for path in sequence.frame_paths]
        for index, flow in enumerate(FlowEstimator(FLOW).flows(frames)):
            record = found[sequence.name, index]
            assert record.frame == sequence.frame_paths[index].read_bytes()
            assert (record.name, record.height, record.width) == (f"{index:05d}", 64, 96)
            assert record.label_kind == ("coarse" if index else None)
            if index:
                mask = cv2.imdecode(np.frombuffer(record.mask, np.uint8), cv2.IMREAD_UNCHANGED)
                np.testing.assert_array_equal(mask, sequence.read_mask(index) * np.uint8(255))
            else:
                assert record.mask is None
            np.testing.assert_array_equal(flow_files.decode_flow_png(record.flow, "flow"), flow)
            prior = cv2.imdecode(np.frombuffer(record.prior, np.uint8), cv2.IMREAD_UNCHANGED)
            np.testing.assert_allclose(prior / 255, magnitude_prior(flow), atol=0.5 / 255 + 1e-6)


def test_without_motion_none_is_computed(davis, tmp_path, monkeypatch):
    monkeypatch.delattr(FlowEstimator, "push")
    motion = make_motion(prior="none", store_flow=False)
    convert.convert(find_sequences("davis", davis), tmp_path / "out", motion, DESCRIPTION)
    assert all(record.flow is None and record.prior is None for record in read(tmp_path / "out").values())


def test_an_interrupted_conversion_goes_on_and_ends_the_same(davis, tmp_path, monkeypatch):
    sequences = find_sequences("davis", davis)
    arguments = (make_motion(), DESCRIPTION, "fine", 2)
    convert.convert(sequences, tmp_path / "whole", *arguments)

    written, write = [], shard_files.write_shard

    def write_one(path, frames):
        if written:
            (path.parent / ".partial-1-shard").write_bytes(b"half")  # as a kill leaves it
            raise KeyboardInterrupt
        written.append(path)
        write(path, frames)

    monkeypatch.setattr(shard_files, "write_shard", write_one)
    with pytest.raises(KeyboardInterrupt):
        convert.convert(sequences, tmp_path / "parts", *arguments)
    assert not (tmp_path / "parts" / "manifest.json").exists()
    with pytest.raises(FileNotFoundError, match="has not finished"):
        read_manifest(tmp_path / "parts")
    monkeypatch.setattr(shard_files, "write_shard", lambda path, frames: (written.append(path), write(path, frames)))
    convert.convert(sequences, tmp_path / "parts", *arguments)
    assert len(written) == 2  # the first shard was not made again
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    convert.convert(sequences, tmp_path / "parts", *arguments)
    assert len(written) == 2  # all was there


def test_other_flags_or_inputs_do_not_mix(davis, tmp_path):
    sequences = find_sequences("davis", davis)
    convert.convert(sequences, tmp_path / "out", make_motion(), DESCRIPTION)
    for arguments in (
        (sequences[:1], make_motion(), DESCRIPTION),
        (sequences, make_motion(store_flow=False), DESCRIPTION),
        (sequences, make_motion(), {**DESCRIPTION, "split": "train"}),
    ):
        with pytest.raises(ValueError, match="holds other records"):
            convert.convert(arguments[0], tmp_path / "out", *arguments[1:])
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "plan.json").write_text(json.dumps({"plan": "other"}))
    with pytest.raises(ValueError, match="holds other records"):
        convert.convert(sequences, tmp_path / "unfinished", make_motion(), DESCRIPTION)
    with pytest.raises(ValueError, match="is not empty and holds no records"):
        convert.convert(sequences, davis, make_motion(), DESCRIPTION)


def test_corrected_masks_under_the_same_names_are_other_records(davis, tmp_path):
    sequences = find_sequences("davis", davis)
    convert.convert(sequences, tmp_path / "out", make_motion(), DESCRIPTION)
    index, (path, *_) = next(iter(sequences[0].mask_paths.items()))
    mask = read_mask(path, "nonzero")
    path.write_bytes(images.encode_png(255 * mask[:, ::-1].astype(np.uint8)))
    before = contents(tmp_path / "out")
    with pytest.raises(ValueError, match="out holds other records: other inputs; choose another .* or give --overw"):
        convert.convert(sequences, tmp_path / "out", make_motion(), DESCRIPTION)
    assert contents(tmp_path / "out") == before
    convert.convert(sequences, tmp_path / "out", make_motion(), DESCRIPTION, overwrite=True)
    record = read(tmp_path / "out")[sequences[0].name, index]
    np.testing.assert_array_equal(images.decode_frame(record.mask, "")[..., 0] > 127, mask[:, ::-1])
    # The difference is named: here the split, below what is stored.
    with pytest.raises(ValueError, match="other records: split all .now val.; choose"):
        convert.convert(sequences, tmp_path / "out", make_motion(), {**DESCRIPTION, "split": "val"})
    with pytest.raises(ValueError, match="other records: motion flow_stored True .now False.; choose"):
        convert.convert(sequences, tmp_path / "out", make_motion(store_flow=False), DESCRIPTION)


def test_bad_arguments_are_refused(davis, tmp_path):
    sequences = find_sequences("davis", davis)
    with pytest.raises(ValueError, match="label_kind must be one of fine, coarse"):
        convert.convert(sequences, tmp_path, make_motion(), DESCRIPTION, "rough")
    with pytest.raises(ValueError, match="two sequences are called s0"):
        convert.convert([*sequences, sequences[0]], tmp_path, make_motion(), DESCRIPTION)
    with pytest.raises(ValueError, match="num_shards must be at least 1"):
        convert.convert(sequences, tmp_path, make_motion(), DESCRIPTION, num_shards=0)
    with pytest.raises(ValueError, match="num_workers must be at least 1"):
        convert.convert(sequences, tmp_path, make_motion(), DESCRIPTION, num_workers=0)
    with pytest.raises(ValueError, match="engine must be one of local, beam, not 'spark'"):
        convert.convert(sequences, tmp_path, make_motion(), DESCRIPTION, engine="spark")


def test_a_bad_frame_leaves_nothing_half_written(davis, tmp_path):
    path = davis / "JPEGImages" / "480p" / "s1" / "00001.jpg"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(ValueError, match="s1/00001.jpg: cut off or damaged"):
        convert.convert(find_sequences("davis", davis), tmp_path / "out", make_motion(), DESCRIPTION, num_shards=1)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["plan.json"]


def test_flow_may_come_from_files(davis, tmp_path):
    sequences = find_sequences("davis", davis)
    flow_dir = tmp_path / "flow"
    given = {}
    for sequence in sequences:
        for index, name in enumerate(sequence.frame_names[:-1]):  # N - 1 files, as flow programs write them
            flow = np.full((64, 96, 2), (4 + index, -2), np.float32)
            (flow_dir / sequence.name).mkdir(parents=True, exist_ok=True)
            flow_files.write_flow(flow_dir / sequence.name / f"{name}.flo", flow)
            given[sequence.name, index] = (2 + index / 2, -1)  # half the size: half the pixels
        given[sequence.name, len(sequence) - 1] = given[sequence.name, len(sequence) - 2]
    settings = FlowSettings("files", motion_size=(32, 48))
    motion = MotionOptions(settings, None, "none", True, flow_dir)
    manifest = convert.convert(sequences, tmp_path / "out", motion, DESCRIPTION)
    assert FlowSettings.from_dict(manifest["motion"]["flow"]) == settings
    for key, record in read(tmp_path / "out").items():
        flow = flow_files.decode_flow_png(record.flow, "flow")
        np.testing.assert_array_equal(flow, np.broadcast_to(np.float32(given[key]), (32, 48, 2)))

    with pytest.raises(ValueError, match="comes from files; give the folder"):
        FlowEstimator(settings)
    flow_files.write_flow(flow_dir / "s0" / "00001.flo", np.full((64, 96, 2), np.nan, np.float32))
    with pytest.raises(ValueError, match="00001.flo: 6144 vectors are unknown"):
        convert.convert(sequences, tmp_path / "unknown", motion, DESCRIPTION)
    (flow_dir / "s0" / "00001.flo").unlink()
    (flow_dir / "s0" / "00000.flo").unlink()
    with pytest.raises(FileNotFoundError, match="no 00000.flo or 00000.png"):
        convert.convert(sequences, tmp_path / "missing", motion, DESCRIPTION)
    (flow_dir / "s0").rename(flow_dir / "moved")
    with pytest.raises(FileNotFoundError, match="the flow of 's0' is expected in it"):
        convert.convert(sequences, tmp_path / "folder", motion, DESCRIPTION)


def test_a_finished_folder_is_cleaned_of_what_a_kill_left(davis, tmp_path):
    arguments = (find_sequences("davis", davis), tmp_path / "out", make_motion(), DESCRIPTION)
    convert.convert(*arguments)
    whole = contents(tmp_path / "out")
    (tmp_path / "out" / "plan.json").write_text("{}")  # killed between the manifest and its removal
    (tmp_path / "out" / ".partial-7-shard").write_bytes(b"half")
    convert.convert(*arguments)
    assert contents(tmp_path / "out") == whole


@pytest.mark.parametrize("spoil", [lambda path: path.unlink(), lambda path: path.write_bytes(b"short")])
def test_a_lost_shard_is_made_again(davis, tmp_path, spoil):
    arguments = (find_sequences("davis", davis), tmp_path / "out", make_motion(), DESCRIPTION)
    convert.convert(*arguments)
    whole = contents(tmp_path / "out")
    spoil(shard_path(tmp_path / "out", 1, 2))
    convert.convert(*arguments)
    assert contents(tmp_path / "out") == whole


def test_shards_get_equal_numbers_of_frames():
    lengths = {"a": 50, "b": 10, "c": 30, "d": 40, "e": 20, "f": 30}
    sequences = [FileSequence(name, (None,) * length) for name, length in lengths.items()]
    dealt = convert._deal(sequences, 3)
    assert [[s.name for s in shard] for shard in dealt] == [["a", "b"], ["d", "e"], ["c", "f"]]  # 60 each
    unknown = [FileSequence(name, video_path=name) for name in "abcd"]  # videos that do not say how long they are
    assert [len(shard) for shard in convert._deal(unknown, 2)] == [2, 2]


def test_stages_are_measured(davis, tmp_path):
    report = ShardMaker(make_motion()).make(
        NewShard(tmp_path / "shard", tuple(find_sequences("davis", davis)), "fine")
    )[1]
    assert report.num_frames == 5 and report.peak_memory > 2**20
    assert [stage for stage, seconds in report.seconds.items() if seconds == 0] == ["superpixels"]
    total = WorkReport(elapsed=2.0)
    total.add(WorkReport(10, {"decode": 0.5, "flow": 2.0}, 3 * 2**20))
    total.add(WorkReport(10, {"decode": 0.5, "flow": 2.0}, 2 * 2**20))
    lines = total.format().splitlines()
    assert lines[0] == "20 frames, 10.0 frames/s in all; peak memory of a worker 3 MiB; each stage by itself:"
    assert [line.split() for line in lines[1:]] == [
        ["decode", "20.0", "frames/s", "1.0", "s"],
        ["flow", "5.0", "frames/s", "4.0", "s"],
    ]


@pytest.mark.parametrize("store_flow", [True, False])
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_an_added_prior_is_that_of_a_fresh_conversion(davis, tmp_path, network, store_flow, direction):
    """Byte for byte, manifest included, so that make_records then finds its own work done."""
    sequences = find_sequences("davis", davis)
    new = network_motion(network, store_flow) if direction == "forward" else make_motion(store_flow=store_flow)
    flow = FlowSettings("farneback", motion_size=(32, 48), direction=direction, stride=2 - (direction == "forward"))
    new = MotionOptions(flow, new.superpixels, new.prior, store_flow)
    fresh, changed = tmp_path / "fresh", tmp_path / "changed"
    expected = convert.convert(sequences, fresh, new, DESCRIPTION)
    convert.convert(sequences, changed, MotionOptions(flow, None, "none", store_flow), DESCRIPTION)
    assert contents(changed) != contents(fresh)
    assert new_prior.add_prior(changed, new.prior) == expected
    assert contents(changed) == contents(fresh)
    assert convert.convert(sequences, changed, new, DESCRIPTION) == expected
    assert new_prior.add_prior(changed, new.prior) == expected  # nothing to do


def test_an_interrupted_change_of_prior_never_looks_whole_and_goes_on(davis, tmp_path, network, monkeypatch):
    sequences, folder = find_sequences("davis", davis), tmp_path / "changed"
    convert.convert(sequences, tmp_path / "fresh", network_motion(network), DESCRIPTION)
    convert.convert(sequences, folder, make_motion(), DESCRIPTION)

    write_shard, write_manifest, written = shard_files.write_shard, convert.write_manifest, []

    def write_one(path, frames):
        if written:
            raise KeyboardInterrupt
        written.append(path)
        write_shard(path, frames)

    monkeypatch.setattr(shard_files, "write_shard", write_one)
    with pytest.raises(KeyboardInterrupt):
        new_prior.add_prior(folder, str(network))
    with pytest.raises(FileNotFoundError, match="has not finished"):
        read_manifest(folder)
    with pytest.raises(ValueError, match="another prior is half added"):
        new_prior.add_prior(folder, "magnitude")
    with pytest.raises(ValueError, match="run the same --add_prior to its end"):
        convert.convert(sequences, folder, make_motion(), DESCRIPTION)

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(
        shard_files, "write_shard", lambda path, frames: (written.append(path), write_shard(path, frames))
    )
    monkeypatch.setattr(new_prior, "write_manifest", interrupt)
    with pytest.raises(KeyboardInterrupt):
        new_prior.add_prior(folder, str(network))
    assert len(written) == 2  # one each time
    monkeypatch.setattr(new_prior, "write_manifest", write_manifest)
    monkeypatch.setattr(new_prior, "remove_files", lambda folder, pattern: pattern == "new_prior.json" and interrupt())
    with pytest.raises(KeyboardInterrupt):
        new_prior.add_prior(folder, str(network))
    monkeypatch.undo()
    monkeypatch.setattr(workers, "make_shards", make_shards_here)
    new_prior.add_prior(folder, str(network))
    assert len(written) == 2 and contents(folder) == contents(tmp_path / "fresh")


def test_each_sequence_gets_the_prior_that_did_not_see_it_and_an_interrupted_change_goes_on(
    davis, tmp_path, network, monkeypatch
):
    """Of s0 the classifier of fold 1, of s1 that of fold 0; one that nobody trained on gets that of all."""
    make_davis(tmp_path / "more", lengths=(3, 2, 2))
    sequences, folder = find_sequences("davis", tmp_path / "more"), tmp_path / "changed"
    path = tmp_path / "folds.keras"
    path.write_bytes(network.read_bytes())
    prior = load_prior(path)
    whole = trained_weights(prior)
    folds = [[*whole[:-1], whole[-1] + np.float32(shift)] for shift in (1.5, -1.5)]  # of the scores of all regions
    add_folds(path, {"s0": 1, "s1": 0}, folds)

    convert.convert(sequences, folder, make_motion(prior="none"), DESCRIPTION, num_shards=2)
    write_shard, written = shard_files.write_shard, []

    def write_one(path, frames):
        if written:
            raise KeyboardInterrupt
        written.append(path)
        write_shard(path, frames)

    monkeypatch.setattr(shard_files, "write_shard", write_one)
    with pytest.raises(KeyboardInterrupt):
        new_prior.add_prior(folder, str(path))
    monkeypatch.setattr(shard_files, "write_shard", write_shard)
    new_prior.add_prior(folder, str(path))
    convert.convert(sequences, tmp_path / "fresh", network_motion(path), DESCRIPTION, num_shards=2)
    assert contents(folder) == contents(tmp_path / "fresh")

    stored = {}
    for (sequence, _), record in read(folder).items():
        flow = flow_files.decode_flow_png(record.flow, "flow")
        inputs = {"flow": flow[None], "superpixels": segment(flow, prior.superpixel_settings)[None]}
        levels = []
        for weights in (whole, *folds):
            for variable, array in zip(prior.trainable_variables, weights, strict=True):
                variable.assign(array)
            levels.append(np.rint(prior(inputs).numpy()[0, ..., 0] * 255))
        found = cv2.imdecode(np.frombuffer(record.prior, np.uint8), cv2.IMREAD_UNCHANGED).astype(float)
        differences = [np.abs(found - each).max() for each in levels]
        stored.setdefault(sequence, set()).add(int(np.argmin(differences)))
        assert min(differences) <= 1 < sorted(differences)[1]  # one thread here, several there: a grey level at most
    assert stored == {"s0": {2}, "s1": {1}, "s2": {0}}


def test_a_prior_that_does_not_fit_is_refused(davis, tmp_path, network):
    sequences = find_sequences("davis", davis)
    with pytest.raises(FileNotFoundError, match="no such folder; expected records"):
        new_prior.add_prior(tmp_path / "nothing", str(network))
    with pytest.raises(FileNotFoundError, match="this is no record folder"):
        new_prior.add_prior(davis, str(network))
    other = FlowSettings("dis_fast", motion_size=(32, 48))
    convert.convert(sequences, tmp_path / "other", MotionOptions(other), DESCRIPTION)
    with pytest.raises(ValueError, match="dis_fast.*but .*prior.keras was trained on .*farneback"):
        new_prior.add_prior(tmp_path / "other", str(network))
    given = MotionOptions(FlowSettings("files", motion_size=(32, 48)))
    convert.convert(sequences, tmp_path / "given", given, DESCRIPTION)
    with pytest.raises(ValueError, match="came from files and is not stored"):
        new_prior.add_prior(tmp_path / "given", "magnitude")
    assert (tmp_path / "other" / "manifest.json").exists() and (tmp_path / "given" / "manifest.json").exists()


@pytest.mark.parametrize("rgb_features", [False, True])
def test_what_a_graph_computes_at_run_time_is_what_records_hold(davis, tmp_path, rgb_features):
    """The prior as a served graph with free sizes, in a batch, against the records' bytes, added ones as well."""
    path = save_prior(tmp_path / "prior.keras", rgb_features=rgb_features)
    sequences = find_sequences("davis", davis)
    convert.convert(sequences, tmp_path / "out", network_motion(path), DESCRIPTION)
    convert.convert(sequences, tmp_path / "added", make_motion(), DESCRIPTION)
    new_prior.add_prior(tmp_path / "added", str(path))
    assert contents(tmp_path / "added") == contents(tmp_path / "out")
    prior = load_prior(path)
    free = (None, None, None, 2)
    signature = {"flow": tf.TensorSpec(free), "superpixels": tf.TensorSpec(free, tf.int32)}
    if rgb_features:
        signature["frame"] = tf.TensorSpec((None, None, None, 3), tf.uint8)
    module = tf.Module()
    module.weights = [weight.value for weight in prior.weights]
    module.serve = tf.function(lambda inputs: prior(inputs), input_signature=[signature])
    tf.saved_model.save(module, str(tmp_path / "saved"))
    found = list(read(tmp_path / "out").values())
    flows = np.stack([flow_files.decode_flow_png(record.flow, "flow") for record in found])
    superpixels = np.stack([segment(flow, prior.superpixel_settings) for flow in flows])
    inputs = {"flow": flows, "superpixels": superpixels}
    if rgb_features:
        inputs["frame"] = np.stack([images.decode_frame(record.frame, record.name) for record in found])
    loaded = tf.saved_model.load(str(tmp_path / "saved"))
    served = loaded.serve(inputs).numpy()
    stored = [cv2.imdecode(np.frombuffer(record.prior, np.uint8), cv2.IMREAD_UNCHANGED) for record in found]
    assert len(np.unique(stored)) > 5
    np.testing.assert_array_equal(np.round(served[..., 0] * 255).astype(np.uint8), stored)


def add_coarse(davis, tmp_path, column):
    """Coarse labels of all frames of s0: a bar from `column` on."""
    label = np.zeros((64, 96), np.uint8)
    label[20:40, column : column + 20] = 255
    for index in range(3):
        path = tmp_path / "coarse" / "s0" / f"{index:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(images.encode_png(label))
    return add_coarse_labels(find_sequences("davis", davis), tmp_path / "coarse"), label


def test_coarse_labels_stand_beside_fine_masks(davis, tmp_path):
    sequences, label = add_coarse(davis, tmp_path, 5)
    manifest = convert.convert(sequences, tmp_path / "out", make_motion(), DESCRIPTION)
    assert manifest["sequences"]["s0"]["labelled"] == {"0": "coarse", "1": "fine", "2": "fine"}
    assert manifest["sequences"]["s1"]["labelled"] == {"1": "fine"}
    found = read(tmp_path / "out")
    np.testing.assert_array_equal(cv2.imdecode(np.frombuffer(found["s0", 0].mask, np.uint8), -1), label)
    np.testing.assert_array_equal(
        cv2.imdecode(np.frombuffer(found["s0", 1].mask, np.uint8), -1) > 0, sequences[0].read_mask(1)
    )
    convert.convert(sequences, tmp_path / "out", make_motion(), DESCRIPTION)  # all is there
    with pytest.raises(ValueError, match="holds other records"):  # a label was corrected since
        convert.convert(add_coarse(davis, tmp_path, 6)[0], tmp_path / "out", make_motion(), DESCRIPTION)


def test_a_prior_of_another_method_is_stored_at_motion_size(davis, tmp_path, monkeypatch):
    monkeypatch.delattr(FlowEstimator, "push")  # no flow is needed
    sequences, generator = find_sequences("davis", davis), np.random.default_rng(0)
    priors = {}
    for sequence in sequences:
        for name in sequence.frame_names:
            priors[sequence.name, name] = generator.random((64, 96)).astype(np.float32)
            images.write_map(tmp_path / "priors" / sequence.name / f"{name}.png", priors[sequence.name, name])
    motion = MotionOptions(FLOW, None, "files", prior_dir=tmp_path / "priors")
    manifest = convert.convert(sequences, tmp_path / "out", motion, DESCRIPTION)
    assert manifest["motion"]["prior"] == {"kind": "files"}
    for (sequence, index), record in read(tmp_path / "out").items():
        prior = cv2.imdecode(np.frombuffer(record.prior, np.uint8), cv2.IMREAD_UNCHANGED)
        halved = priors[sequence, f"{index:05d}"].reshape(32, 2, 48, 2).mean((1, 3))  # INTER_AREA of twice the size
        np.testing.assert_allclose(prior / 255, halved, atol=1.01 / 255)
    (tmp_path / "priors" / "s1" / "00001.png").unlink()
    with pytest.raises(FileNotFoundError, match="priors/s1/00001.png: no such file"):
        convert.convert(sequences, tmp_path / "other", motion, DESCRIPTION)
