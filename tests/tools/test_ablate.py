"""`msst ablate`: killed and interrupted it goes on, seeds are averaged, and a plan is not changed under way."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest

from msst_keras.data.sequences import FileSequence
from msst_keras.evaluation.report import write_results
from msst_keras.jobs import ablate as ablate_job
from msst_keras.jobs.ablate import _plan_runs, _refine_maps, _result_paths, _run_stages, ablate, share_precision
from msst_keras.jobs.options import AblateOptions
from msst_keras.synthetic import videos

SMALL = "--width=0.0625 --weights=none --image_sizes=64x96 --output_stride=8 --precision=float32 --batch_size=2"


def start(folder, *arguments):
    command = [sys.executable, "-m", "msst_keras", "ablate", f"--output_dir={folder}/out", *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder, start_new_session=True
    )


def finish(folder, *arguments):
    process = start(folder, *arguments)
    output, errors = process.communicate(timeout=900)
    return process.returncode, output, errors


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two configs, the second starting from the first, and a dataset."""
    folder = tmp_path_factory.mktemp("ablate")
    videos.write_davis(folder / "davis", 4, 5, (64, 96), seed=0, num_val=2)
    (folder / "os.cfg").write_text("# alone\n--variant=os\n--steps=30\n--checkpoint_every=5\n")
    (folder / "st.cfg").write_text("--variant=st\n--init_from=os\n--steps=2\n")
    return folder


def wait_for(folder, pattern, process):
    """Until a path below folder matches pattern."""
    deadline = time.monotonic() + 300
    while not any(folder.glob(pattern)) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert any(folder.glob(pattern)), process.communicate()


