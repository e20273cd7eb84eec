"""A disk that gets full while a job writes: one sentence that names the file, and nothing half-written has a name.

A limit on the size of files stands for the full disk, which needs no rights: a file that grows beyond it fails as on
one, but for the reason that the system gives.
"""

from __future__ import annotations

import resource
import subprocess
import sys

import numpy as np
import pytest

from msst_keras.data import images
from msst_keras.synthetic import videos

pytestmark = pytest.mark.slow
SIZE = (64, 96)
NETWORK = ("--width=0.0625", "--weights=none")
TRAIN = (*NETWORK, "--variant=os", "--steps=2", "--image_sizes=64x96", "--precision=float32")


def msst(*arguments, limit=None):
    """Runs a job, no file of which may be longer than `limit` bytes."""

    def set_limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    command = [sys.executable, "-m", "msst_keras", *map(str, arguments)]
    options = {"preexec_fn": set_limit} if limit else {}
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, **options)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A dataset with maps, records of it, and a run."""
    folder = tmp_path_factory.mktemp("made")
    videos.write_davis(folder / "davis", 2, 4, SIZE, seed=0)
    for frame in sorted((folder / "davis/JPEGImages/480p").glob("*/*")):
        images.write_map(folder / "maps" / frame.parent.name / f"{frame.stem}.png", np.eye(*SIZE))
    davis = ("--dataset=davis", f"--root={folder}/davis", f"--output_dir={folder}/records", "--motion_size=64x96")
    for command in (
        ("make_records", *davis, "--store_flow"),
        ("train", f"--records={folder}/records", f"--run_dir={folder}/run", *TRAIN),
    ):
        result = msst(*command)
        assert result.returncode == 0, result.stderr
    return folder


MASKS, FRAMES, RECORDS = "{made}/davis", "{made}/davis/JPEGImages/480p", "{made}/records"
# Job -> (the largest file in bytes, what the sentence names, what may not be there afterwards, what the job is given).
JOBS = {
    "predict": (
        300, "/maps/.partial-generated_000/", "maps/generated_000",
        (f"--input={FRAMES}/generated_000", "--output_dir={out}/maps"),
    ),
    "refine": (
        300, "/refined/", "refined/generated_000/00000.png",
        ("--maps={made}/maps", f"--frames={FRAMES}", "--output_dir={out}/refined"),
    ),
    "evaluate": (
        300, "/scores/", "scores/metrics.json",
        ("--predictions={made}/maps", f"--ground_truth={MASKS}", "--output_dir={out}/scores"),
    ),
    "make_records": (
        3000, "/records/", "records/manifest.json",
        ("--dataset=davis", f"--root={MASKS}", "--output_dir={out}/records"),
    ),
    "train_prior": (
        3000, "/", "prior.keras",
        (f"--records={RECORDS}", "--output={out}/prior.keras", "--steps=2", "--num_levels=1", *NETWORK),
    ),
    "train": (3000, "/run", "run/result.json", (f"--records={RECORDS}", "--run_dir={out}/run", *TRAIN)),
    "export": (3000, "/model/1", "model/1", ("--run_dir={made}/run", "--output_dir={out}/model")),
    "inspect_records": (3000, "/sheet.png", "sheet.png", (f"--records={RECORDS}", "--output={out}/sheet.png")),
    "fuse_labels": (
        100, "/fused/", "fused/labels", (f"--root={FRAMES}", "--maps=mine:{made}/maps", "--output_dir={out}/fused"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("job", JOBS)
def test_one_sentence_names_the_file(made, tmp_path, job):
    limit, named, unmade, arguments = JOBS[job]
    result = msst(job, *(argument.format(made=made, out=tmp_path) for argument in arguments), limit=limit)
    last = result.stderr.splitlines()[-1]
    assert result.returncode == 1 and "Traceback" not in result.stderr, result.stderr
    assert last.startswith(f"msst {job}: ") and f"{tmp_path}{named}" in last, last
    assert not (tmp_path / unmade).exists()
