"""Do coarse labels help? The paper's Fig. 8: fine labels alone against fine and coarse ones, for the same steps.

  python benchmarks/coarse_labels.py --output_dir=fig8 --generated=72 --steps=600 --seeds=0,1,2
  python benchmarks/coarse_labels.py --output_dir=fig8_real --fine=segtrackv2:SEGTRACKV2,fbms:FBMS \\
         --coarse=DAVIS_TRAIN --test=DAVIS --steps=2000 --seeds=0,1,2 --backbone=mobilenetv2 --weights=FILE

Generated videos: a third is for the motion prior alone, a third has fine labels, a third gets coarse ones from `msst
fuse_labels` (flow magnitude and image methods, weights fitted on the fine third), not reviewed; an eighth more is to
test on. Real data: the masks of --fine are fine; those of --coarse, a DAVIS tree, are somebody's coarse labels, and the
first --num_prior of its sequences are for the prior alone. So neither arm's prior has seen a frame that it is given for
in training (out of fold), and both arms have the same prior, the same steps and the same seeds; they differ in
--coarse_weight. Run by `msst ablate`, of which the folder `ablation` has maps, tables and figures. SIGTERM ends it at
any time (a training saves itself), and the same command goes on.
"""

from __future__ import annotations

import argparse
import csv
import shlex
import shutil
import sys
from pathlib import Path

from msst_keras.data import datasets
from msst_keras.files import publish
from msst_keras.labels import fusion, label_files
from msst_keras.processes import run_job
from msst_keras.synthetic import videos

CONFIGS = Path(__file__).parent.parent / "configs" / "ablate"
SCORES = ("mae", "max_f", "s_measure")


