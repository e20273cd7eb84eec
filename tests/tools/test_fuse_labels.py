"""`msst fuse_labels` as a user runs it."""

from __future__ import annotations

import json
import shutil

import cv2
import numpy as np
import pytest
from forked import msst

from msst_keras.jobs import fuse_labels as job
from msst_keras.labels import label_files
from msst_keras.labels.options import FuseLabelsOptions
from msst_keras.records.manifest import read_manifest

SIZE = (48, 64)


def fuse_labels(*flags):
    return msst("fuse_labels", *flags)


@pytest.fixture
def frames(tmp_path):
    random = np.random.default_rng(0)
    texture = cv2.GaussianBlur(random.integers(0, 256, (*SIZE, 3)).astype(np.uint8), (0, 0), 1)
    (tmp_path / "frames" / "boat").mkdir(parents=True)
    for index in range(3):
        frame = texture.copy()
        frame[12:28, 8 + 3 * index : 24 + 3 * index] = 255 - texture[:16, :16]
        cv2.imwrite(str(tmp_path / "frames" / "boat" / f"{index:05d}.png"), frame)
    mask = np.zeros(SIZE, bool)
    mask[12:28, 11:27] = True
    label_files.write_label(tmp_path / "masks" / "boat" / "00001.png", mask)
    return tmp_path


def test_built_in_sources_on_a_fresh_machine_then_other_maps(frames):
    common = (f"--root={frames}/frames", f"--ground_truth={frames}/masks")
    result = fuse_labels(*common, f"--output_dir={frames}/out")
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].startswith("weights, fitted on 1 masks: flow_magnitude ") and "spectral_residual" in lines[0]
    assert lines[1].startswith("mean IoU with these masks: flow_magnitude ") and "plain mean" in lines[1]
    assert lines[2] == f"{frames}/out/labels: 2 coarse labels"
    assert sorted(path.name for path in (frames / "out/labels/boat").iterdir()) == ["00000.png", "00002.png"]
    maps = f"flow:{frames}/out/sources/flow_magnitude"
    result = fuse_labels(f"--root={frames}/frames", f"--maps={maps}", f"--output_dir={frames}/other")
    assert result.stdout.splitlines()[0] == "weights, equal, since no frame has a mask: flow 1.000"
    again = fuse_labels(*common, f"--output_dir={frames}/out")
    assert again.returncode == 1 and "labels are here already" in again.stderr and "Traceback" not in again.stderr


def test_maps_that_an_interrupted_run_left_are_those_of_its_input(frames, capsys):
    options = FuseLabelsOptions(root=f"{frames}/frames", sources=("spectral_residual",), output_dir=f"{frames}/out")
    job.fuse_labels(options)
    labels = {path.name: path.read_bytes() for path in (frames / "out/labels/boat").iterdir()}
    shutil.rmtree(frames / "out/labels")  # as if it had been interrupted before these
    job.fuse_labels(options)
    assert {path.name: path.read_bytes() for path in (frames / "out/labels/boat").iterdir()} == labels
    shutil.rmtree(frames / "out/labels")
    shutil.copy(frames / "frames/boat/00000.png", frames / "frames/boat/00001.png")
    with pytest.raises(ValueError, match="out holds maps that were made from something else: another input; choose"):
        job.fuse_labels(options)
    (frames / "out/.msst.json").unlink()
    with pytest.raises(ValueError, match=r"out holds files that `msst fuse_labels` did not write \(sources\); choose"):
        job.fuse_labels(options)


def make_records(*flags):
    return msst("make_records", "--dataset=folder", "--num_workers=1", *flags)


def test_records_are_made_of_coarse_labels_and_of_other_peoples_priors(frames):
    for index in range(3):
        label_files.write_label(frames / "labels" / "boat" / f"{index:05d}.png", np.tri(*SIZE).astype(bool))
    common = (f"--root={frames}/frames", f"--output_dir={frames}/records", f"--coarse_labels={frames}/labels")
    result = make_records(*common, f"--prior_dir={frames}/labels")
    assert result.returncode == 0, result.stderr
    manifest = read_manifest(frames / "records")
    assert manifest["sequences"]["boat"]["labelled"] == {"0": "coarse", "1": "coarse", "2": "coarse"}
    assert manifest["motion"]["prior"] == {"kind": "files"}
    result = make_records(*common, f"--prior_dir={frames}/labels", "--prior=magnitude")
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == (
        "msst make_records: --prior and --prior_dir are two priors; give one of them"
    )
    (frames / "run").mkdir()
    run = {"model": {}, "motion": manifest["motion"], "image_size": [64, 64]}
    (frames / "run" / "run.json").write_text(json.dumps(run))
    result = msst("export", f"--run_dir={frames}/run", f"--output_dir={frames}/model")
    assert (
        result.returncode == 1
        and "its motion prior came from files (--prior_dir), which no model makes" in result.stderr
    )


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--maps=dcl"], "--maps takes NAME:DIR,NAME:DIR with each name once, not 'dcl'"),
        (["--maps=a:x,a:y"], "--maps takes NAME:DIR,NAME:DIR with each name once, not 'a:y'"),
        (["--maps=fused:x"], "--maps: 'fused' is what a combination of the methods is called; name this one otherwise"),
        (["--maps=a:y,plain mean:x"], "--maps: 'plain mean' is what a combination of the methods is called; name"),
        (["--sources=fine_grained", "--model=m"], "--model is for the source 'model', which --sources leaves out"),
        (["--sources=magic"], "a source must be one of flow_magnitude, spectral_residual, fine_grained, model"),
        (["--maps=model:x", "--model=m"], "two methods are called model"),
        (["--model=nowhere"], "nowhere: no such model folder"),
    ],
)
def test_wrong_flags_are_one_sentence(tmp_path, flags, message):
    result = fuse_labels(f"--root={tmp_path}", f"--output_dir={tmp_path}/out", *flags)
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert message in result.stderr.splitlines()[-1] and not (tmp_path / "out").exists()
