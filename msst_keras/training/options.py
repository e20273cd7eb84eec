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

    alpha: str | float = option("Balance factor of Eq. 7: balanced (per image), or a number in (0, 1).", "balanced")
    min_share: float = option(
        "Least share of an image that either kind of pixel counts as in --alpha=balanced, so that a frame without an "
        "object weighs no more than one with a small one; 0: the share itself, and 1/2 for a frame of one kind.",
        DEFAULT_MIN_SHARE,
        low=0,
        high=0.49,
    )
    beta: float = option("Weight of the loss behind the ConvLSTM, Eq. 8.", 0.1, low=0)
    # Class-balanced cross-entropy alone leaves halos around objects (a worse MAE at the same ranking), which a region
    # loss repairs.
    region_weight: float = option("Weight of a soft IoU loss; not in the paper.", 0.0, low=0)
    accumulation_steps: int = option(
        "Parts in which a device computes its share of the batch, to save memory.", 1, low=1, remembered=False
    )
    recompute: bool = option("Compute the streams twice, frame by frame, to save memory.", False, remembered=False)
    xla: bool = option("Compile the step with XLA.", False, remembered=False)
    side_weight: float = option(
        "Weight of each side output's loss, with --decoder=topdown.", DEFAULT_SIDE_WEIGHT, low=0
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

    learning_rate: float = option("Of Adam; 1e-3 is the paper's.", 1e-3, low=0)
    schedule: str = option("Of the learning rate; constant is the paper's.", "constant", choices=SCHEDULES)
    warmup_steps: int = option("Steps in which the learning rate rises from 0.", 0, low=0)
    # Of "polynomial", (1 - progress) ** power; 0.9 is DeepLab's.
    decay_power: float = 0.9
    clip_norm: float = option("Limit of the gradient's norm; 0: none, as in the paper.", 0.0, low=0)
    # The average begins with the first weights: 0.999 forgets them after a few thousand steps.
    average_decay: float = option(
        "Of an exponential average of the weights, which then are the result; 0: none.", 0.0, low=0, high=1
    )
    backbone_factor: float = option(
        "Times the learning rate of the streams' weights that were loaded (--weights, --init_from); 0 freezes them.",
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
    """How long a training is, and how often it looks up."""

    steps: int = option("Steps of the whole training. The paper is silent.", 20000, low=1)
    step: StepOptions = options_of(StepOptions)
    optimizer: OptimizerOptions = options_of(OptimizerOptions)
    checkpoint_every: int = option("Steps between checkpoints.", 200, low=1, remembered=False)
    keep_checkpoints: int = option("How many of the last, beside the best.", 2, low=1, remembered=False)
    validate_every: int = option("Steps between validations; 0: at the end alone.", 0, low=0, remembered=False)
    # Steps between TensorBoard's scalars; log.jsonl has every step.
    log_every: int = 10
    pictures_every: int = option("Steps between pictures; 0: at the end alone.", 0, low=0, remembered=False)
    profile_steps: tuple[int, int] | None = option(
        "FIRST,LAST step of a window for TensorBoard's profiler.",
        None,
        syntax="FIRST,LAST, such as 20,30",
        remembered=False,
    )

    def __post_init__(self) -> None:
        check_options(self)


@dataclasses.dataclass(frozen=True)
class ClipOptions:
    """The clips of a batch."""

    image_sizes: tuple[Size, ...] = option(
        "Mixed batch by batch; the last is the size of use (4.1).", ((321, 321), (512, 512))
    )
    batch_size: int = option("Clips in a step, of all devices. The paper is silent.", 1, low=1)
    fine_weight: float = option("Of the loss on fine labels; 0 leaves their clips out.", 1.0, low=0)
    coarse_weight: float = option(
        "Of the loss on coarse labels (3.3); 0 leaves their clips out; the paper mixes them alike.", 1.0, low=0
    )
    data_service: str | None = option(
        "grpc://HOST:PORT of a tf.data service that prepares the batches (msst serve_data).", None, remembered=False
    )

    def __post_init__(self) -> None:
        check_options(self)


@dataclasses.dataclass(frozen=True)
class DeviceOptions:
    """Where it computes, and how precisely."""

    precision: str = option(
        "auto times a step of the network in float32 and, where the hardware multiplies it, in bfloat16, and takes the "
        "faster; a run that goes on keeps what it began with.",
        AUTO,
        choices=PRECISIONS,
    )
    deterministic: bool = option(
        "On GPUs: sum in a fixed order, slower, so that a run repeats to the bit as on CPUs.", False, remembered=False
    )
    strategy: str = option(
        "One device, all GPUs of the host, or the hosts of TF_CONFIG or Slurm; auto takes what there is.",
        "auto",
        choices=STRATEGIES,
        remembered=False,
    )
    cpu_devices: int = option("Parts of the CPU; more than one tries --strategy=mirrored.", 1, low=1, remembered=False)

    def __post_init__(self) -> None:
        check_options(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """What to train on, and where the run goes."""

    records: tuple[str, ...] = option(
        "Globs of record folders to train on, comma-separated. With shares, as stills:3,video:1, each is a group that "
        "gives its share of every batch.",
        syntax=SHARE,
        remembered=False,
    )
    val_records: tuple[str, ...] | None = option("Globs of record folders to validate on.", None, remembered=False)
    run_dir: str = option("Folder of the run.", remembered=False)
    prior: str | None = option("File of the motion prior that the records were made with.", None, remembered=False)
    init_from: str | None = option("A run whose weights to start from (os, then st, then msst).", None)
    seed: int = option("Of initial weights, order and augmentation.", 0, low=0)
    model: ModelOptions = options_of(ModelOptions)
    clips: ClipOptions = options_of(ClipOptions)
    augmentation: Augmentation = options_of(Augmentation)
    training: TrainingOptions = options_of(TrainingOptions)
    devices: DeviceOptions = options_of(DeviceOptions)

    def __post_init__(self) -> None:
        check_options(self)
