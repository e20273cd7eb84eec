"""Times the whole chain of `msst predict`, video file to PNGs, stage by stage and as a pipeline of threads.

  python benchmarks/stream.py [--model=saved_models/msst] [--video=FILE.mp4] [--num_frames=48] [--repeats=1] [--overlay]
  python benchmarks/stream.py --backbone=mobilenetv2 [--precision=mixed_bfloat16]

By default the model that is installed with the package and a generated video of 480x854 (H.264, a camera in motion
over scikit-image's photographs and a patch that moves by itself). With --backbone it is the paper's network over four
frames at 320x320, and a prior's network of the same backbone, both with random weights. A run is serial first, its
stages timed, then the pipeline; both write the same bytes, which is checked. The CPU time of a stage counts the threads
that a library makes for it. On a machine where something else runs, the CPU time is the figure to trust. The speed of
many machines changes from minute to minute: with --repeats the two take turns, and medians and ranges are printed.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import itertools
import shutil
import tempfile
import time
from pathlib import Path

import msst_keras  # noqa: F401  # isort: skip  # as in the command before OpenCV, which reads what it sets
import cv2
import numpy as np
from random_model import export_random_model
from skimage import data

from msst_keras.data import datasets
from msst_keras.inference import SHIPPED_MODEL, motion_stream
from msst_keras.inference import overlay as overlays
from msst_keras.inference import stream as streams
from msst_keras.inference.options import PredictOptions
from msst_keras.inference.temporal_filter import TemporalFilter
from msst_keras.jobs import predict as job
from msst_keras.motion.flow import FlowEstimator

SIZE = (480, 854)
RANDOM_SIZE = (320, 320)  # of the network of --backbone


class Stopwatch:
    """Wall and CPU seconds of functions, by name; what a stage does inside another counts for the inner one."""

    def __init__(self):
        self.wall, self.cpu, self._inner = {}, {}, []

    def time(self, name: str, function):
        """The function, timed."""

        def timed(*arguments, **named):
            started = time.perf_counter(), time.process_time()
            self._inner.append([0.0, 0.0])
            try:
                return function(*arguments, **named)
            finally:
                spent = [time.perf_counter() - started[0], time.process_time() - started[1]]
                inner = self._inner.pop()
                if self._inner:
                    self._inner[-1] = [a + b for a, b in zip(self._inner[-1], spent, strict=True)]
                self.wall[name] = self.wall.get(name, 0.0) + spent[0] - inner[0]
                self.cpu[name] = self.cpu.get(name, 0.0) + spent[1] - inner[1]

        return timed


def make_video(path: Path, num_frames: int) -> None:
    """A video of a camera in motion over a photograph, with a patch that moves by itself."""
    photo = cv2.resize(data.coffee(), (1100, 700), interpolation=cv2.INTER_CUBIC)
    patch = cv2.resize(data.chelsea(), (240, 160), interpolation=cv2.INTER_AREA)
    with overlays.OverlayWriter(path, 24.0, SIZE) as writer:
        for index in range(num_frames):
            phase = index / 20
            matrix = np.float32([[1, 0, -120 + 80 * np.sin(phase)], [0, 1, -100 + 60 * np.cos(phase)]])
            frame = cv2.warpAffine(photo, matrix, SIZE[::-1], borderMode=cv2.BORDER_REFLECT)
            left, top = 60 + 5 * index % 500, int(160 + 60 * np.sin(2 * phase))
            frame[top : top + 160, left : left + 240] = patch
            writer.write(frame)


@contextlib.contextmanager
def timed_stages(model: streams.SaliencyModel, watch: Stopwatch):
    """Times the stages of the serial loop while the block runs."""
    places = [
        (FlowEstimator, "push", "flow"), (FlowEstimator, "close", "flow"), (motion_stream, "segment", "superpixels"),
        (model, "encode", "encode"), (model, "fuse", "fuse"), (streams.MapStream, "push", "copies"),
        (TemporalFilter, "push", "temporal filter"),
        (overlays, "overlay", "overlay"), (overlays.OverlayWriter, "write", "H.264"), (job.images, "write_map", "PNG"),
    ]  # fmt: skip
    old = [(place, name, getattr(place, name)) for place, name, _ in places]
    for (place, name, stage), (_, _, function) in zip(places, old, strict=True):
        setattr(place, name, watch.time(stage, function))
    try:
        yield
    finally:
        for place, name, function in old:
            setattr(place, name, function)


def run(options: PredictOptions, model: streams.SaliencyModel, sequence, num_ahead: int) -> tuple[float, float, str]:
    """Wall and CPU seconds of a run, and a hash of all its maps."""
    folder = Path(options.output_dir) / f"ahead{num_ahead}"
    shutil.rmtree(folder, ignore_errors=True)
    overlay = folder.with_suffix(".mp4") if options.overlay == "auto" else None
    whole = streams.stream_maps
    job.stream_maps = lambda *arguments, **named: whole(*arguments, **named, num_ahead=num_ahead)
    started = time.perf_counter(), time.process_time()
    try:
        job._predict_sequence(options, model, sequence, folder, overlay)
    finally:
        job.stream_maps = whole
    seconds = time.perf_counter() - started[0], time.process_time() - started[1]
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        digest.update(path.name.encode() + path.read_bytes())
    return *seconds, digest.hexdigest()


def print_stages(watch: Stopwatch, wall: float, cpu: float, num_frames: int) -> None:
    """A line for each stage: milliseconds of wall and CPU time a frame."""
    rest = "decoding, the rest"
    watch.wall[rest] = wall - sum(watch.wall.values())
    watch.cpu[rest] = cpu - sum(watch.cpu.values())
    print(f"{'stage':20s} {'wall ms':>9s} {'CPU ms':>9s} {'share of CPU':>13s}")
    for name in watch.cpu:
        print(
            f"{name:20s} {1000 * watch.wall[name] / num_frames:9.1f} {1000 * watch.cpu[name] / num_frames:9.1f} "
            f"{watch.cpu[name] / cpu:13.0%}"
        )


def print_runs(runs: dict[str, list[tuple[float, float, str]]], num_frames: int) -> None:
    """A line for both kinds of run, in medians, and one that compares them; ends the program if maps differ."""
    for name, results in runs.items():
        rates = [num_frames / wall for wall, _, _ in results]
        cpu = 1000 * np.median([cpu for _, cpu, _ in results]) / num_frames
        spread = f" ({min(rates):.2f} to {max(rates):.2f})" if len(rates) > 1 else ""
        print(f"{name:8s} {np.median(rates):6.2f} frames a second{spread}, {cpu:6.1f} CPU ms a frame")
    ratios = [serial / pipeline for (serial, _, _), (pipeline, _, _) in zip(*runs.values(), strict=True)]
    are_same = len({maps for results in runs.values() for _, _, maps in results}) == 1
    print(f"pipeline / serial {np.median(ratios):.2f}; {'the same' if are_same else 'OTHER'} maps, byte for byte")
    if not are_same:
        raise SystemExit(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(SHIPPED_MODEL), help="folder of a SavedModel")
    parser.add_argument("--backbone", help="in place of a model: the paper's network of this backbone, random weights")
    parser.add_argument("--precision", default="float32", choices=["float32", "mixed_bfloat16"], help="of --backbone")
    parser.add_argument("--video", help="a video file in place of the generated one")
    parser.add_argument("--num_frames", type=int, default=48, help="of the generated video")
    parser.add_argument("--repeats", type=int, default=1, help="serial runs and pipelines, in turn")
    parser.add_argument("--overlay", action="store_true", help="write the overlay video too, as predict does")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        video = Path(arguments.video or Path(folder) / "video.mp4")
        if not arguments.video:
            make_video(video, arguments.num_frames)
        sequence = datasets.find_sequences("video", video)[0]
        if arguments.backbone:
            arguments.model = str(Path(folder) / arguments.backbone / "1")
            export_random_model(Path(arguments.model), arguments.backbone, RANDOM_SIZE, arguments.precision)
        model = streams.SaliencyModel(arguments.model)
        options = PredictOptions(
            input=(str(video),), output_dir=folder, overlay="auto" if arguments.overlay else "none"
        )
        warm = ((name, frame) for name, frame, _ in itertools.islice(sequence.read_images(), 3))
        list(streams.stream_maps(model, warm))  # TensorFlow's first calls take seconds
        watch, runs = Stopwatch(), {"serial": [], "pipeline": []}
        for _ in range(arguments.repeats):
            with timed_stages(model, watch):
                runs["serial"].append(run(options, model, sequence, num_ahead=0))
            runs["pipeline"].append(run(options, model, sequence, num_ahead=2))
        num_frames = len(list((Path(folder) / "ahead0").glob("*.png")))
        print(f"{arguments.model}: {num_frames} frames of {video.name}, serial:")
        wall, cpu = (sum(each[index] for each in runs["serial"]) for index in (0, 1))
        print_stages(watch, wall, cpu, num_frames * arguments.repeats)
        print_runs(runs, num_frames)


if __name__ == "__main__":
    main()