@pytest.mark.slow
def test_killed_and_interrupted_it_ends_with_a_table_figures_and_a_report(folder):
    records = folder / "records"
    command = [sys.executable, "-m", "msst_keras", "make_records", "--dataset=davis", f"--root={folder}/davis"]
    subprocess.run([*command, "--split=train", f"--output_dir={records}", "--motion_size=64x96"], check=True)
    arguments = [
        "--configs=os.cfg,st.cfg", f"--train_args=--records={records} {SMALL}", "--seeds=0,1", "--crf=st",
        "--refine_args=--crf_preset=dss", "--ground_truth=davis", "--split=val",
    ]  # fmt: skip
    out = folder / "out"

    # A signal as of a machine that is to shut down: the training saves itself, and its status is passed on.
    process = start(folder, *arguments)
    wait_for(out, "runs/os-0/checkpoints/ckpt-*.index", process)
    process.terminate()
    assert process.communicate(timeout=120) and process.returncode == 75
    assert not (out / "runs/os-0/result.json").exists()

    # Everything killed at once.
    process = start(folder, *arguments)
    wait_for(out, "maps/os-0/generated_002", process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    kept = out / "runs/os-0/result.json"
    before = kept.stat().st_mtime_ns

    status, output, errors = finish(folder, *arguments)
    assert status == 0, errors
    assert kept.stat().st_mtime_ns == before and f"--run_dir={out}/runs/os-0" not in output
    assert f"--init_from={out}/runs/os-1" in (out / "runs/st-1/flags.txt").read_text()
    assert [json.loads(line)["step"] for line in (out / "runs/os-0/log.jsonl").read_text().splitlines()] == [*range(30)]

    with open(out / "ablation.csv", newline="") as file:
        rows = {row["variant"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["os", "st", "st_crf"] and {row["num_seeds"] for row in rows.values()} == {"2"}
    results = out / "results" / "st-1_crf"
    values = [json.loads((results / f"metrics-st-{seed}.json").read_text())["mae"] for seed in (0, 1)]
    assert values[0] != values[1]
    assert float(rows["st"]["mae"]) == statistics.mean(values)
    assert float(rows["st"]["mae_spread"]) == statistics.stdev(values)
    assert json.loads((results / "metrics.json").read_text())["num_frames"] == 10
    assert "report.html" in {path.name for path in results.iterdir()}
    for name in ("precision_recall", "scores"):
        assert cv2.imread(str(out / f"{name}.png")).std() > 10 and (out / f"{name}.svg").stat().st_size > 1000
    assert "st_crf" in output.splitlines()[-3]

    # Once more: only the evaluation is asked, which knows that all is scored already; the table is the same.
    status, again, errors = finish(folder, *arguments)
    assert status == 0 and re.findall(r"^\$ msst (\w+)", again, re.MULTILINE) == ["evaluate"]
    assert f"{out}/results/st-1_crf: there already\n" in again
    assert again.splitlines()[-8:] == output.splitlines()[-8:]
    # Other flags are another ablation.
    status, _, errors = finish(folder, *arguments, f"--train_args=--records={records} {SMALL} --alpha=0.3")
    assert status == 1 and "out was begun with other flags for the run os-0 (" in errors.splitlines()[-1]
    status, _, errors = finish(folder, *arguments, "--protocol=davis16")
    assert status == 1 and "was begun with protocol paper; choose another --output_dir" in errors.splitlines()[-1]


def test_what_a_command_cannot_mean_is_said_at_once(folder, tmp_path):
    (tmp_path / "os.cfg").write_text("--variant=os\n")
    for arguments, message in (
        ([f"--configs=os.cfg,{tmp_path}/os.cfg"], "--configs has two files of one name (os, os)"),
        (["--configs=os.cfg,gone.cfg"], "gone.cfg: no such config; it is a flagfile of `msst train`"),
        (["--configs=os.cfg,st.cfg", "--crf=msst"], "--crf names msst; the configs are os, st"),
        (["--configs=os.cfg", "--protocol=mine"], "--protocol must be one of paper, "),
        (["--configs=os.cfg", "--split=val", "--sequences=dog"], "no sequence dog in split val"),
    ):
        status, output, errors = finish(folder, "--ground_truth=davis", f"--output_dir={tmp_path}/out", *arguments)
        assert (status, output) == (1, ""), errors
        assert message in errors.splitlines()[-1] and "Traceback" not in errors
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "names, message",
    [
        (("os", "a:b"), "a method must have a name of letters, .* not 'a:b'; rename it"),
        (("..",), "not '..'; rename it"),
        (("x" * 100,), "at most 100 bytes long, not 'xxx"),  # with _crf it is longer
        (("a b", "a-b"), "methods must have different names, but 'a-b' is there already"),
        (("os", "os_crf"), "methods must have different names, but 'os_crf' is there already"),
        (("all black",), "methods must have different names, but 'all black' is there already"),
    ],
)
def test_names_that_would_be_refused_after_training_are_refused_before_it(tmp_path, names, message):
    options = AblateOptions(
        configs=tuple(f"{name}.cfg" for name in names), ground_truth="davis", output_dir=str(tmp_path / "out")
    )
    with pytest.raises(ValueError, match=message):
        ablate(options, {name: [] for name in names})
    assert not (tmp_path / "out").exists()


def test_results_are_looked_for_where_the_evaluation_writes_them(tmp_path):
    names = ["os, small", "st (2) [b]", "own run"]
    paths = _result_paths(tmp_path, names)
    for name in names:
        write_results({"sequences": {}}, tmp_path / "results" / "own run", "" if name == "own run" else name)
        assert paths[name].is_file()


def test_a_job_that_fails_ends_it_with_its_status(folder, tmp_path):
    (tmp_path / "bad.cfg").write_text("--variant=gan\n")
    arguments = [f"--configs={tmp_path}/bad.cfg", "--ground_truth=davis", f"--output_dir={tmp_path}/out"]
    status, output, errors = finish(folder, *arguments)
    assert status == 2 and output.splitlines()[-1].startswith("$ msst train --variant=gan --seed=0 --run_dir=")
    assert errors.splitlines()[-1].startswith("msst train: ") and "gan" in errors.splitlines()[-1]
    (tmp_path / "bad.cfg").write_text("--variant=dcgan\n")  # nothing was made yet: the plan may change
    assert "$ msst train --variant=dcgan" in finish(folder, *arguments)[1]


def test_means_and_spreads_by_hand():
    program = """
from msst_keras.evaluation.seeds import mean_and_spread, mean_result
assert mean_and_spread([0.25, 0.5, 0.75]) == (0.5, 0.25)
assert mean_and_spread([0.25]) == (0.25, None) and mean_and_spread([None, None]) == (None, None)
results = [{"protocol": "paper", "num_frames": 7, "mae": mae, "j_mean": None, "recall": [1.0, mae], "e_curve": [None],
            "sequences": {}} for mae in (0.25, 0.75)]
assert mean_result(results) == {
    "protocol": "paper", "num_frames": 7, "mae": 0.5, "j_mean": None, "recall": [1.0, 0.5], "e_curve": [None]}
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_flags_of_a_config_come_behind_those_of_all_runs_and_so_win():
    options = AblateOptions(
        configs=("os.cfg", "st.cfg"), train_args="--steps=2 --alpha=0.3", ground_truth="davis", output_dir="out",
        seeds=("4", "5"),
    )  # fmt: skip
    runs = _plan_runs(options, {"os": ["--steps=30"], "st": ["--init_from=os", "--steps=40"]})
    assert {variant: list(members) for variant, members in runs.items()} == {
        "os": ["os-4", "os-5"], "st": ["st-4", "st-5"]
    }  # fmt: skip
    for variant, steps in (("os", "30"), ("st", "40")):
        for name, arguments in runs[variant].items():
            flags = dict(argument.split("=", 1) for argument in arguments)  # as of absl, the last one counts
            assert (flags["--steps"], flags["--alpha"], flags["--seed"]) == (steps, "0.3", name[-1])
    assert "--init_from=out/runs/os-5" in runs["st"]["st-5"]


def test_sequences_of_two_folders_cannot_be_refined_at_once(tmp_path):
    for split in ("Trainingset", "Testset"):
        folder = tmp_path / split / split.lower()
        (folder / "GroundTruth").mkdir(parents=True)
        for name in ("a_0001.jpg", "GroundTruth/a_0001_gt.png"):
            cv2.imwrite(str(folder / name), np.zeros((8, 8, 3), np.uint8))
    options = AblateOptions(
        configs=("os.cfg",), crf=("os",), ground_truth=str(tmp_path), layout="fbms", output_dir=str(tmp_path / "out")
    )
    with pytest.raises(ValueError, match=r"lie in several folders of .*give --split=train or --split=val"):
        ablate(options, {"os": []})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("train_args", "found"),
    [
        ([], ["--precision=mixed_bfloat16"]),
        (["--steps=2", "--precision=float32", "--precision=auto"], ["--precision=mixed_bfloat16"]),
        (["--precision=auto", "--precision=float32"], []),
        (["--precision", "float32"], []),
        (["--precision", "auto", "--seed=1"], ["--precision=mixed_bfloat16"]),
    ],
)
def test_runs_that_measure_their_precision_take_that_of_the_first(tmp_path, train_args, found):
    (tmp_path / "os-0").mkdir()
    (tmp_path / "os-0" / "run.json").write_text('{"precision": "mixed_bfloat16"}')
    assert share_precision(tmp_path / "os-0", tmp_path / "os-1", train_args) == found


def write_run_begun_with(run_dir, flag, precision):
    """A run.json as `msst train --precision=FLAG` writes it; without a flag, one from before flags were kept."""
    run_dir.mkdir()
    training = {"training": {"seed": 0, "precision": flag}} if flag else {}
    (run_dir / "run.json").write_text(json.dumps({"model": {}, **training, "precision": precision}))


@pytest.mark.parametrize(
    ("flag", "train_args", "found"),
    [
        ("float32", [], ["--precision=float32"]),
        ("float32", ["--precision=auto"], ["--precision=float32"]),
        ("float32", ["--precision=float32"], []),
        ("auto", [], []),
        (None, [], []),
    ],
)
def test_a_run_that_was_begun_keeps_its_precision(tmp_path, flag, train_args, found):
    """It goes on with the flag that it was begun with, whichever run comes first by now."""
    write_run_begun_with(tmp_path / "os-0", "auto", "mixed_bfloat16")
    write_run_begun_with(tmp_path / "os-1", flag, "float32")
    for first in ("os-0", "os-1"):
        assert share_precision(tmp_path / first, tmp_path / "os-1", train_args) == found


def test_the_first_run_measures_its_precision(tmp_path):
    assert share_precision(tmp_path / "os-0", tmp_path / "os-0", ["--seed=0"]) == []


def test_a_second_run_that_was_interrupted_goes_on(tmp_path, monkeypatch):
    """Its flags are the same when it is begun and when it goes on; nothing is added to those of the first."""
    asked = []

    def begin(out, name, train_args, sequences):
        """Begins a run as `msst train` does, and ends as if a signal had come if it is the second one."""
        flags = dict(argument.split("=", 1) for argument in train_args)
        asked.append((name, flags.get("--precision")))
        if not (out / "runs" / name).exists():
            write_run_begun_with(out / "runs" / name, flags.get("--precision", "auto"), "float32")
        return 75 if name == "st" else 0

    monkeypatch.setattr(ablate_job, "_make_maps", begin)
    (tmp_path / "runs").mkdir()
    options = AblateOptions(configs=("os.cfg", "st.cfg"), ground_truth="davis", output_dir=str(tmp_path))
    for _ in range(2):
        assert _run_stages(options, {"os": {"os": ["--seed=0"]}, "st": {"st": ["--seed=0"]}}, []) == 75
    assert asked == [("os", None), ("st", "float32")] * 2


def test_empty_files_are_no_refined_maps(tmp_path, monkeypatch):
    """A power cut leaves some; `msst refine` makes those again, so it has to be asked."""
    asked = []
    monkeypatch.setattr(ablate_job, "run_job", lambda *command: asked.append(command) or 0)
    options = AblateOptions(configs=("os.cfg",), ground_truth=str(tmp_path), output_dir=str(tmp_path / "out"))
    frames = tuple(tmp_path / f"JPEGImages/a/{index:05d}.jpg" for index in range(2))
    for content, times in ((b"", 1), (b"png", 1)):
        for frame in frames:
            path = tmp_path / "out/maps/os_crf/a" / frame.with_suffix(".png").name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"png" if frame == frames[0] else content)
        assert _refine_maps(options, "os", [FileSequence("a", frames)]) == 0
        assert len(asked) == times and asked[0][0] == "refine"
