"""Every flagfile under configs/ has flags of `msst train` with values that they take."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

CONFIGS = Path(__file__).parents[1] / "configs"
# Section 4.1, and what stands for its silence (docs/paper.md).
PAPER = {
    "backbone": "vgg16", "weights": "imagenet", "motion_backbone": None, "motion_input": "prior", "decoder": "branches",
    "fusion": "linear", "output_stride": "16", "width": 1.0, "image_sizes": ((321, 321), (512, 512)), "num_frames": 4,
    "lstm_filters": 8, "lstm_kernel_size": 3, "learning_rate": 1e-3, "schedule": "constant", "warmup_steps": 0,
    "clip_norm": 0.0, "average_decay": 0.0, "backbone_factor": 1.0, "alpha": "balanced", "min_share": 0.0, "beta": 0.1,
    "region_weight": 0.0, "flip": False, "min_scale": 1.0, "color_jitter": 0.0, "missing_motion": 0.0, "batch_size": 1,
    "fine_weight": 1.0, "coarse_weight": 1.0,
}  # fmt: skip
STABLE = {"backbone_factor": 0.1, "warmup_steps": 100, "min_share": 0.01, "flip": True, "min_scale": 0.7}

PROGRAM = """
import sys
from absl import flags
import msst_keras.tools.train
for path in sys.argv[1:]:
    flags.FLAGS.unparse_flags()
    rest = flags.FLAGS(["train", "--records=x", "--run_dir=x", f"--flagfile={path}"])
    print(path, rest[1:], flags.FLAGS.variant, flags.FLAGS.coarse_weight)
"""

VALUES = """
import sys
from absl import flags
import msst_keras.tools.train as job
names = sys.argv[1].split(",")
for paths in sys.argv[2:]:
    flags.FLAGS.unparse_flags()
    flags.FLAGS(["train", "--records=x", "--run_dir=x", *[f"--flagfile={path}" for path in paths.split("+")]])
    print([flags.FLAGS[name].value for name in ("variant", *names)])
"""


def test_every_flagfile_is_one_of_train(tmp_path):
    paths = sorted(map(str, CONFIGS.rglob("*.cfg")))
    assert len(paths) >= 11
    found = subprocess.run([sys.executable, "-c", PROGRAM, *paths], capture_output=True, text=True, cwd=CONFIGS.parent)
    assert found.returncode == 0, found.stderr
    lines = found.stdout.splitlines()
    assert len(lines) == len(paths)
    for path, line in zip(paths, lines, strict=True):
        name = Path(path).stem
        variant = name.rpartition("_")[2] if "_" in name else name
        if variant in ("os", "st", "msst"):
            assert line.split()[1:3] == ["[]", variant]
        if name == "msst_without_coarse" and "ablate" not in path:
            assert line.endswith(" msst 0.0")
    bad = tmp_path / "bad.cfg"
    bad.write_text("--variant=both\n")
    refused = subprocess.run([sys.executable, "-c", PROGRAM, str(bad)], capture_output=True, text=True)
    assert refused.returncode != 0 and "both" in refused.stderr


def test_the_papers_files_have_the_papers_values():
    """And the stable one differs from them in what it says alone."""
    paths = [f"configs/paper_{variant}.cfg" for variant in ("os", "st", "msst")]
    paths.append(f"{paths[-1]}+configs/paper_stable.cfg")
    command = [sys.executable, "-c", VALUES, ",".join(PAPER), *paths]
    found = subprocess.run(command, capture_output=True, text=True, cwd=CONFIGS.parent)
    assert found.returncode == 0, found.stderr
    lines = [ast.literal_eval(line) for line in found.stdout.splitlines()]
    wanted = [("os", PAPER), ("st", PAPER), ("msst", PAPER), ("msst", PAPER | STABLE)]
    for (variant, *values), expected in zip(lines, wanted, strict=True):
        values = dict(zip(PAPER, values, strict=True))
        values["image_sizes"] = tuple(map(tuple, values["image_sizes"]))
        assert (variant, values) == expected
