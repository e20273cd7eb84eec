"""The whole job on generated videos, from records to an overlay; `msst demo`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from msst_keras.data import datasets, images
from msst_keras.data.sequences import FileSequence
from msst_keras.evaluation.scores import ALL_BLACK, FLOW_MAGNITUDE, HEADLINE, SCORES
from msst_keras.files import publish, read_json
from msst_keras.inference.overlay import contact_sheet
from msst_keras.jobs.options import DemoOptions
from msst_keras.locks import hold_folder
from msst_keras.motion.flow import FlowEstimator, FlowSettings
from msst_keras.motion.flow_pictures import magnitude_prior
from msst_keras.options import join_values
from msst_keras.processes import run_job
from msst_keras.synthetic import videos

_NUM_FRAMES = 10
_IMAGE_SIZE, _MOTION_SIZE = (128, 192), (96, 144)


def demo(options: DemoOptions) -> int:
    """Runs the jobs one after the other, then draws the contact sheet. What is done is not done again.

    Returns:
      0, or the exit status of the job that ended otherwise.
    """
    with hold_folder(options.output_dir):
        return _run_all(options)


def _run_all(options: DemoOptions) -> int:
    started = time.monotonic()
    out = Path(options.output_dir)
    data = out / "videos"
    if not data.exists():
        print(f"Generating {options.num_videos} videos of {_NUM_FRAMES} frames in {data}", flush=True)
        with publish(data) as folder:
            videos.write_davis(folder, options.num_videos, _NUM_FRAMES, _IMAGE_SIZE, seed=0, num_val=options.num_val)
    val = datasets.find_sequences("davis", data, "val")
    overlay = out / f"{val[0].name}.mp4"
    jobs = {**_list_preparations(options, data), **_list_trainings(options), **_list_predictions(out, val, overlay)}
    for path, command in jobs.items():
        if not path.exists() and (status := run_job(*command)):
            return status
    status = run_job(
        "evaluate", f"--predictions={out}/maps/msst", "--name=msst", f"--ground_truth={data}", "--split=val",
        f"--output_dir={out}/results", "--overwrite",
    )  # fmt: skip
    if status:
        return status
    sheet = _draw_sheet(val, out / "maps/msst", out / "contact_sheet.png")
    print(f"\nDone in {time.monotonic() - started:.0f} s.\nReport: {out}/results/report.html")
    print(f"Pictures: {sheet}, {overlay}, and the maps in {out}/maps/msst")
    _print_scores(out / "results")
    return 0


# The lists below are of jobs, by what is there when the job is done.


def _list_preparations(options: DemoOptions, data: Path) -> dict[Path, list[str]]:
    """Records of flow, the prior that is trained on them, and the records that have it."""
    out = Path(options.output_dir)
    convert = ["make_records", "--dataset=davis", f"--root={data}", f"--motion_size={_write_size(_MOTION_SIZE)}"]
    prior = out / "prior.keras"
    return {
        out / "records/flow/manifest.json": [
            *convert, "--split=train", f"--output_dir={out}/records/flow", "--prior=none", "--store_flow"],
        prior: [
            "train_prior", f"--records={out}/records/flow", f"--output={prior}", "--width=0.125", "--weights=none",
            "--camera=median", "--max_regions=256", f"--steps={options.prior_steps}"],
        out / "records/train/manifest.json": [
            *convert, "--split=train", f"--output_dir={out}/records/train", f"--prior={prior}"],
        out / "records/val/manifest.json": [
            *convert, "--split=val", f"--output_dir={out}/records/val", f"--prior={prior}"],
    }  # fmt: skip


def _list_trainings(options: DemoOptions) -> dict[Path, list[str]]:
    """The streams learn on single frames first, at a quarter of a clip's cost, then the whole network on clips."""
    out = Path(options.output_dir)
    # Stride 8: objects are small at this size.
    train = ["train", f"--records={out}/records/train", f"--val_records={out}/records/val",
             f"--prior={out}/prior.keras", "--width=0.125", "--weights=none",
             f"--image_sizes={_write_size(_IMAGE_SIZE)}", "--output_stride=8", "--region_weight=1",
             "--precision=float32"]  # fmt: skip
    return {
        out / "run_st/result.json": [
            *train, "--variant=st", "--batch_size=8", f"--steps={4 * options.steps}", f"--run_dir={out}/run_st"],
        out / "run/result.json": [
            *train, "--variant=msst", "--batch_size=4", f"--steps={options.steps}", f"--run_dir={out}/run",
            f"--init_from={out}/run_st", "--learning_rate=3e-4"],
    }  # fmt: skip


def _list_predictions(out: Path, sequences: Sequence[FileSequence], overlay: Path) -> dict[Path, list[str]]:
    """The exported model, and its maps of all sequences; the first one's frames with their maps laid over."""
    model, maps = out / "saved_model", out / "maps/msst"
    first, *others = (str(sequence.frame_paths[0].parent) for sequence in sequences)
    predict = ["predict", f"--model={model}", f"--output_dir={maps}"]
    jobs = {
        model / "1": ["export", f"--run_dir={out}/run", f"--output_dir={model}", "--version=1"],
        maps / sequences[0].name: [*predict, f"--input={first}", f"--overlay={overlay}"],  # the maps come last
    }
    if others:
        jobs[maps / sequences[-1].name] = [*predict, f"--input={join_values(others)}"]
    return jobs


def _write_size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _print_scores(results: Path) -> None:
    for method, suffix in (("msst", ""), (FLOW_MAGNITUDE, "-flow-magnitude"), (ALL_BLACK, "-all-black")):
        result = read_json(results / f"metrics{suffix}.json", "remove it to score again")
        scores = ", ".join(f"{SCORES[name].title} {result[name]:.3f}" for name in HEADLINE)
        print(f"{method:15s} {scores} ({result['num_frames']} frames, protocol {result['protocol']})")


def _draw_sheet(sequences: Sequence[FileSequence], maps: Path, path: Path) -> Path:
    """Frame, flow magnitude, map and mask of the middle frame of each sequence."""
    estimator = FlowEstimator(FlowSettings(motion_size=_MOTION_SIZE))
    rows, labels = [], ["frame", "flow magnitude", "saliency map", "mask"]
    for sequence in sequences:
        index = len(sequence.frame_paths) // 2
        frame, following = (images.read_frame(path) for path in sequence.frame_paths[index : index + 2])
        magnitude = cv2.resize(magnitude_prior(estimator.between(frame, following)), frame.shape[1::-1])
        saliency = images.read_map(maps / sequence.name / f"{sequence.frame_names[index]}.png")
        mask = sequence.read_mask(index)
        assert mask is not None, "every generated frame has a mask"
        rows.append([frame, *((255 * grey).astype(np.uint8) for grey in (magnitude, saliency, mask))])
    with publish(path) as temporary:
        temporary.write_bytes(images.encode_png(contact_sheet(rows, labels, cell_height=128)))
    return path
