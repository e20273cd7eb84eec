"""Times the whole motion prior of a 480x854 frame by stage: flow at 240x432, superpixels, network.

  python benchmarks/prior_speed.py [--frames=FIRST.jpg,SECOND.jpg] [--backbones=mobilenetv2,vgg16] [--repeats=15]

The network runs in a tf.function; the time of a stage is the median over the repeats, after two that do not count. The
default pair of frames is scikit-image's photograph of a cup of coffee, enlarged, and the same zoomed, turned and moved.
Weights are random: they do not change the time.
"""

from __future__ import annotations

import argparse
import time

import cv2
import numpy as np
import tensorflow as tf
from skimage import data

from msst_keras.data import images
from msst_keras.motion import regions
from msst_keras.motion.camera import CAMERAS
from msst_keras.motion.flow import FlowEstimator, FlowSettings
from msst_keras.motion.prior import MotionPrior
from msst_keras.motion.superpixels import SuperpixelSettings, segment

SIZE = (854, 480)


def make_frames() -> tuple[np.ndarray, np.ndarray]:
    """Two frames of a camera in motion, with a patch that moves by itself."""
    first = cv2.resize(data.coffee(), SIZE, interpolation=cv2.INTER_CUBIC)
    motion = cv2.getRotationMatrix2D((427, 240), 1.0, 1.01) + np.array([[0, 0, 4], [0, 0, 1]])
    second = cv2.warpAffine(first, motion, SIZE, borderMode=cv2.BORDER_REFLECT)
    second[150:310, 340:560] = first[155:315, 328:548]
    return first, second


def measure(stages: dict, repeats: int) -> dict[str, float]:
    """Median seconds of each stage; a stage is a function of the result of the one before."""
    times = {name: [] for name in stages}
    for _ in range(repeats + 2):
        result = None
        for name, stage in stages.items():
            started = time.perf_counter()
            result = stage(result)
            times[name].append(time.perf_counter() - started)
    return {name: float(np.median(each[2:])) for name, each in times.items()}


def time_prior(prior: MotionPrior, frames: tuple[np.ndarray, np.ndarray], repeats: int) -> dict[str, float]:
    """Seconds of every stage of the prior of the first frame, and of two parts of the network by themselves."""
    estimator, num_images = FlowEstimator(prior.flow_settings), 2 if prior.needs_frames else 1
    predict = tf.function(prior)
    color = tf.function(lambda flow: regions.color_flow(flow, prior.get_config()["camera"]))
    deep = tf.function(lambda image: prior.backbone(image, training=False))
    flow = estimator.between(*frames)

    def run_network(labels: np.ndarray) -> np.ndarray:
        inputs = {"flow": tf.constant(flow[None]), "superpixels": tf.constant(labels[None])}
        if prior.needs_frames:
            inputs["frame"] = tf.constant(frames[0][None])
        return predict(inputs).numpy()

    whole = measure({
        "flow": lambda _: estimator.between(*frames),
        "superpixels": lambda flow: segment(flow, prior.superpixel_settings),
        "network": run_network,
    }, repeats)  # fmt: skip
    parts = measure({
        "colours": lambda _: color(tf.constant(flow[None])),
        "backbone": lambda image: [deep(image) for _ in range(num_images)],
    }, repeats)  # fmt: skip
    return {**whole, **parts, "rest": whole["network"] - sum(parts.values()), "whole": sum(whole.values())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", help="two image files of one size, comma-separated")
    parser.add_argument("--backbones", default="mobilenetv2,resnet50v2,vgg16")
    parser.add_argument("--levels", type=int, default=3, help="M, segmentations of a flow map")
    parser.add_argument("--camera", choices=CAMERAS, default="homography")
    parser.add_argument("--rgb_features", action="store_true")
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    frames = [images.read_frame(path) for path in arguments.frames.split(",")] if arguments.frames else make_frames()
    superpixels = SuperpixelSettings(num_levels=arguments.levels)
    labels = segment(FlowEstimator(FlowSettings()).between(*frames), superpixels)
    height, width = frames[0].shape[:2]
    print(f"{height}x{width}, regions {[int(level.max()) + 1 for level in np.moveaxis(labels, -1, 0)]}; ms:")
    print("backbone        flow  superpixels  network  (of it: colours  backbone  the rest)  whole")
    for backbone in arguments.backbones.split(","):
        prior = MotionPrior(
            superpixels=superpixels, backbone=backbone, camera=arguments.camera, rgb_features=arguments.rgb_features
        )
        times = [1000 * seconds for seconds in time_prior(prior, frames, arguments.repeats).values()]
        print(f"{backbone:13s}", "{:6.0f} {:12.0f} {:8.0f} {:16.0f} {:9.0f} {:9.0f} {:8.0f}".format(*times), flush=True)


if __name__ == "__main__":
    main()
