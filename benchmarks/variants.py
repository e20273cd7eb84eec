"""What each part of the network is for, on generated videos: only motion tells the object, and the object halts.

  python benchmarks/variants.py --output=variants.json [--steps=500] [--seeds=0,1,2]

Two kinds of video of 64x96 with a still camera, one moving object and two or three distractors drawn like it that never
move. In "distractors" the object always moves: OS, which sees no motion, cannot tell it; ST can. In "halts" it stops
for 1 to 3 frames at a time, where no flow tells ST; MSST has seen the frames before. Training and test videos differ,
the prior is the exact flow's magnitude, networks are of an eighth of the paper's width from scratch, all with the same
number of steps. Printed are MAE, max F and S, protocol `paper`, mean and spread (standard deviation) over the seeds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path

from feeding import write_records

from msst_keras.evaluation.scores import HEADLINE
from msst_keras.jobs import train as jobs
from msst_keras.model.options import ModelOptions
from msst_keras.synthetic.scenes import SceneOptions
from msst_keras.training.options import (
    ClipOptions,
    DeviceOptions,
    OptimizerOptions,
    StepOptions,
    TrainingOptions,
    TrainOptions,
)

SIZE, BATCH = (64, 96), 8
STILL = {
    "num_objects": (1, 1), "num_distractors": (2, 3), "tiny_share": 0.0, "object_radius": (0.12, 0.2),
    "camera_speed": (0.0, 0.0), "camera_zoom": 0.0, "camera_rotation": 0.0, "follow_share": 0.0, "occluder_share": 0.0,
}  # fmt: skip
VIDEOS = {
    "distractors": (SceneOptions(**STILL, halt_frames=0), ("os", "st")),
    "halts": (SceneOptions(**STILL, halt_frames=3, halt_rate=0.3), ("st", "msst")),
}


def train(variant: str, folders: dict[str, str], run_dir: Path, steps: int, width: float, seed: int) -> dict:
    """Trains a variant on the folder "train" and scores it on "test": what `msst train` gives."""
    return jobs.train(TrainOptions(
        records=(folders["train"],),
        val_records=(folders["test"],),
        run_dir=str(run_dir),
        seed=seed,
        model=ModelOptions(variant, weights="none", output_stride=8, width=width),
        clips=ClipOptions((SIZE,), BATCH),
        training=TrainingOptions(
            steps,
            StepOptions(region_weight=1),
            OptimizerOptions(2e-3, "cosine", warmup_steps=20, clip_norm=1),
            checkpoint_every=100,
        ),
        devices=DeviceOptions("float32"),
    ))  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, help="JSON; what it holds is not trained again")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--width", type=float, default=0.125)
    parser.add_argument("--seeds", default="0,1,2")
    arguments = parser.parse_args()
    output = Path(arguments.output)
    results = json.loads(output.read_text()) if output.is_file() else {}
    seeds = arguments.seeds.split(",")
    with tempfile.TemporaryDirectory() as temporary:
        for seed in seeds:
            for video, (options, variants) in VIDEOS.items():
                folders = {part: f"{temporary}/{video}_{part}" for part in ("train", "test")}
                if not Path(folders["test"]).exists():
                    write_records(Path(folders["train"]), 40, 12, SIZE, options)
                    write_records(Path(folders["test"]), 20, 12, SIZE, options, first_seed=1000)
                for variant in variants:
                    key = f"{video} {variant} {seed} {arguments.steps} {arguments.width:g}"
                    if key not in results:
                        run_dir = Path(temporary) / key
                        result = train(variant, folders, run_dir, arguments.steps, arguments.width, int(seed))
                        results[key] = {name: result[name] for name in HEADLINE}
                        output.write_text(json.dumps(results, indent=1) + "\n")
                        print(key, results[key], flush=True)
    for video, (_, variants) in VIDEOS.items():
        for variant in variants:
            rows = [results[f"{video} {variant} {seed} {arguments.steps} {arguments.width:g}"] for seed in seeds]
            columns = [[row[name] for row in rows] for name in HEADLINE]
            cells = [f"{statistics.mean(c):.3f} +- {statistics.stdev(c) if len(c) > 1 else 0:.3f}" for c in columns]
            print(f"| {video} | {variant} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
