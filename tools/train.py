"""Trains the network of the paper, or one of its ablations, on records.

  msst train --records=records/davis_train --val_records=records/davis_val --prior=prior.keras --run_dir=runs/msst

Started again with the same --run_dir, it goes on where it was; SIGTERM or SIGINT finishes the step, saves, and exits
with 75. On several hosts: the same command on each, with TF_CONFIG set or under Slurm's srun (docs/training.md).
"""

from __future__ import annotations

import sys
from pathlib import Path

from absl import flags

from msst_keras import cli
from msst_keras.tools._flags import BACKBONES, define_sizes

_RECORDS = flags.DEFINE_list(
    "records", None, "Globs of record folders to train on, comma-separated. With shares, as stills:3,video:1, each is "
    "a group that gives its share of every batch.",
)  # fmt: skip
_VAL_RECORDS = flags.DEFINE_list("val_records", None, "Globs of record folders to validate on.")
_RUN_DIR = flags.DEFINE_string("run_dir", None, "Folder of the run.")
_PRIOR = flags.DEFINE_string("prior", None, "File of the motion prior that the records were made with.")
_VARIANT = flags.DEFINE_enum(
    "variant", "msst", ["os", "st", "msst"], "Spatial stream, both, or both and ConvLSTM (Fig. 6)."
)
_MOTION_INPUT = flags.DEFINE_enum(
    "motion_input", "prior", ["prior", "flow"], "What the temporal stream sees: the frame and the motion prior, as in "
    "the paper, or flow itself as an image (records of --prior=flow), which needs no superpixels and no prior network.",
)  # fmt: skip
_DECODER = flags.DEFINE_enum(
    "decoder", "branches", ["branches", "topdown"], "The paper's two branches, or levels fused one by one down to "
    "stride 4, for small objects; topdown needs a backbone efficientnet_lite0 or _lite2 and sizes of multiples of 32.",
)  # fmt: skip
_FUSION = flags.DEFINE_enum(
    "fusion", "linear", ["linear", "gated"], "How the streams meet: linearly (Eq. 5), or, with --decoder=topdown, so "
    "that one can switch the other off.",
)  # fmt: skip
_MOTION_BACKBONE = flags.DEFINE_enum(
    "motion_backbone", None, BACKBONES, "Of the temporal stream; by default --backbone."
)
_BATCH_NORM = flags.DEFINE_enum(
    "batch_norm", "trained", ["trained", "frozen"], "Of backbones that have batch norms, and of --decoder=topdown."
)
_FROZEN_STRIDE = flags.DEFINE_integer(
    "frozen_stride", 0, "Layers of the spatial backbone up to this stride, 4 or more, are not trained, which saves a "
    "third of a step; 0 trains all. With --decoder=topdown.", 0,
)  # fmt: skip
_BACKBONE = flags.DEFINE_enum("backbone", "vgg16", BACKBONES, "Of the streams; vgg16 is the paper's.")
_WEIGHTS = flags.DEFINE_string("weights", "imagenet", "Of the backbone: imagenet, hed (vgg16), none, or a file.")
_IMAGE_SIZES = define_sizes(
    "image_sizes", "321x321,512x512", "Mixed batch by batch; the last is the size of use (4.1)."
)
_OUTPUT_STRIDE = flags.DEFINE_enum(
    "output_stride", "16", ["8", "16"], "16 is the paper read literally; 8 is finer, slower."
)
_WIDTH = flags.DEFINE_float("width", 1.0, "Multiplies every number of channels.", lower_bound=0.01)
_INIT_FROM = flags.DEFINE_string("init_from", None, "A run whose weights to start from (os, then st, then msst).")
_NUM_FRAMES = flags.DEFINE_integer("num_frames", 4, "T, frames a clip has (msst; the others need one).", lower_bound=1)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 1, "Clips in a step, of all devices. The paper is silent.", 1)
_ACCUMULATION_STEPS = flags.DEFINE_integer(
    "accumulation_steps", 1, "Parts in which a device computes its share of the batch, to save memory.", 1
)
_RECOMPUTE = flags.DEFINE_bool("recompute", False, "Compute the streams twice, frame by frame, to save memory.")
_STEPS = flags.DEFINE_integer("steps", 20000, "Steps of the whole training. The paper is silent.", lower_bound=1)
_LEARNING_RATE = flags.DEFINE_float("learning_rate", 1e-3, "Of Adam; 1e-3 is the paper's.", lower_bound=0)
_SCHEDULE = flags.DEFINE_enum(
    "schedule", "constant", ["constant", "cosine", "polynomial"], "Of the learning rate; constant is the paper's."
)
_WARMUP_STEPS = flags.DEFINE_integer("warmup_steps", 0, "Steps in which the learning rate rises from 0.", 0)
_CLIP_NORM = flags.DEFINE_float("clip_norm", 0.0, "Limit of the gradient's norm; 0: none, as in the paper.", 0)
_AVERAGE_DECAY = flags.DEFINE_float(
    "average_decay", 0.0, "Of an exponential average of the weights, which then are the result; 0: none.", 0, 1
)
_BACKBONE_FACTOR = flags.DEFINE_float(
    "backbone_factor", 1.0, "Times the learning rate of the streams' pre-trained weights; 0 freezes them.", 0
)
_ALPHA = flags.DEFINE_string(
    "alpha", "balanced", "Balance factor of Eq. 7: balanced (per image), or a number in (0, 1)."
)
_BETA = flags.DEFINE_float("beta", 0.1, "Weight of the loss behind the ConvLSTM, Eq. 8.", lower_bound=0)
_REGION_WEIGHT = flags.DEFINE_float("region_weight", 0.0, "Weight of a soft IoU loss; not in the paper.", lower_bound=0)
_SIDE_WEIGHT = flags.DEFINE_float("side_weight", 0.3, "Weight of each side output's loss, with --decoder=topdown.", 0)
_FINE_WEIGHT = flags.DEFINE_float("fine_weight", 1.0, "Of the loss on fine labels; 0 leaves their clips out.", 0)
_COARSE_WEIGHT = flags.DEFINE_float("coarse_weight", 1.0, "And on coarse ones (3.3); the paper mixes them alike.", 0)
_MIN_SCALE = flags.DEFINE_float("min_scale", 0.7, "Smallest random crop, as a share of the side.", 0.1, 1.0)
_FLIP = flags.DEFINE_bool("flip", True, "Mirror half of the clips.")
_COLOR_JITTER = flags.DEFINE_float(
    "color_jitter", 0.0, "Change brightness, contrast and saturation of a clip by up to this share.", 0, 0.99
)
_MISSING_MOTION = flags.DEFINE_float(
    "missing_motion", 0.0, "Share of clips whose last frame, and some before it, are shown without motion.", 0, 0.99
)
_TURN_MOTION = flags.DEFINE_bool("turn_motion", False, "Turn flow as an image by a random angle.")
_PRECISION = flags.DEFINE_enum("precision", "auto", ["auto", "float32", "mixed_bfloat16"], "auto asks the hardware.")
_XLA = flags.DEFINE_bool("xla", False, "Compile the step with XLA.")
_DETERMINISTIC = flags.DEFINE_bool(
    "deterministic", False, "On GPUs: sum in a fixed order, slower, so that a run repeats to the bit as on CPUs."
)
_STRATEGY = flags.DEFINE_enum(
    "strategy", "auto", ["auto", "one", "mirrored", "multi_worker"],
    "One device, all GPUs of the host, or the hosts of TF_CONFIG or Slurm; auto takes what there is.",
)  # fmt: skip
_CPU_DEVICES = flags.DEFINE_integer("cpu_devices", 1, "Parts of the CPU; more than one tries --strategy=mirrored.", 1)
_CHECKPOINT_EVERY = flags.DEFINE_integer("checkpoint_every", 200, "Steps between checkpoints.", 1)
_KEEP_CHECKPOINTS = flags.DEFINE_integer("keep_checkpoints", 2, "How many of the last, beside the best.", 1)
_VALIDATE_EVERY = flags.DEFINE_integer("validate_every", 0, "Steps between validations; 0: at the end alone.", 0)
_PICTURES_EVERY = flags.DEFINE_integer("pictures_every", 0, "Steps between pictures; 0: at the end alone.", 0)
_PROFILE_STEPS = flags.DEFINE_list("profile_steps", None, "FIRST,LAST step of a window for TensorBoard's profiler.")
_DATA_SERVICE = flags.DEFINE_string(
    "data_service", None, "grpc://HOST:PORT of a tf.data service that prepares the batches (msst serve_data)."
)
_SEED = flags.DEFINE_integer("seed", 0, "Of initial weights, order and augmentation.", lower_bound=0)
flags.mark_flags_as_required(["records", "run_dir"])


