"""`msst predict`: an interrupted sequence goes on at its first missing map; the CRF's threads change nothing."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import threading
import time
from fractions import Fraction
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from forked import Forked
from made_videos import pictures, write_video
from small_model import STRIDE

from msst_keras.data import images, videos
from msst_keras.data.flow_files import write_flow
from msst_keras.data.sequences import FileSequence
from msst_keras.inference.options import PredictOptions
from msst_keras.inference.overlay import OverlayWriter
from msst_keras.jobs import map_folder, predict
from msst_keras.locks import hold_folder
from msst_keras.motion.flow import FROM_FILES, FlowEstimator, FlowSettings


@pytest.fixture(scope="module")
def work(tmp_path_factory, saved_model):
    """A folder with `model`, whose maps depend on three frames and flow over two, and 24 frames in `frames`."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "model").symlink_to(saved_model)
    generator = np.random.default_rng(1)
    frame = generator.integers(0, 256, (40, 60, 3), np.uint8)
    for index in range(24):
        frame = np.roll(frame, 1 + index % 3, axis=1)
        path = folder / "frames" / "ball" / f"{index:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(images.encode_png(cv2.blur(frame, (3, 3))))
    return folder


def start(work, output_dir, *arguments):
    given = f"--model={work}/model", f"--input={work}/frames/ball", f"--output_dir={output_dir}"
    return Forked("predict", *given, *arguments)


def finish(work, output_dir, *arguments):
    process = start(work, output_dir, *arguments)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return output


def read_maps(output_dir):
    return {path.name: path.read_bytes() for path in (output_dir / "ball").iterdir()}


@pytest.fixture(scope="module")
def whole(work):
    finish(work, work / "whole")
    return read_maps(work / "whole")


def test_python_makes_the_maps_of_the_command(work, whole, capsys):
    options = PredictOptions(model=f"{work}/model", input=(f"{work}/frames/ball",), output_dir=f"{work}/python")
    assert predict.predict(options) == {"ball": work / "python" / "ball"}
    assert read_maps(work / "python") == whole
    assert capsys.readouterr().out == f"{work}/python/ball: 24 maps\n"
    predict.predict(options)
    assert capsys.readouterr().out == f"{work}/python/ball: there already\n"


def predict_until(options, num_maps, end):
    """Predicts in this process; `end` is called in place of writing map `num_maps`."""
    write_map, written = images.write_map, []

    def write(path, saliency):
        if len(written) == num_maps:
            end()
        written.append(path)
        write_map(path, saliency)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "write_map", write)
        predict.predict(options)


def interrupt():
    raise KeyboardInterrupt


def terminate():
    raise SystemExit(143)  # what the command makes of SIGTERM


def fail():
    raise OSError("disk full")


@pytest.mark.parametrize(("end", "error"), [(interrupt, KeyboardInterrupt), (terminate, SystemExit), (fail, OSError)])
def test_whatever_ends_it_no_thread_and_no_unfinished_file_stays(work, tmp_path, end, error):
    with pytest.raises(error):
        predict_until(make_options(work, tmp_path, overlay=f"{tmp_path}/overlay.mp4"), 5, end)
    assert not [thread for thread in threading.enumerate() if thread.name == "read_ahead"]
    assert [path.name for path in tmp_path.iterdir()] == [".partial-ball"]  # no half a video
    assert len(list((tmp_path / ".partial-ball").glob("*.png"))) == 5


def test_a_damaged_frame_is_one_sentence_behind_the_maps_before_it(work, tmp_path):
    for path in (work / "frames" / "ball").iterdir():
        (tmp_path / "frames" / "ball").mkdir(parents=True, exist_ok=True)
        content = path.read_bytes()
        (tmp_path / "frames" / "ball" / path.name).write_bytes(content[:100] if path.stem == "00012" else content)
    options = PredictOptions(model=f"{work}/model", input=(f"{tmp_path}/frames/ball",), output_dir=f"{tmp_path}/out")
    with pytest.raises(ValueError, match="00012.png: cut off or damaged"):
        predict.predict(options)
    assert len(list((tmp_path / "out" / ".partial-ball").glob("*.png"))) == 12 - STRIDE
    assert not [thread for thread in threading.enumerate() if thread.name == "read_ahead"]


def kill_after(process, folder, num_maps):
    """Kills a run when it has written so many maps; returns how many it left."""
    deadline = time.monotonic() + 120
    while len(list(folder.glob("[!.]*.png"))) < num_maps and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    return len(list(folder.glob("[!.]*.png")))


