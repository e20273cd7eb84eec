"""Tests of `msst evaluate`: its files, its baselines, and thirty kinds of bad folder, each told in one sentence."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
import shutil
from pathlib import Path

import cv2
import forked
import numpy as np
import pytest

from msst_keras.data import datasets
from msst_keras.evaluation.map_reader import ALL_BLACK, FLOW_MAGNITUDE, MapReader
from msst_keras.evaluation.options import EvaluateOptions
from msst_keras.evaluation.protocols import PROTOCOLS
from msst_keras.evaluation.scoring import make_parts, score_methods
from msst_keras.jobs.evaluate import evaluate

SIZE = 48, 64
NAMES = [f"{index:05d}" for index in range(4)]


def _disc(index):
    rows, columns = np.indices(SIZE)
    return np.hypot(rows - 24, columns - 20 - 4 * index) < 10


def _write(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


@pytest.fixture
def davis(tmp_path):
    """Two sequences of four frames, a disc that moves to the right, and maps of it in maps/."""
    texture = np.random.default_rng(0).integers(0, 256, (*SIZE, 3)).astype(np.uint8)
    for sequence in ("ball", "disc"):
        for index, name in enumerate(NAMES):
            mask = _disc(index)
            frame = np.where(mask[..., None], np.roll(texture, 4 * index, axis=1), texture // 3)
            _write(tmp_path / f"davis/JPEGImages/480p/{sequence}/{name}.jpg", frame)
            _write(tmp_path / f"davis/Annotations/480p/{sequence}/{name}.png", mask * np.uint8(255))
            _write(tmp_path / f"maps/{sequence}/{name}.png", cv2.blur(mask * np.uint8(255), (9, 9)))
    return tmp_path


def msst(*arguments):
    return forked.msst("evaluate", *arguments)


def score(root, num_workers=1, baselines=(), flicker=False, folders=None, names=("paper",)):
    """What the job does between its flags and its files."""
    found = datasets.find_sequences("davis", root / "davis")
    folders = folders or {"predictions": root / "maps"}
    reader = MapReader({sequence.name: sequence for sequence in found}, folders, baselines=baselines)
    reader.check_maps(reader.sequences)
    protocols = [PROTOCOLS[name] for name in names]
    frames = {sequence.name: sequence.frame_names for sequence in found} if flicker else None
    parts = make_parts(protocols, reader.annotated(), frames)
    evaluators = score_methods(reader, reader.methods, protocols, parts, num_workers=num_workers, flicker=flicker)
    return {key: evaluator.result() for key, evaluator in evaluators.items()}


def test_all_protocols_baselines_and_a_compared_method(davis):
    shutil.copytree(davis / "davis/Annotations/480p", davis / "perfect")
    arguments = (f"--predictions={davis}/maps", f"--ground_truth={davis}/davis", "--protocol=all", "--noreport")
    arguments += (f"--compare=perfect:{davis}/perfect", "--temporal_stability", "--name=ours")
    result = msst(*arguments, f"--output_dir={davis}/out", "--num_workers=2")
    assert result.returncode == 0, result.stderr
    assert [line.split()[0] for line in result.stdout.splitlines() if line[:1].isalpha()][:2] == ["method", "ours"]
    assert sorted(path.name for path in (davis / "out").iterdir()) == [".msst.json", *sorted(PROTOCOLS)]
    methods = ("", "-perfect", "-all-black", "-flow-magnitude")
    expected = sorted(f"{stem}{method}.{suffix}" for method in methods
                      for stem, suffix in (("metrics", "json"), ("metrics", "csv"), ("frames", "csv")))  # fmt: skip
    for name in PROTOCOLS:
        assert sorted(path.name for path in (davis / "out" / name).iterdir()) == expected
    perfect = json.loads((davis / "out/davsod/metrics-perfect.json").read_text())
    assert (perfect["mae"], perfect["max_f"], perfect["num_frames"]) == (0, 1, 4)
    black = json.loads((davis / "out/paper/metrics-all-black.json").read_text())
    assert black["mae"] == pytest.approx(np.mean([_disc(index).mean() for index in range(4)]))
    assert black["temporal_stability"] == 0
    ours, flow = (json.loads((davis / f"out/paper/metrics{m}.json").read_text()) for m in ("", "-flow-magnitude"))
    assert 0 < ours["temporal_stability"] < 0.1 and 0.5 < flow["max_f"] < ours["max_f"]
    with open(davis / "out/paper/frames.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["sequence"], row["frame"]) for row in rows] == [(s, n) for s in ("ball", "disc") for n in NAMES]
    assert np.mean([float(row["mae"]) for row in rows]) == pytest.approx(ours["mae"])
    assert [row["temporal_stability"] == "" for row in rows] == [False, False, False, True] * 2  # to the next frame
    published = [line for line in result.stdout.splitlines() if line.startswith("published")]
    assert not published  # beside somebody's own videos
    assert re.search(r"^flow magnitude +davis16 +2 +4 ", result.stdout, re.MULTILINE)
    alone = msst(*arguments, f"--output_dir={davis}/alone", "--num_workers=1")
    assert alone.returncode == 0 and alone.stdout == result.stdout
    for path in sorted((davis / "out").rglob("*.*")):
        assert path.read_bytes() == (davis / "alone" / path.relative_to(davis / "out")).read_bytes()


def test_python_gets_what_the_command_writes(davis, capsys):
    options = EvaluateOptions(
        predictions=f"{davis}/maps", ground_truth=f"{davis}/davis", output_dir=f"{davis}/python", report=False,
        protocol=("paper", "davis16"), sequences=("ball",), num_workers=1,
    )  # fmt: skip
    results = evaluate(options)
    arguments = (f"--predictions={davis}/maps", f"--ground_truth={davis}/davis", f"--output_dir={davis}/command")
    command = msst(*arguments, "--noreport", "--protocol=paper,davis16", "--sequences=ball", "--num_workers=1")
    assert command.returncode == 0 and capsys.readouterr().out == command.stdout
    written = sorted(path.relative_to(davis / "command") for path in (davis / "command").rglob("*.*"))
    assert len(written) == 19  # three files of three methods under two protocols, and what they were made from
    for path in written:
        assert (davis / "command" / path).read_bytes() == (davis / "python" / path).read_bytes()
    metrics = json.loads((davis / "command/davis16/metrics.json").read_text())
    assert json.loads(json.dumps(results["predictions", "davis16"])) == metrics
    methods = ("predictions", "all black", "flow magnitude")
    assert set(results) == {(method, protocol) for method in methods for protocol in ("paper", "davis16")}


def test_a_flat_folder_has_no_flow_and_says_so(davis):
    arguments = (f"--predictions={davis}/maps/ball", f"--ground_truth={davis}/davis/Annotations/480p/ball")
    result = msst(*arguments, "--layout=flat", f"--output_dir={davis}/out", "--noreport")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("the row 'flow magnitude' is left out: there are masks and no frames")
    assert not re.search("^flow magnitude|^published", result.stdout, re.MULTILINE)
    assert re.search("^all black ", result.stdout, re.MULTILINE)
    result = msst(*arguments, "--layout=flat", f"--output_dir={davis}/no", "--temporal_stability")
    assert_one_sentence(result, "--temporal_stability needs the frames")


def test_flow_magnitude_is_that_of_the_sequence_in_order(davis):
    from msst_keras.data import images
    from msst_keras.motion.flow import FlowEstimator, FlowSettings
    from msst_keras.motion.flow_pictures import magnitude_prior

    (sequence,) = datasets.find_sequences("davis", davis / "davis", sequences=["ball"])
    reader = MapReader({"ball": sequence}, {}, baselines=(ALL_BLACK, FLOW_MAGNITUDE))
    frames = [images.read_frame(path) for path in sequence.frame_paths]
    for name, flow in zip(NAMES, FlowEstimator(FlowSettings()).flows(frames), strict=True):
        expected = cv2.resize(np.rint(255 * magnitude_prior(flow)).astype(np.uint8), SIZE[::-1])
        np.testing.assert_array_equal(reader.read("ball", name)[1][FLOW_MAGNITUDE], expected)


def test_sparse_ground_truth_scores_the_annotated_frames(davis):
    for name in NAMES[1:3]:
        (davis / f"davis/Annotations/480p/ball/{name}.png").unlink()
    (davis / f"maps/ball/{NAMES[1]}.png").unlink()  # not needed
    result = score(davis, flicker=True)["predictions", "paper"]
    assert result["num_frames"] == 6
    assert result["sequences"]["ball"]["temporal_stability"] is not None  # of frames 2 and 3
    with pytest.raises(ValueError, match="sequence ball has 2 annotated frames, and protocol davis16 skips"):
        score(davis, names=("paper", "davis16"))


def test_maps_of_another_size_are_resized_and_left_as_they_are(davis):
    path = davis / "maps/ball/00001.png"
    whole = score(davis)["predictions", "paper"]["mae"]
    _write(path, cv2.resize(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), (32, 24), interpolation=cv2.INTER_AREA))
    before = path.read_bytes()
    assert score(davis)["predictions", "paper"]["mae"] == pytest.approx(whole, abs=0.01)
    assert path.read_bytes() == before


def test_hidden_files_and_notes_among_maps_do_not_matter(davis):
    expected = score(davis)
    (davis / "maps/ball/._00001.png").write_bytes(b"of a Mac")
    (davis / "maps/ball/notes.txt").write_text("epoch 12")
    (davis / "maps/.cache").mkdir()
    assert score(davis) == expected


# Each kind spoils `maps` (or the masks) and returns what the sentence must say.
MAP = "maps/ball/00001.png"


def _replace(root, image):
    _write(root / MAP, image)


def missing_frame(root):
    (root / MAP).unlink()
    return r"maps: 1 of 8 masks have no map \(ball/00001\)"


def missing_sequence(root):
    shutil.rmtree(root / "maps/ball")
    return r"4 of 8 masks have no map \(ball/00000, ball/00001, ball/00002, ball/00003\)"


def empty_folder(root):
    shutil.rmtree(root / "maps")
    (root / "maps").mkdir()
    return r"maps: 8 of 8 masks have no map \(ball/00000, .*\.\.\.\)"


def extra_map(root):
    shutil.copy(root / MAP, root / "maps/ball/00009.png")
    return r"maps: 1 maps belong to no frame \(ball/00009\)"


def other_names(root):
    for path in (root / "maps/ball").iterdir():
        path.rename(path.with_name(f"ball_{path.name}"))
    return r"4 of 8 masks have no map \(ball/00000.*; 4 maps belong to no frame \(ball/ball_00000"


def unpadded_numbers(root):
    (root / MAP).rename(root / "maps/ball/1.png")
    return r"1 of 8 masks have no map \(ball/00001\); 1 maps belong to no frame \(ball/1\)"


def the_same_number_twice(root):
    shutil.copy(root / MAP, root / "maps/ball/0001.png")
    return r"maps: 1 maps belong to no frame \(ball/0001\)"


def another_dataset(root):
    (root / "maps/ball").rename(root / "maps/camel01")
    return r"4 of 8 masks have no map \(ball/00000"


def an_unknown_sequence_beside(root):
    shutil.copytree(root / "maps/ball", root / "maps/camel01")
    return r"maps: 1 folders of maps belong to no sequence of the ground truth \(camel01\); .* \(--sequences\)"


def nested_folders(root):
    (root / "maps").rename(root / "480p")
    (root / "480p").rename(root / "outer")
    (root / "maps").mkdir()
    (root / "outer").rename(root / "maps/480p")
    return r"8 of 8 masks have no map"


def flat_instead_of_sequences(root):
    for path in (root / "maps/ball").iterdir():
        path.rename(root / "maps" / path.name)
    return r"4 of 8 masks have no map \(ball/00000"


def jpg_maps(root):
    (root / MAP).rename(root / "maps/ball/00001.jpg")
    return r"ball/00001.jpg: maps are files FRAME.png, 8-bit grey; this is '.jpg', convert or remove it"


def a_jpg_beside_the_png(root):
    shutil.copy(root / MAP, root / "maps/ball/00001.jpg")
    return r"ball/00001.jpg: maps are files FRAME.png"


def uppercase_extension(root):
    (root / MAP).rename(root / "maps/ball/00001.PNG")
    return r"ball/00001.PNG: maps are files FRAME.png, 8-bit grey; this is '.PNG'"


def float_tiff(root):
    (root / MAP).unlink()
    _write(root / "maps/ball/00001.tiff", np.zeros(SIZE, np.float32))
    return r"ball/00001.tiff: maps are files FRAME.png"


def open_exr(root):
    (root / MAP).rename(root / "maps/ball/00001.exr")
    return r"ball/00001.exr: maps are files FRAME.png"


def numpy_array(root):
    (root / MAP).unlink()
    np.save(root / "maps/ball/00001.npy", np.zeros(SIZE, np.float32))
    return r"ball/00001.npy: maps are files FRAME.png"


def float_tiff_named_png(root):
    _write(root / "float.tiff", np.zeros(SIZE, np.float32))
    shutil.move(root / "float.tiff", root / MAP)
    return r"ball/00001.png: a map must be 8-bit grey, this is of mode F"


def colour_map(root):
    _replace(root, np.zeros((*SIZE, 3), np.uint8))
    return r"ball/00001.png: a map must be 8-bit grey, this is of mode RGB; convert the file"


def alpha_channel(root):
    _replace(root, np.zeros((*SIZE, 4), np.uint8))
    return r"ball/00001.png: a map must be 8-bit grey, this is of mode RGBA"


def palette(root):
    from PIL import Image

    Image.fromarray(np.zeros(SIZE, np.uint8)).convert("P").save(root / MAP)
    return r"ball/00001.png: a map must be 8-bit grey, this is of mode P"


def sixteen_bits(root):
    _replace(root, np.zeros(SIZE, np.uint16))
    return r"ball/00001.png: expected 8 bits a channel, found 16; convert the file"


def empty_file(root):
    (root / MAP).write_bytes(b"")
    return r"ball/00001.png: not a readable image"


def text_named_png(root):
    (root / MAP).write_text("saliency")
    return r"ball/00001.png: not a readable image; expected one of"


def cut_off(root):
    (root / MAP).write_bytes((root / MAP).read_bytes()[:-30])
    return r"ball/00001.png: cut off or damaged"


def a_folder_named_png(root):
    (root / MAP).unlink()
    (root / MAP).mkdir()
    return r"ball/00001.png: maps are files FRAME.png, 8-bit grey; this is a folder"


def a_link_to_nothing(root):
    (root / MAP).unlink()
    (root / MAP).symlink_to(root / "gone.png")
    return r"ball/00001.png: maps are files FRAME.png, 8-bit grey; this is a link to nothing"


def another_aspect(root):
    _replace(root, np.zeros((48, 48), np.uint8))
    return r"ball/00001.png: sequence ball, frame 00001: the map is \(48, 48\) and the mask \(48, 64\)"


def turned_by_a_quarter(root):
    _replace(root, np.zeros(SIZE[::-1], np.uint8))
    return r"ball/00001.png: sequence ball, frame 00001: the map is \(64, 48\) and the mask \(48, 64\)"


def the_masks_themselves(root):
    shutil.rmtree(root / "maps")
    (root / "maps").symlink_to(root / "davis/Annotations/480p")
    return r"ball/00000.png: this is the mask itself; --predictions and --compare are folders of maps"


def a_mask_of_another_size(root):
    _write(root / "davis/Annotations/480p/ball/00001.png", np.zeros((50, 64), np.uint8))
    return r"Annotations/480p/ball/00001.png: this mask is 50x64, but .*00001.jpg is 48x64"


def a_damaged_mask(root):
    path = root / "davis/Annotations/480p/ball/00001.png"
    path.write_bytes(path.read_bytes()[:-30])
    return r"Annotations/480p/ball/00001.png: cut off or damaged"


KINDS = (
    missing_frame, missing_sequence, empty_folder, extra_map, other_names, unpadded_numbers, the_same_number_twice,
    another_dataset, an_unknown_sequence_beside, nested_folders, flat_instead_of_sequences, jpg_maps,
    a_jpg_beside_the_png, uppercase_extension, float_tiff, open_exr, numpy_array, float_tiff_named_png, colour_map,
    alpha_channel, palette, sixteen_bits, empty_file, text_named_png, cut_off, a_folder_named_png, a_link_to_nothing,
    another_aspect, turned_by_a_quarter, the_masks_themselves, a_mask_of_another_size, a_damaged_mask,
)  # fmt: skip


@pytest.mark.parametrize("spoil", KINDS)
def test_a_bad_folder(davis, spoil):
    message = spoil(davis)
    with pytest.raises((ValueError, OSError), match=message) as caught:
        score(davis)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def assert_one_sentence(result, message):
    last = result.stderr.splitlines()[-1]
    assert result.returncode == 1, result.stderr
    assert last.startswith("msst evaluate: ") and re.search(message, last), last
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("spoil", [missing_frame, colour_map, jpg_maps])
def test_a_bad_folder_told_by_the_job(davis, spoil):
    message = spoil(davis)
    arguments = (f"--predictions={davis}/maps", f"--ground_truth={davis}/davis", "--num_workers=2")
    assert_one_sentence(msst(*arguments, f"--output_dir={davis}/out"), message)
    assert not (davis / "out").exists()


@pytest.mark.parametrize(
    "compare, message",
    [
        ("other:{root}/none", "none: no such folder; the maps are expected in"),
        ("a:{root}/maps,a:{root}/maps", "methods must have different names, but 'a' is there already"),
        ("predictions:{root}/maps", "'predictions' is there already"),
        ("all black:{root}/maps", "'all black' is there already"),
        ("{root}/maps", "--compare wants NAME:DIR"),
        (
            "a/b:{root}/maps",
            "a method must have a name of letters, .* not 'a/b'",
        ),
    ],
)
def test_methods_that_cannot_be_compared(davis, compare, message):
    arguments = (f"--predictions={davis}/maps", f"--ground_truth={davis}/davis", f"--output_dir={davis}/out")
    assert_one_sentence(msst(*arguments, f"--compare={compare.format(root=davis)}"), message)
    assert not (davis / "out").exists()


def test_a_bad_map_of_a_compared_method_is_named(davis):
    shutil.copytree(davis / "maps", davis / "other")
    _write(davis / "other/disc/00002.png", np.zeros((48, 48), np.uint8))
    folders = {"predictions": davis / "maps", "other": davis / "other"}
    with pytest.raises(ValueError, match=r"other/disc/00002.png: sequence disc, frame 00002: the map is \(48, 48\)"):
        score(davis, folders=folders)


def test_an_unknown_protocol_is_a_wrong_flag(davis):
    arguments = (f"--predictions={davis}/maps", f"--ground_truth={davis}/davis", f"--output_dir={davis}/out")
    result = msst(*arguments, "--protocol=paper,best")
    assert result.returncode == 2 and "must be among paper, davsod, davis16, pysodmetrics, or all" in result.stderr


def test_a_part_of_a_dataset_may_have_maps_of_all(davis):
    arguments = (f"--predictions={davis}/maps", f"--ground_truth={davis}/davis", f"--output_dir={davis}/out")
    result = msst(*arguments, "--sequences=disc", "--noreport", "--nobaselines")
    assert result.returncode == 0, result.stderr
    assert sorted(path.name for path in Path(davis / "out").iterdir()) == [
        ".msst.json", "frames.csv", "metrics.csv", "metrics.json",
    ]  # fmt: skip


def test_results_are_those_of_what_is_asked_for(davis, capsys):
    options = EvaluateOptions(
        predictions=f"{davis}/maps", ground_truth=f"{davis}/davis", output_dir=f"{davis}/out", report=False,
        baselines=False, num_workers=1,
    )  # fmt: skip
    first = evaluate(options)
    times = {path: path.stat().st_mtime_ns for path in (davis / "out").iterdir()}
    assert evaluate(options) == first and f"{davis}/out: there already\n" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in (davis / "out").iterdir()} == times
    _write(davis / "maps/disc/00002.png", np.zeros(SIZE, np.uint8))
    for changed, difference in (
        (options, "other maps of predictions;"),
        (dataclasses.replace(options, protocol=("davis16",)), "protocol paper .now davis16.;"),
    ):
        with pytest.raises(ValueError, match=f"out was made from something else: .*{difference} choose another"):
            evaluate(changed)
    assert {path: path.stat().st_mtime_ns for path in (davis / "out").iterdir()} == times
    again = evaluate(dataclasses.replace(options, overwrite=True))
    assert again["predictions", "paper"]["mae"] > first["predictions", "paper"]["mae"]
    # What is lost, or was left by a run that ended in its middle, is made again; what is somebody else's stays.
    (davis / "out" / "metrics.csv").unlink()
    assert evaluate(options) == again and (davis / "out" / "metrics.csv").exists()
    (davis / "out" / ".msst.json").unlink()
    with pytest.raises(ValueError, match="did not write .frames.csv, metrics.csv, metrics.json.; choose another"):
        evaluate(dataclasses.replace(options, overwrite=True))


def test_results_do_not_land_among_the_maps(davis):
    options = EvaluateOptions(
        predictions=f"{davis}/maps", ground_truth=f"{davis}/davis", output_dir=f"{davis}/maps/results"
    )
    with pytest.raises(ValueError, match="maps/results would land in its own input .*maps; choose another place"):
        evaluate(options)