def main() -> int | None:
    """Checks that records, prior and model fit, then trains."""
    import tensorflow as tf

    if _CPU_DEVICES.value > 1:
        parts = [tf.config.LogicalDeviceConfiguration()] * _CPU_DEVICES.value
        tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], parts)
    if _DETERMINISTIC.value:
        tf.config.experimental.enable_op_determinism()
    options = _read_options()
    from msst_keras.pipeline import clip_index
    from msst_keras.pipeline.batches import training_batches
    from msst_keras.pipeline.clips import Augmentation
    from msst_keras.records.folders import check_disjoint
    from msst_keras.training import loop, run
    from msst_keras.training.strategy import make_devices

    devices = make_devices(_STRATEGY.value, _BATCH_SIZE.value)
    weights = {"fine": _FINE_WEIGHT.value, "coarse": _COARSE_WEIGHT.value}
    num_frames = _NUM_FRAMES.value if _VARIANT.value == "msst" else 1
    temporal = _VARIANT.value != "os"
    groups = clip_index.find_record_groups(_RECORDS.value)
    kinds = [kind for kind, weight in weights.items() if weight > 0]
    index = clip_index.index_groups(groups, num_frames, temporal, kinds)
    _check_motion_input(index)
    val_index = None
    if _VAL_RECORDS.value:
        val_folders = clip_index.find_record_folders(_VAL_RECORDS.value)
        check_disjoint([folder for folders in groups for folder in folders], val_folders)
        val_index = clip_index.index_clips(val_folders, num_frames, temporal)
        if val_index.motion != index.motion:
            raise ValueError(
                "--val_records were made with other flow or prior settings than --records; make them alike"
            )
    model_settings = {
        "variant": _VARIANT.value, "backbone": _BACKBONE.value, "num_frames": num_frames, "width": _WIDTH.value,
        "output_stride": int(_OUTPUT_STRIDE.value), "weights": _WEIGHTS.value,
    }  # fmt: skip
    # Named where they differ from the paper's network, so that runs from before there was another can go on.
    light = (_MOTION_INPUT, _DECODER, _FUSION, _MOTION_BACKBONE, _BATCH_NORM, _FROZEN_STRIDE)
    model_settings |= {flag.name: flag.value for flag in light if flag.value != flag.default}
    run_dir = Path(_RUN_DIR.value)
    if devices.is_chief:
        run.keep_prior(run_dir, index.motion, _PRIOR.value)
    model = _build(model_settings, devices)
    if devices.is_chief:
        settings = {"model": model_settings, "motion": index.motion, "image_size": _IMAGE_SIZES.value[-1]}
        run.write_run(run_dir, settings)
        (run_dir / "flags.txt").write_text(cli.flags_text(main))

    def make_batches(first_step):
        augmentation = Augmentation(
            _FLIP.value, _MIN_SCALE.value, _COLOR_JITTER.value, _MISSING_MOTION.value, _TURN_MOTION.value
        )
        return training_batches(
            index, num_frames, _BATCH_SIZE.value, _IMAGE_SIZES.value, _SEED.value, first_step, _STEPS.value,
            augmentation, devices.share, weights, _DATA_SERVICE.value,
        )  # fmt: skip

    validate, draw = _make_views(model, index, val_index, num_frames, devices)
    try:
        results = loop.train(
            model, make_batches, index.names, run_dir, options, devices, validate, draw, cli.flags_values(main)
        )
    except loop.Interrupted as interruption:
        print(f"msst train: {interruption}", file=sys.stderr)
        return cli.INTERRUPTED
    print(f"{run_dir}: " + ", ".join(f"{name} {value:.4g}" for name, value in results.items()))


