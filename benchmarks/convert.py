"""Times the conversion of generated videos with one and with two workers, stage by stage, and their peak memory.

  python benchmarks/convert.py [--num_sequences=8] [--num_frames=60] [--prior=prior.keras] [--lengths=200,2000]

One run, the two in turn. Frames per second count from when the workers are ready, on average (Python and TensorFlow
take seconds to load), to when the last shard is. The shards of both must be the same bytes. Peak memory is that of a
worker (VmHWM) that converts one video of each of --lengths; its frames are those of a short one, forth and back.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from msst_keras.conversion import convert
from msst_keras.conversion.work_report import WorkReport
from msst_keras.data.datasets import find_sequences
from msst_keras.data.sequences import FileSequence
from msst_keras.files import hash_file
from msst_keras.motion.flow import FlowSettings
from msst_keras.motion.prior_files import load_prior
from msst_keras.motion.settings import MotionOptions
from msst_keras.records.manifest import MANIFEST_NAME
from msst_keras.synthetic import videos


def choose_motion(prior: str, store_flow: bool) -> MotionOptions:
    """The default flow with the magnitude prior, or a trained prior's own."""
    if prior in ("none", "magnitude"):
        return MotionOptions(FlowSettings(), None, prior, store_flow)
    model = load_prior(prior)
    return MotionOptions(model.flow_settings, model.superpixel_settings, prior, store_flow)


def time_workers(sequences: list[FileSequence], folder: Path, motion: MotionOptions, repeats: int) -> None:
    """Prints frames per second of one and of two workers, the best of `repeats` each, and their ratio."""
    best, hashes = {}, set()
    for repeat in range(repeats):
        for num_workers in (1, 2):
            report = WorkReport()
            output = folder / f"{num_workers}-{repeat}"
            convert.convert(sequences, output, motion, {}, num_workers=num_workers, report=report)
            hashes.add(hash_file(output / MANIFEST_NAME))  # which holds those of the shards
            if num_workers not in best or report.elapsed < best[num_workers].elapsed:
                best[num_workers] = report
    for num_workers, report in best.items():
        print(f"\n{num_workers} worker{'s' * (num_workers > 1)}: {report.format()}")
    same = "the same bytes" if len(hashes) == 1 else "DIFFERENT BYTES"
    print(f"\ntwo workers / one: {best[1].elapsed / best[2].elapsed:.2f}; {same}")


def measure_memory(source: FileSequence, folder: Path, motion: MotionOptions, lengths: list[int]) -> None:
    """Prints the peak memory of a worker for videos of each length, and how much more the last takes than the first."""
    peaks = []
    there_and_back = [*source.frame_paths, *source.frame_paths[-2:0:-1]]
    for length in lengths:
        paths = tuple((there_and_back * (length // len(there_and_back) + 1))[:length])
        report = WorkReport()
        convert.convert([FileSequence("long", paths)], folder / f"long-{length}", motion, {}, report=report)
        peaks.append(report.peak_memory)
        print(f"{length} frames: peak memory {report.peak_memory / 2**20:.1f} MiB", flush=True)
    print(f"{lengths[-1]} frames / {lengths[0]}: {peaks[-1] / peaks[0]:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_sequences", type=int, default=8)
    parser.add_argument("--num_frames", type=int, default=60)
    parser.add_argument("--image_size", default="480x854")
    parser.add_argument("--prior", default="magnitude", help="magnitude, none, or a file of `msst train_prior`")
    parser.add_argument("--store_flow", action="store_true")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--lengths", default="200,2000", help="frames of the videos whose peak memory is measured")
    arguments = parser.parse_args()
    size = tuple(int(side) for side in arguments.image_size.split("x"))
    motion = choose_motion(arguments.prior, arguments.store_flow)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        videos.write_davis(folder / "davis", arguments.num_sequences, arguments.num_frames, size, seed=0)
        sequences = find_sequences("davis", folder / "davis")
        time_workers(sequences, folder, motion, arguments.repeats)
        measure_memory(sequences[0], folder, motion, [int(length) for length in arguments.lengths.split(",")])


if __name__ == "__main__":
    main()
