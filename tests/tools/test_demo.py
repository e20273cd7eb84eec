"""The whole job end to end, as the demo runs it: few videos, few steps, every part real."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
import tensorflow as tf

SEQUENCES = ("generated_004", "generated_005")


def run_demo(folder):
    command = [sys.executable, "-m", "msst_keras", "demo", f"--output_dir={folder}"]
    command += ["--num_videos=6", "--num_val=2", "--steps=2", "--prior_steps=2"]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    result = run_demo(folder)
    assert result.returncode == 0, result.stderr
    return folder, result.stdout


def test_every_frame_gets_a_map_of_its_size_and_name(demo):
    for sequence in SEQUENCES:
        frames = sorted((demo[0] / "videos/JPEGImages/480p" / sequence).iterdir())
        maps = sorted((demo[0] / "maps/msst" / sequence).glob("*.png"))
        assert [path.stem for path in maps] == [path.stem for path in frames] and len(maps) == 10
        for frame, saliency in zip(frames, maps, strict=True):
            image = cv2.imread(str(saliency), cv2.IMREAD_UNCHANGED)
            assert image.dtype == "uint8" and image.shape == cv2.imread(str(frame)).shape[:2]


def test_the_run_directory_tells_what_was_done(demo):
    run_dir = demo[0] / "run"
    assert [json.loads(line)["step"] for line in (run_dir / "log.jsonl").read_text().splitlines()] == [0, 1]
    assert "--region_weight=1.0" in (run_dir / "flags.txt").read_text()
    result = json.loads((run_dir / "result.json").read_text())
    assert result["steps"] == 2 and 0 < result["mae"] < 1
    events = [event for path in run_dir.glob("events*") for event in tf.compat.v1.train.summary_iterator(str(path))]
    tags = {value.tag for event in events for value in event.summary.value}
    assert {"loss", "loss_recurrent", "gradient_norm", "validation/mae"} <= tags
    assert any(tag.startswith("frame, prior, O^T, saliency, mask") for tag in tags)


def test_the_methods_are_scored_on_the_held_out_videos(demo):
    results = {}
    for method in ("", "-all-black", "-flow-magnitude"):
        metrics = json.loads((demo[0] / f"results/metrics{method}.json").read_text())
        assert metrics["num_frames"] == 20 and tuple(metrics["sequences"]) == SEQUENCES
        assert metrics["protocol"] == "paper" and len(metrics["precision"]) == 256
        results[method] = metrics["max_f"]
    assert results["-all-black"] < 0.3 < 0.4 < results["-flow-magnitude"]


def test_its_last_lines_say_where_the_pictures_are_and_what_the_numbers_were(demo):
    lines = demo[1].strip().splitlines()[-5:]
    names = ("Report:", "Pictures:", "msst ", "flow magnitude ", "all black ")
    assert all(line.startswith(name) for line, name in zip(lines, names, strict=True))
    assert "msst" in Path(lines[0].split()[1]).read_text()
    pictures = [word.rstrip(",") for word in lines[1].split() if word.startswith("/")]
    assert len(pictures) == 3 and all(Path(path).exists() for path in pictures)
    video = cv2.VideoCapture(pictures[1])
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 10


def test_started_again_it_has_nothing_to_do(demo):
    before = {path: path.stat().st_mtime_ns for path in (demo[0] / "maps").rglob("*0*.png") if "msst" in path.parts}
    before[demo[0] / "prior.keras"] = (demo[0] / "prior.keras").stat().st_mtime_ns
    result = run_demo(demo[0])
    assert result.returncode == 0, result.stderr
    assert {path: path.stat().st_mtime_ns for path in before} == before