def _check_motion_input(index) -> None:
    """Refuses records whose motion is not what the temporal stream is to see, and sizes that the decoder cannot use."""
    if index.motion:
        found = "flow" if index.motion["prior"]["kind"] == "flow" else "prior"
        if found != _MOTION_INPUT.value:
            raise ValueError(
                f"--motion_input={_MOTION_INPUT.value} does not fit the records, whose prior is of the kind "
                f"{index.motion['prior']['kind']}; make them with --prior=flow for --motion_input=flow"
            )
    if _DECODER.value == "topdown" and any(side % 32 for size in _IMAGE_SIZES.value for side in size):
        raise ValueError("--decoder=topdown needs --image_sizes of multiples of 32, such as 288x512")
    if _RECOMPUTE.value and _DECODER.value == "topdown" and _BATCH_NORM.value == "trained":
        raise ValueError("--recompute shows batch norms one frame at a time; give --batch_norm=frozen with it")


def _read_options():
    from msst_keras.training.loop import TrainingOptions
    from msst_keras.training.optimizer import OptimizerOptions
    from msst_keras.training.step import StepOptions

    alpha = _ALPHA.value if _ALPHA.value == "balanced" else float(_ALPHA.value)
    profile = None
    if _PROFILE_STEPS.value:
        if len(_PROFILE_STEPS.value) != 2 or not all(step.isdecimal() for step in _PROFILE_STEPS.value):
            raise ValueError(f"--profile_steps must be FIRST,LAST, such as 20,30, not {','.join(_PROFILE_STEPS.value)}")
        profile = tuple(map(int, _PROFILE_STEPS.value))
    return TrainingOptions(
        _STEPS.value,
        StepOptions(
            alpha, _BETA.value, _REGION_WEIGHT.value, _ACCUMULATION_STEPS.value, _RECOMPUTE.value, _XLA.value,
            _SIDE_WEIGHT.value,
        ),
        OptimizerOptions(
            _LEARNING_RATE.value, _SCHEDULE.value, _WARMUP_STEPS.value, clip_norm=_CLIP_NORM.value,
            average_decay=_AVERAGE_DECAY.value, backbone_factor=_BACKBONE_FACTOR.value,
        ),
        _CHECKPOINT_EVERY.value, _KEEP_CHECKPOINTS.value, _VALIDATE_EVERY.value,
        pictures_every=_PICTURES_EVERY.value, profile=profile,
    )  # fmt: skip


def _build(model_settings, devices):
    import keras

    from msst_keras.model.msst import build_msst
    from msst_keras.training import run
    from msst_keras.training.precision import resolve_precision

    keras.config.set_dtype_policy(resolve_precision(_PRECISION.value))
    keras.utils.set_random_seed(_SEED.value)
    with devices.strategy.scope():
        model = build_msst(**model_settings)
        if _INIT_FROM.value:
            run.transfer_weights(run.load_model(_INIT_FROM.value), model)
    return model


def _make_views(model, index, val_index, num_frames, devices):
    """What validates and what draws; the pictures are of validation clips where there are any."""
    from msst_keras.motion.flow import flow_to_color
    from msst_keras.training.validation import make_drawing, make_validation

    size = _IMAGE_SIZES.value[-1]
    validate = None
    if val_index:
        validate = make_validation(model, val_index, num_frames, _BATCH_SIZE.value, size, devices)
    return validate, make_drawing(model, val_index or index, num_frames, size, flow_to_color, devices)


if __name__ == "__main__":
    cli.run(main)
