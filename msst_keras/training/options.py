"""The options of a training. TensorFlow is not needed to read them."""

from __future__ import annotations

import dataclasses
import math

from msst_keras.model.options import DEFAULT_MIN_SHARE, DEFAULT_SIDE_WEIGHT, POLICIES, ModelOptions
from msst_keras.options import SHARE, Size, check_options, option, options_of
from msst_keras.pipeline.options import Augmentation

SCHEDULES = ("constant", "cosine", "polynomial")
STRATEGIES = ("auto", "one", "mirrored", "multi_worker")
AUTO = "auto"
PRECISIONS = (AUTO, *POLICIES)


@dataclasses.dataclass(frozen=True)
class StepOptions:
    """What a step computes, and how."""

    alpha: str | float = option(
        "The balance factor of Eq. 7. It is computed for each image (balanced), or it is a number in (0, 1).",
        "balanced",
    )
    min_share: float = option(
        "Each kind of pixel, salient and other, counts as at least this share of an image when --alpha=balanced. So a "
        "frame without an object weighs no more than one with a small object. 0 takes the share as it is, and 1/2 "
        "where a frame has one kind alone.",
        DEFAULT_MIN_SHARE,
        low=0,
        high=0.49,
    )
    beta: float = option("The weight of the loss behind the ConvLSTM (Eq. 8).", 0.1, low=0)
    # Class-balanced cross-entropy alone leaves halos around objects (a worse MAE at the same ranking), which a region
    # loss repairs.
    region_weight: float = option("The weight of a soft IoU loss, which the paper does not have.", 0.0, low=0)
    accumulation_steps: int = option(
        "A device computes its share of the batch in this many parts, which saves memory. Batch norms that are trained "
        "(--batch_norm) see one part at a time.",
        1,
        low=1,
        remembered=False,
    )
    recompute: bool = option("Compute the streams twice, frame by frame, which saves memory.", False, remembered=False)
    xla: bool = option("Compile the step with XLA.", False, remembered=False)
    side_weight: float = option(
        "The weight of the loss of each side output; it is for --decoder=topdown.", DEFAULT_SIDE_WEIGHT, low=0
    )

    def __post_init__(self) -> None:
        if self.alpha != "balanced":
            try:
                alpha = float(self.alpha)
            except ValueError:
                raise ValueError(f"alpha must be balanced, or a number in (0, 1), not {self.alpha!r}") from None
            if not 0 < alpha < 1:
                raise ValueError(f"alpha must be balanced, or a number in (0, 1), not {alpha!r}")
            object.__setattr__(self, "alpha", alpha)
        check_options(self)


