"""The whole job on generated videos: records, prior, training, evaluation, export, prediction, overlay.

  msst demo --output_dir=demo

Every command that it runs is printed: the same ones do the job on your own data. Started again, it goes on where it
was.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

from absl import flags

from msst_keras import cli

_OUTPUT_DIR = flags.DEFINE_string("output_dir", "demo", "Folder for everything that the demo makes.")
_STEPS = flags.DEFINE_integer("steps", 90, "Training steps on clips; four times as many on frames.", lower_bound=1)
_PRIOR_STEPS = flags.DEFINE_integer("prior_steps", 150, "Training steps of the motion prior.", lower_bound=1)

_NUM_VIDEOS = flags.DEFINE_integer("num_videos", 56, "Videos to generate.", lower_bound=2)
_NUM_VAL = flags.DEFINE_integer("num_val", 8, "Of these, videos that are held out to score on.", lower_bound=1)

_NUM_FRAMES = 10
_IMAGE_SIZE, _MOTION_SIZE = "128x192", "96x144"


def main() -> int | None:
    """Runs the jobs one after the other, then draws the contact sheet."""
    from msst_keras.data import datasets
    from msst_keras.files import publish
    from msst_keras.synthetic import videos

    started = time.monotonic()
    out = Path(_OUTPUT_DIR.value)
    data, prior, run_dir, model, maps = (
        out / "videos",
        out / "prior.keras",
        out / "run",
        out / "saved_model",
        out / "maps",
    )
    if not data.exists():
        print(f"Generating {_NUM_VIDEOS.value} videos of {_NUM_FRAMES} frames in {data}", flush=True)
        size = tuple(map(int, _IMAGE_SIZE.split("x")))
        with publish(data) as folder:
            videos.write_davis(folder, _NUM_VIDEOS.value, _NUM_FRAMES, size, seed=0, num_val=_NUM_VAL.value)
    val = datasets.find_sequences("davis", data, "val")
    overlay = out / f"{val[0].name}.mp4"
    convert = ["make_records", "--dataset=davis", f"--root={data}", f"--motion_size={_MOTION_SIZE}"]
    narrow = ["--width=0.125", "--weights=none"]
    # Stride 8: objects are small at this size. The streams learn on single frames first, at a quarter of a clip's cost.
    train = ["train", f"--records={out}/records/train", f"--val_records={out}/records/val", f"--prior={prior}", *narrow,
             f"--image_sizes={_IMAGE_SIZE}", "--output_stride=8", "--region_weight=1"]  # fmt: skip
    frames = [str(data / "JPEGImages" / "480p" / sequence.name) for sequence in val]
    jobs = {  # what is there when the job is done -> the job
        out / "records/flow/manifest.json": [
            *convert, "--split=train", f"--output_dir={out}/records/flow", "--prior=none", "--store_flow"],
        prior: [
            "train_prior", f"--records={out}/records/flow", f"--output={prior}", *narrow, "--camera=median",
            "--max_regions=256", f"--steps={_PRIOR_STEPS.value}"],
        out / "records/train/manifest.json": [
            *convert, "--split=train", f"--output_dir={out}/records/train", f"--prior={prior}"],
        out / "records/val/manifest.json": [
            *convert, "--split=val", f"--output_dir={out}/records/val", f"--prior={prior}"],
        out / "run_st/result.json": [
            *train, "--variant=st", "--batch_size=8", f"--steps={4 * _STEPS.value}", f"--run_dir={out}/run_st"],
        run_dir / "result.json": [
            *train, "--variant=msst", "--batch_size=4", f"--steps={_STEPS.value}", f"--run_dir={run_dir}",
            f"--init_from={out}/run_st", "--learning_rate=3e-4"],
        model / "1": ["export", f"--run_dir={run_dir}", f"--output_dir={model}", "--version=1"],
        overlay: ["predict", f"--model={model}", f"--input={frames[0]}", f"--output_dir={maps}/msst",
                  f"--overlay={overlay}"],
        maps / "msst" / val[-1].name: [
            "predict", f"--model={model}", f"--input={','.join(frames[1:])}", f"--output_dir={maps}/msst"],
    }  # fmt: skip
    for path, command in jobs.items():
        if not path.exists() and (status := _run(*command)):
            return status
    status = _run(
        "evaluate", f"--predictions={maps}/msst", "--name=msst", f"--ground_truth={data}", "--split=val",
        f"--output_dir={out}/results",
    )  # fmt: skip
    if status:
        return status
    sheet = _draw_sheet(val, maps, out / "contact_sheet.png")
    print(f"\nDone in {time.monotonic() - started:.0f} s.\nReport: {out}/results/report.html")
    print(f"Pictures: {sheet}, {overlay}, and the maps in {maps}/msst")
    for method, suffix in (("msst", ""), ("flow magnitude", "-flow-magnitude"), ("all black", "-all-black")):
        result = json.loads((out / "results" / f"metrics{suffix}.json").read_text())
        scores = ", ".join(f"{name} {result[key]:.3f}" for name, key in _SCORES.items())
        print(f"{method:15s} {scores} ({result['num_frames']} frames, protocol {result['protocol']})")


_SCORES = {"MAE": "mae", "max F": "max_f", "S": "s_measure"}


def _run(job: str, *arguments: str) -> int:
    """Runs `msst JOB ...` as a process of its own and returns its exit status."""
    print(f"\n$ {shlex.join(['msst', job, *arguments])}", flush=True)
    return subprocess.run([sys.executable, "-m", "msst_keras", job, *arguments], check=False).returncode


def _draw_sheet(sequences, maps: Path, path: Path) -> Path:
    """Frame, flow magnitude, map and mask of the middle frame of each sequence."""
    import cv2

    from msst_keras.data import images
    from msst_keras.files import publish
    from msst_keras.inference.overlay import contact_sheet
    from msst_keras.motion.flow import FlowEstimator, FlowSettings, magnitude_prior

    estimator = FlowEstimator(FlowSettings(motion_size=tuple(map(int, _MOTION_SIZE.split("x")))))
    rows, labels = [], ["frame", "flow magnitude", "saliency map", "mask"]
    for sequence in sequences:
        index = len(sequence.frame_paths) // 2
        frame, following = (images.read_frame(path) for path in sequence.frame_paths[index : index + 2])
        magnitude = cv2.resize(magnitude_prior(estimator.between(frame, following)), frame.shape[1::-1])
        saliency = images.read_map(maps / "msst" / sequence.name / f"{sequence.frame_names[index]}.png")
        found = magnitude, saliency, sequence.read_mask(index)
        rows.append([frame, *((255 * grey).astype("uint8") for grey in found)])
    with publish(path) as temporary:
        temporary.write_bytes(images.encode_png(contact_sheet(rows, labels, cell_height=128)))
    return path


if __name__ == "__main__":
    cli.run(main)
