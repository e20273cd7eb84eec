"""Every flagfile under configs/ has flags of `msst train` with values that they take."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CONFIGS = Path(__file__).parents[1] / "configs"

PROGRAM = """
import sys
from absl import flags
import msst_keras.tools.train
for path in sys.argv[1:]:
    flags.FLAGS.unparse_flags()
    rest = flags.FLAGS(["train", "--records=x", "--run_dir=x", f"--flagfile={path}"])
    print(path, rest[1:], flags.FLAGS.variant, flags.FLAGS.coarse_weight)
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