@dataclasses.dataclass(frozen=True)
class OptimizerOptions:
    """How gradients become weights. The defaults are the paper's: Adam at 1e-3 (section 4.1) and nothing else."""

    learning_rate: float = option("The learning rate of Adam. The paper has 1e-3.", 1e-3, low=0)
    schedule: str = option("How the learning rate changes. It is constant in the paper.", "constant", choices=SCHEDULES)
    warmup_steps: int = option("The learning rate rises from 0 during this many steps.", 0, low=0)
    # Of "polynomial", (1 - progress) ** power; 0.9 is DeepLab's.
    decay_power: float = 0.9
    clip_norm: float = option(
        "Gradients are shortened to this norm if theirs is larger. 0 leaves them as they are, as the paper does.",
        0.0,
        low=0,
    )
    # The average begins with the first weights: 0.999 forgets them after a few thousand steps.
    average_decay: float = option(
        "The result is an exponential average of the weights with this decay. 0 takes the weights themselves.",
        0.0,
        low=0,
        high=1,
    )
    backbone_factor: float = option(
        "The learning rate of the streams' weights that were loaded (--weights, --init_from) is multiplied by this "
        "factor. 0 freezes them, and wants batch norms that are not trained (--batch_norm=frozen).",
        1.0,
        low=0,
    )

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}, not '{self.schedule}'")
        for name in ("learning_rate", "warmup_steps", "decay_power", "clip_norm", "backbone_factor"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be a number from 0 up, not {getattr(self, name)}")
        if not 0 <= self.average_decay < 1:
            raise ValueError(f"average_decay must lie in [0, 1), not {self.average_decay}")


@dataclasses.dataclass(frozen=True)
class TrainingOptions:
    """The length of a training, and how often it saves and validates."""

    steps: int = option("The number of steps of the whole training, about which the paper is silent.", 20000, low=1)
    step: StepOptions = options_of(StepOptions)
    optimizer: OptimizerOptions = options_of(OptimizerOptions)
    checkpoint_every: int = option("The number of steps between checkpoints.", 200, low=1, remembered=False)
    keep_checkpoints: int = option(
        "This many of the last checkpoints are kept, beside the best one.", 2, low=1, remembered=False
    )
    validate_every: int = option(
        "The number of steps between validations. 0 validates at the end alone.", 0, low=0, remembered=False
    )
    # Steps between TensorBoard's scalars; log.jsonl has every step.
    log_every: int = 10
    pictures_every: int = option(
        "The number of steps between pictures for TensorBoard. 0 draws them at the end alone.",
        0,
        low=0,
        remembered=False,
    )
    profile_steps: tuple[int, int] | None = option(
        "The first and the last step that TensorBoard's profiler records.",
        None,
        syntax="FIRST,LAST, such as 20,30",
        remembered=False,
    )

    def __post_init__(self) -> None:
        check_options(self)
        if self.profile_steps and not 0 <= self.profile_steps[0] <= self.profile_steps[1]:
            first, last = self.profile_steps
            raise ValueError(f"profile_steps must be FIRST,LAST, from 0 up and in that order, not {first},{last}")


@dataclasses.dataclass(frozen=True)
class ClipOptions:
    """The clips of a batch."""

    image_sizes: tuple[Size, ...] = option(
        "The sizes of the images; each batch has one of them. The last is the size at which the network is used "
        "(section 4.1).",
        ((321, 321), (512, 512)),
    )
    batch_size: int = option("The number of clips in a step, on all devices together. The paper is silent.", 1, low=1)
    fine_weight: float = option("The weight of the loss on fine labels. 0 leaves their clips out.", 1.0, low=0)
    coarse_weight: float = option(
        "The weight of the loss on coarse labels (section 3.3). 0 leaves their clips out. The paper gives both kinds "
        "the same weight.",
        1.0,
        low=0,
    )
    data_service: str | None = option(
        "The address, grpc://HOST:PORT, of a tf.data service (msst serve_data) that prepares the batches.",
        None,
        remembered=False,
    )

    def __post_init__(self) -> None:
        check_options(self)


@dataclasses.dataclass(frozen=True)
class DeviceOptions:
    """Where it computes, and how precisely."""

    precision: str = option(
        "What the network computes in. auto measures a step in float32 and, where the hardware multiplies bfloat16, "
        "in bfloat16, and takes the faster one. A run that goes on keeps what it began with.",
        AUTO,
        choices=PRECISIONS,
    )
    deterministic: bool = option(
        "Let GPUs sum in a fixed order, so that a run repeats to the bit as it does on CPUs. That is slower.",
        False,
        remembered=False,
    )
    strategy: str = option(
        "Train on one device, on all GPUs of this host (mirrored), or on the hosts of TF_CONFIG or Slurm "
        "(multi_worker). auto takes what there is.",
        "auto",
        choices=STRATEGIES,
        remembered=False,
    )
    cpu_devices: int = option(
        "Divide the CPU into this many devices, to try --strategy=mirrored without GPUs.", 1, low=1, remembered=False
    )

    def __post_init__(self) -> None:
        check_options(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """What to train on, and where the run goes."""

    records: tuple[str, ...] = option(
        "The record folders to train on, as globs with commas between them. With shares, such as stills:3,video:1, "
        "each glob is a group that gives its share of every batch.",
        syntax=SHARE,
        remembered=False,
    )
    val_records: tuple[str, ...] | None = option(
        "The record folders to validate on, as globs with commas between them.", None, remembered=False
    )
    run_dir: str = option("The folder of the run.", remembered=False)
    prior: str | None = option("The file of the motion prior that the records were made with.", None, remembered=False)
    init_from: str | None = option(
        "What this run takes its first weights from: another run, for example that of os for st, and that of st for "
        "msst; a model of `msst export`; or `installed`, the model that is installed with the package.",
        None,
    )
    seed: int = option("The seed of the initial weights, the order of the clips and the augmentation.", 0, low=0)
    model: ModelOptions = options_of(ModelOptions)
    clips: ClipOptions = options_of(ClipOptions)
    augmentation: Augmentation = options_of(Augmentation)
    training: TrainingOptions = options_of(TrainingOptions)
    devices: DeviceOptions = options_of(DeviceOptions)

    def __post_init__(self) -> None:
        check_options(self)