@pytest.mark.slow
def test_killed_in_its_middle_it_goes_on_there_with_the_same_maps(work, whole, tmp_path):
    partial = tmp_path / ".partial-ball"
    left = kill_after(start(work, tmp_path), partial, 7)
    assert 7 <= left < 24 and not (tmp_path / "ball").exists()
    (partial / ".partial-1-00023.png").write_bytes(b"half a map")
    marks = {path.name: path.stat().st_mtime_ns for path in partial.glob("[!.]*.png")}
    assert finish(work, tmp_path).strip() == f"{tmp_path}/ball: 24 maps"
    assert read_maps(tmp_path) == whole  # no stray file
    assert len({content for name, content in whole.items() if name.endswith(".png")}) == 24  # and every map its own
    assert {name: (tmp_path / "ball" / name).stat().st_mtime_ns for name in marks} == marks  # these were kept
    assert [path.name for path in tmp_path.iterdir()] == ["ball"]


@pytest.mark.parametrize("num_done", [13, 22])  # the frames to start at are then the first and the fourth
def test_filtered_maps_go_on_in_their_middle(work, whole, tmp_path, num_done):
    filtered = {"temporal_filter": 0.7}
    predict.predict(make_options(work, tmp_path / "whole", **filtered))
    partial = tmp_path / "half" / ".partial-ball"
    shutil.copytree(tmp_path / "whole" / "ball", partial)
    for path in sorted(partial.glob("[!.]*.png"))[num_done:]:
        path.unlink()
    predict.predict(make_options(work, tmp_path / "half", **filtered))
    assert read_maps(tmp_path / "half") == read_maps(tmp_path / "whole") != whole


def make_options(work, output_dir, **changes):
    given = {"model": f"{work}/model", "input": (f"{work}/frames/ball",), "output_dir": str(output_dir)}
    return PredictOptions(**{**given, **changes})


@pytest.mark.slow
def test_half_made_maps_of_other_flags_are_refused_and_made_anew_when_asked_for(work, tmp_path):
    kill_after(start(work, tmp_path), tmp_path / ".partial-ball", 5)
    with pytest.raises(ValueError, match="threshold none .now 0.5.; choose another --output_dir, or give --overwrite"):
        predict.predict(make_options(work, tmp_path, threshold=0.5))
    assert len(list((tmp_path / ".partial-ball").glob("[!.]*.png"))) >= 5
    predict.predict(make_options(work, tmp_path, threshold=0.5, overwrite=True))
    maps = sorted((tmp_path / "ball").glob("*.png"))
    assert len(maps) == 24 and {value for path in maps for value in np.unique(images.read_map(path))} <= {0, 1}


def test_maps_of_another_input_model_or_flag_are_not_taken_for_these(work, whole, tmp_path):
    folder = tmp_path / "maps"
    shutil.copytree(work / "whole", folder)
    shutil.copytree(work / "frames" / "ball", tmp_path / "ball")
    same_content = make_options(work, folder, input=(f"{tmp_path}/ball",))
    predict.predict(same_content)  # elsewhere, but the same
    shutil.copy(tmp_path / "ball" / "00003.png", tmp_path / "ball" / "00004.png")
    shutil.copytree(work / "model", tmp_path / "model")
    asset = tmp_path / "model" / "1" / "assets" / "msst.json"
    asset.write_text(asset.read_text() + " ")
    for options, difference in (
        (same_content, "another input"),
        (make_options(work, folder, model=f"{tmp_path}/model"), "another model"),
        (make_options(work, folder, crf=True), "crf False .now True."),
    ):
        with pytest.raises(ValueError, match=f"maps/ball was made from something else: {difference}; choose another"):
            predict.predict(options)
    assert read_maps(folder) == whole
    predict.predict(dataclasses.replace(same_content, overwrite=True))
    assert read_maps(folder).keys() == whole.keys() and read_maps(folder) != whole