def main():
    """Makes the data, the prior and the records, trains and tests, prints the table."""
    options = read_arguments()
    out = options.output_dir
    if options.generated:
        prior_data, fine, coarse, test = make_generated(options)
    else:
        prior_data, fine, coarse, test = find_real(options)
    motion = f"--motion_size={options.motion_size}"
    flow = out / "records" / "prior"
    run(
        flow / "manifest.json",
        "make_records",
        *prior_data,
        motion,
        f"--output_dir={flow}",
        "--prior=none",
        "--store_flow",
    )
    prior = out / "prior.keras"
    network = [f"--backbone={options.backbone}", f"--weights={options.weights}", f"--width={options.width}"]
    run(prior, "train_prior", f"--records={flow}", f"--output={prior}", *network, f"--steps={options.prior_steps}",
        "--max_regions=256")  # fmt: skip
    folders = []
    for number, source in enumerate((*fine, *coarse)):
        folders.append(out / "records" / str(number))
        arguments = [*source, f"--output_dir={folders[-1]}", f"--prior={prior}"]
        run(folders[-1] / "manifest.json", "make_records", *arguments)
    train = [
        f"--records={','.join(map(str, folders))}", f"--prior={prior}", *network, f"--steps={options.steps}",
        f"--image_sizes={options.image_size}", f"--batch_size={options.batch_size}", "--output_stride=8",
        "--region_weight=1", *shlex.split(options.train_args),
    ]  # fmt: skip
    configs = ",".join(str(CONFIGS / f"{name}.cfg") for name in ("msst_without_coarse", "msst"))
    run(None, "ablate", f"--configs={configs}", f"--train_args={shlex.join(train)}", f"--seeds={options.seeds}", *test,
        f"--output_dir={out}/ablation")  # fmt: skip
    print_table(out / "ablation" / "ablation.csv")


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--generated", type=int, help="number of generated videos")
    parser.add_argument("--fine", help="LAYOUT:ROOT,... of sequences with fine masks")
    parser.add_argument("--coarse", type=Path, help="DAVIS tree whose masks are coarse labels")
    parser.add_argument("--test", type=Path, help="DAVIS tree to test on")
    parser.add_argument("--num_prior", type=int, default=9, help="sequences of --coarse for the prior alone")
    for name, default in (
        ("image_size", "128x192"), ("motion_size", "96x144"), ("backbone", "vgg16"), ("weights", "none"),
        ("width", "0.125"), ("seeds", "0,1,2"), ("train_args", ""),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", default=default)
    for name, default in (("steps", 600), ("prior_steps", 300), ("batch_size", 4)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    if not options.generated and not (options.fine and options.coarse and options.test):
        parser.error("give --generated=N, or --fine, --coarse and --test")
    return options


def make_generated(options: argparse.Namespace):
    """Generated videos and their coarse labels: flags of `make_records` for each part, of `ablate` for the test."""
    out, count = options.output_dir, options.generated
    data, size = out / "videos", tuple(map(int, options.image_size.split("x")))
    if not data.exists():
        with publish(data) as folder:
            videos.write_davis(folder, count + count // 8, 10, size, seed=0, num_val=max(count // 8, 1))
    names = [sequence.name for sequence in datasets.find_sequences("davis", data, "train")]
    parts = [names[number * len(names) // 3 : (number + 1) * len(names) // 3] for number in range(3)]
    masks = data / "Annotations" / "480p"
    fine_masks = out / "fine_masks"
    if not fine_masks.exists():
        with publish(fine_masks) as folder:
            for name in parts[1]:
                shutil.copytree(masks / name, folder / name)
    frames = data / "JPEGImages" / "480p"
    run(out / "coarse" / "labels", "fuse_labels", "--dataset=folder", f"--root={frames}", f"--output_dir={out}/coarse",
        f"--sequences={','.join(parts[1] + parts[2])}", f"--ground_truth={fine_masks}",
        "--sources=flow_magnitude,spectral_residual,fine_grained")  # fmt: skip
    quality = []
    for path in sorted((out / "coarse" / "labels").glob("*/*.png")):
        truth = label_files.read_label(masks / path.parent.name / path.name)
        quality.append(fusion.intersection_over_union(label_files.read_label(path), truth))
    print(f"coarse labels: {len(quality)}, mean IoU with the truth {sum(quality) / len(quality):.3f}")
    davis, sequences = ["--dataset=davis", f"--root={data}"], [f"--sequences={','.join(part)}" for part in parts]
    coarse = ["--dataset=folder", f"--root={frames}", sequences[2], f"--coarse_labels={out}/coarse/labels"]
    test = [f"--ground_truth={data}", "--split=val"]
    return [*davis, sequences[0]], [[*davis, sequences[1]]], [coarse], test


def find_real(options: argparse.Namespace):
    """The same of real data."""
    names = [sequence.name for sequence in datasets.find_sequences("davis", options.coarse)]
    davis = ["--dataset=davis", f"--root={options.coarse}", "--label_kind=coarse"]
    prior_data = [*davis, f"--sequences={','.join(names[: options.num_prior])}"]
    coarse = [*davis, f"--sequences={','.join(names[options.num_prior :])}"]
    fine = []
    for text in options.fine.split(","):
        layout, _, root = text.partition(":")
        fine.append([f"--dataset={layout}", f"--root={root}"])
    return prior_data, fine, [coarse], [f"--ground_truth={options.test}"]


def run(done: Path | None, job: str, *arguments: str) -> None:
    """Runs `msst JOB ...` unless the file `done` is there; ends with its exit status if that is not 0."""
    if (done is None or not done.exists()) and (status := run_job(job, *arguments)):
        sys.exit(status)


def print_table(path: Path) -> None:
    """Mean and spread (standard deviation over the seeds) of both arms."""
    print("\n| labels | MAE | max F | S |\n|---|---|---|---|")
    with open(path, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            name = "fine" if row["variant"] == "msst_without_coarse" else "fine and coarse"
            cells = [f"{float(row[key]):.3f} ± {float(row[f'{key}_spread'] or 0):.3f}" for key in SCORES]
            print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