def test_maps_that_were_removed_are_made_again_and_strange_files_stay(work, whole, tmp_path):
    shutil.copytree(work / "whole", tmp_path / "maps")
    (tmp_path / "maps" / "ball" / "00007.png").unlink()
    predict.predict(make_options(work, tmp_path / "maps"))
    assert read_maps(tmp_path / "maps") == whole
    (tmp_path / "maps" / "ball" / "notes.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(ValueError, match=r"ball holds files that `msst predict` did not write \(notes.txt\)"):
            predict.predict(make_options(work, tmp_path / "maps", overwrite=overwrite))
    shutil.rmtree(tmp_path / "maps" / "ball")
    shutil.copytree(work / "frames" / "ball", tmp_path / "maps" / "ball")  # somebody's images
    with pytest.raises(ValueError, match="did not write .00000.png, 00001.png, 00002.png, ...."):
        predict.predict(make_options(work, tmp_path / "maps", overwrite=True))


def test_an_output_in_its_own_input_is_refused(work, tmp_path):
    shutil.copytree(work / "frames" / "ball", tmp_path / "ball")
    for changes, place in (
        ({"output_dir": str(tmp_path)}, "ball"),
        ({"output_dir": str(tmp_path / "ball")}, "ball/ball"),
        ({"overlay": str(tmp_path / "ball" / "o.mp4")}, "ball/o.mp4"),
    ):
        options = make_options(work, **{"output_dir": "x", "input": (f"{tmp_path}/ball",), **changes})
        with pytest.raises(ValueError, match=f"the output {tmp_path}/{place} would land in its own input"):
            predict.predict(options)
    video = tmp_path / "clip.mp4"
    with OverlayWriter(video, 5, (48, 64)) as writer:
        for _ in range(4):
            writer.write(np.zeros((48, 64, 3), np.uint8))
    before = video.read_bytes()
    with pytest.raises(ValueError, match="clip.mp4 would land in its own input .*clip.mp4; choose another place"):
        predict.predict(make_options(work, tmp_path, input=(str(video),)))
    assert video.read_bytes() == before


def test_an_overlay_among_the_maps_is_refused(work, tmp_path):
    for place in ("ball/o.mp4", "ball"):
        options = make_options(work, tmp_path, overlay=f"{tmp_path}/{place}")
        with pytest.raises(ValueError, match=f"--overlay={tmp_path}/{place} would land in {tmp_path}/ball, which is"):
            predict.predict(options)
    assert not list(tmp_path.iterdir())


def test_flow_from_files_spans_as_many_frames_as_the_models(work, tmp_path):
    settings = FlowSettings(motion_size=(32, 48), stride=STRIDE)
    paths = sorted((work / "frames" / "ball").iterdir())
    flows = FlowEstimator(settings).flows(map(images.read_frame, paths))
    (tmp_path / "flow" / "ball").mkdir(parents=True)
    for path, flow in zip(paths, flows, strict=True):
        write_flow(tmp_path / "flow" / "ball" / f"{path.stem}.flo", flow * STRIDE)
    shutil.copytree(work / "model", tmp_path / "model")
    asset = tmp_path / "model" / "1" / "assets" / "msst.json"
    written = json.loads(asset.read_text())
    written["motion"]["flow"] = dataclasses.replace(settings, method=FROM_FILES).to_dict()
    asset.write_text(json.dumps(written))
    maps = []
    # The filter carries maps along the flow; the prior alone is scaled, so that twice the flow would be the same to it.
    for name, changes in (("files", {"model": f"{tmp_path}/model", "flow_dir": f"{tmp_path}/flow"}), ("computed", {})):
        predict.predict(make_options(work, tmp_path / name, temporal_filter=0.7, **changes))
        maps.append([path.read_bytes() for path in sorted((tmp_path / name / "ball").glob("*.png"))])
    assert len(maps[0]) == 24 and maps[0] == maps[1]


def test_maps_are_counted_in_the_order_of_their_frames(tmp_path):
    for number in range(1, 12):
        (tmp_path / f"{number}.png").write_bytes(b"" if number == 9 else b"a map")  # as a power cut may leave it
    assert map_folder._count_first(tmp_path) == 8


def test_the_second_of_two_says_so_at_its_start(work, tmp_path):
    with hold_folder(tmp_path / ".partial-ball"):
        with pytest.raises(BlockingIOError, match=f"{tmp_path}/.partial-ball: another process is writing here"):
            predict.predict(make_options(work, tmp_path))
    assert not (tmp_path / "ball").exists()


def test_a_run_that_ends_in_the_maps_of_another_closes_what_it_reads(work, tmp_path, monkeypatch):
    options = make_options(work, tmp_path, overlay=f"{tmp_path}/overlay.mp4")
    with pytest.raises(KeyboardInterrupt):
        predict_until(options, 5, interrupt)
    closed, read_images = [], FileSequence.read_images

    def read(sequence):
        """Tells when it is closed; the error below holds it for longer than the run lasts."""
        try:
            yield from read_images(sequence)
        finally:
            closed.append(True)

    monkeypatch.setattr(FileSequence, "read_images", read)
    monkeypatch.setattr(OverlayWriter, "write", lambda *_: interrupt())
    with pytest.raises(KeyboardInterrupt) as caught:
        predict.predict(options)
    assert closed == [True] and caught.tb


def test_an_overlay_belongs_to_its_maps(work, tmp_path):
    overlay = tmp_path / "o.mp4"
    options = make_options(work, tmp_path / "maps", overlay=str(overlay))
    overlay.write_bytes(b"somebody's own")
    with pytest.raises(ValueError, match="o.mp4 is there already, and nothing says"):
        predict.predict(options)
    overlay.unlink()
    predict.predict(options)
    made = overlay.read_bytes()
    predict.predict(options)
    predict.predict(dataclasses.replace(options, overlay="none"))
    overlay.write_bytes(b"somebody's own")
    with pytest.raises(ValueError, match="ball is there already, without .*o.mp4; .* --overwrite to make both anew"):
        predict.predict(options)
    predict.predict(dataclasses.replace(options, overwrite=True))
    assert len(overlay.read_bytes()) == len(made)


def predict_with(target, name, function, options):
    """Predicts in this process, with a function in place of another, which ends it."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(target, name, function)
        predict.predict(options)


def test_an_overlay_is_known_by_its_content_wherever_a_run_ends(work, tmp_path):
    (tmp_path / "ball").mkdir()
    for number in range(6):
        shutil.copy(work / "frames" / "ball" / f"{number:05d}.png", tmp_path / "ball")
    overlay = tmp_path / "o.mp4"
    options = make_options(work, tmp_path / "maps", input=(f"{tmp_path}/ball",), overlay=str(overlay))
    with pytest.raises(KeyboardInterrupt):
        predict_until(options, 4, interrupt)
    overlay.write_bytes(b"somebody's own")  # of the name that the run would have given
    with pytest.raises(ValueError, match="o.mp4 is there already, and nothing says"):
        predict.predict(options)
    assert overlay.read_bytes() == b"somebody's own"
    overlay.unlink()
    predict_with(map_folder, "sync", lambda _: interrupt(), options)  # behind the first overlay
    first = overlay.read_bytes()
    predict_with(OverlayWriter, "write", lambda *_: interrupt(), options)  # before the second
    draw = OverlayWriter.write
    brighter = lambda writer, frame, seconds: draw(writer, np.maximum(frame, 9), seconds)  # noqa: E731
    replace = os.replace

    def replace_others(source, target):
        """Ends the run just before the overlay gets its name."""
        interrupt() if target == overlay else replace(source, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OverlayWriter, "write", brighter)  # another file for sure, as x264 gives now and then
        predict_with(os, "replace", replace_others, options)
    assert overlay.read_bytes() == first
    predict.predict(options)
    (tmp_path / "maps" / "ball" / "00003.png").unlink()  # the overlay is that of the maps still
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OverlayWriter, "write", brighter)
        predict_with(map_folder, "sync", lambda _: interrupt(), options)
    made = overlay.read_bytes()
    overlay.write_bytes(b"somebody's own")
    with pytest.raises(ValueError, match="o.mp4 is there already, and nothing says"):
        predict.predict(options)
    overlay.write_bytes(made)
    predict.predict(options)
    predict.predict(options)
    assert len(list((tmp_path / "maps" / "ball").glob("*.png"))) == 6


@pytest.mark.parametrize("threshold", [None, 0.5])  # behind a threshold the files lack what an overlay shows
def test_an_overlay_goes_on_with_its_maps(work, tmp_path, threshold, monkeypatch):
    drawn, write = [], OverlayWriter.write

    def record(writer, frame, seconds):
        """Remembers what is drawn: of the same frames, x264 does not always make the same file."""
        drawn.append(frame)
        write(writer, frame, seconds)

    monkeypatch.setattr(OverlayWriter, "write", record)
    video = write_video(tmp_path / "screen.mkv", pictures(24), 25)
    options = make_options(work, tmp_path / "maps", input=(str(video),), overlay="auto", threshold=threshold)
    predict.predict(options)
    whole = {path.name: path.read_bytes() for path in (tmp_path / "maps" / "screen").glob("*.png")}
    assert len(whole) == 24
    expected = np.stack(drawn)
    options = dataclasses.replace(options, output_dir=f"{tmp_path}/again")
    with pytest.raises(KeyboardInterrupt):
        predict_until(options, 13, interrupt)
    marks = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "again" / ".partial-screen").glob("*.png")}
    assert len(marks) == 13
    drawn.clear()
    with pytest.MonkeyPatch.context() as patch:  # it ends once more, when the overlay is there and the maps are not
        patch.setattr(map_folder, "sync", lambda _: interrupt())
        with pytest.raises(KeyboardInterrupt):
            predict.predict(options)
    np.testing.assert_array_equal(drawn, expected)
    assert (tmp_path / "again" / "screen.mp4").is_file() and not (tmp_path / "again" / "screen").exists()
    drawn.clear()
    predict.predict(options)
    np.testing.assert_array_equal(drawn, expected)
    found = {path.name: path for path in (tmp_path / "again" / "screen").glob("*.png")}
    assert {name: path.read_bytes() for name, path in found.items()} == whole
    times = [
        [frame.seconds for frame in videos.read_video(tmp_path / name / "screen.mp4")] for name in ("maps", "again")
    ]
    assert len(times[0]) == 24 and times[0] == times[1]
    kept = [name for name, mark in marks.items() if found[name].stat().st_mtime_ns == mark]
    assert len(kept) == (13 if threshold is None else 0)


@pytest.mark.slow
def test_the_crf_refines_with_its_flags_and_any_number_of_threads(work, whole, tmp_path):
    for number in (1, 3):
        finish(work, tmp_path / str(number), "--crf", "--crf_preset=dss", "--crf_bilateral_sxy=20",
               f"--crf_workers={number}")  # fmt: skip
    assert read_maps(tmp_path / "1") == read_maps(tmp_path / "3") != whole
    finish(work, tmp_path / "other", "--crf", "--crf_preset=dss")
    assert read_maps(tmp_path / "other") != read_maps(tmp_path / "1")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--crf", "--crf_bilateral_sxy=0"], "bilateral_sxy must be a positive number, got 0.0"),
        (["--crf_preset=dss"], "--crf_preset is for the CRF, which is off: give --crf too"),
    ],
)
def test_wrong_settings_of_the_crf_are_said_before_anything_is_written(tmp_path, arguments, message):
    (tmp_path / "frames" / "ball").mkdir(parents=True)
    (tmp_path / "frames" / "ball" / "0.png").write_bytes(images.encode_png(np.zeros((40, 60, 3), np.uint8)))
    process = start(tmp_path, tmp_path / "out", *arguments)
    errors = process.communicate(timeout=120)[1]
    assert process.returncode == 1 and not (tmp_path / "out").exists()
    assert errors.splitlines()[-1] == f"msst predict: {message}"


@pytest.mark.parametrize(
    "given, message",
    [
        ({"model_name": "mine"}, "--model_name is given, which is that of a model on a server: give --server too"),
        ({"timeout": 3.0}, "--timeout is given, which is that of a server's answer: give --server too"),
        ({"frame_quality": 90}, "--frame_quality is given, which is that of the frames for a server: give --server"),
        ({"crf_workers": 2}, "--crf_workers is given, which is for the CRF, which is off: give --crf too"),
        ({"port": 0}, "--port is given, which is that of a live video's page: give --live too"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        PredictOptions(input=("a",), **given)


def test_maps_of_a_file_wait_for_seven_after_them_unless_told_otherwise(monkeypatch):
    given = []
    monkeypatch.setattr(predict, "stream_maps", lambda *_, **how: given.append(how["look_ahead"]))
    sequence = SimpleNamespace(read_images=lambda: iter(()))
    for look_ahead in (None, 0, 3):
        predict._make_maps(PredictOptions(input=("a",), look_ahead=look_ahead), None, sequence, 0)
    assert given == [7, 0, 3]


def test_the_quality_of_frames_for_a_server_is_remembered_with_one_alone():
    model, sequence = SimpleNamespace(identify=lambda: "x"), SimpleNamespace(video_path=None, frame_paths=[])
    for server, expected in ((None, None), ("grpc://a:1", 95)):
        options = PredictOptions(input=("a",), server=server)
        assert predict._describe(options, model, sequence).get("frame_quality") == expected


def test_an_overlay_has_the_times_and_the_shape_of_its_video(work, tmp_path):
    times = [0, 0.04, 0.08, 0.5, 0.54, 3.0]
    video = write_video(tmp_path / "screen.mkv", pictures(6), 25, times, aspect=Fraction(2))
    predict.predict(make_options(work, tmp_path / "maps", input=(str(video),), overlay="auto"))
    overlay = tmp_path / "maps" / "screen.mp4"
    np.testing.assert_allclose([frame.seconds for frame in videos.read_video(overlay)], times, atol=0.001)
    assert videos.probe_video(overlay).sample_aspect == 2


def test_a_folder_of_videos_is_one_sentence(work, tmp_path):
    for name in ("one", "two"):
        write_video(tmp_path / "holiday.mp4", pictures(2)).rename(tmp_path / f"{name}.mp4")
    with pytest.raises(ValueError, match=r"holds videos, not frames \(one.mp4, 2 in all\); give the video files"):
        predict.predict(make_options(work, tmp_path / "maps", input=(str(tmp_path),)))
    assert not (tmp_path / "maps").exists()
