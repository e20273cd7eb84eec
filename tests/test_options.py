"""Options stand once: what their fields say holds in Python, in flags and in flagfiles."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from msst_keras.conversion.options import MakeRecordsOptions
from msst_keras.evaluation.options import EvaluateOptions
from msst_keras.inference.crf import CRF_PRESETS, CrfOptions
from msst_keras.inference.options import CrfChoice, PredictOptions, RefineOptions
from msst_keras.jobs.options import AblateOptions, DemoOptions
from msst_keras.model.options import ModelOptions, check_sizes
from msst_keras.motion.options import TrainPriorOptions
from msst_keras.options import (
    Size,
    check_options,
    list_options,
    list_passed_over,
    option,
    options_of,
    plain_values,
    remembered_values,
    write_flags,
)
from msst_keras.pipeline.options import ServeDataOptions
from msst_keras.records.options import InspectRecordsOptions
from msst_keras.serving.options import ExportOptions
from msst_keras.training.options import StepOptions, TrainOptions

JOBS = (
    AblateOptions, DemoOptions, EvaluateOptions, ExportOptions, InspectRecordsOptions, MakeRecordsOptions,
    PredictOptions, RefineOptions, ServeDataOptions, TrainOptions, TrainPriorOptions,
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Part:
    """A part."""

    share: float | None = option("How much of it.", None, low=0, high=1)
    inner: int = 3  # no flag


@dataclasses.dataclass(frozen=True, kw_only=True)
class Whole:
    """A whole."""

    part: Part = options_of(Part, prefix="part_")
    names: tuple[str, ...] = option("Names.")
    size: Size = option("One size.", (3, 4))
    sizes: tuple[Size, ...] | None = option("Sizes.", None)
    window: tuple[int, int] | None = option("Two numbers.", None, syntax="FIRST,LAST")
    count: int = option("How many.", 2, choices=(1, 2))
    amount: str | float = option("Much, or a number.", "much")
    quick: bool = option("Whether.", True)

    def __post_init__(self):
        check_options(self)


def test_options_are_listed_with_their_types_own_ones_first():
    found = {name: (kind, value) for name, _, kind, value in list_options(Whole(names=("a",)))}
    assert list(found) == ["names", "size", "sizes", "window", "count", "amount", "quick", "part_share"]
    assert found["sizes"] == (tuple[Size, ...], None) and found["part_share"] == (float, None)
    assert [name for name, *_ in list_options(Whole)] == list(found)


def test_options_are_written_as_one_types_them():
    whole = Whole(
        names=("a", "b,c"), size=(5, 6), sizes=((1, 2), (3, 4)), window=(7, 8), count=1, amount=0.5, quick=False,
        part=Part(0.25),
    )  # fmt: skip
    assert write_flags(whole, leave_out=("count",)) == (
        '--amount=0.5\n--names=a,"b,c"\n--part_share=0.25\n--noquick\n--size=5x6\n--sizes=1x2,3x4\n--window=7,8\n'
    )
    assert write_flags(Whole(names=("x",))) == "--amount=much\n--count=2\n--names=x\n--quick\n--size=3x4\n"
    assert plain_values(whole) == {
        "amount": "0.5", "count": "1", "names": 'a,"b,c"', "part_share": 0.25, "quick": False, "size": "5x6",
        "sizes": "1x2,3x4", "window": "7,8",
    }  # fmt: skip


def test_what_a_field_says_holds_in_python():
    for make, message in (
        (lambda: Whole(names=("x",), count=3), "count must be one of 1, 2, not 3"),
        (lambda: Whole(names="a"), "names must be a tuple of texts, not 'a'"),
        (lambda: Whole(names=("x",), size=3), "size must be a tuple of values, not 3"),
        (lambda: Whole(names=(Path("a"),)), r"names must be a tuple of texts, not \(PosixPath"),
        (lambda: Whole(names=("x",), quick=1), "quick must be True or False, not 1"),
        (lambda: DemoOptions(steps=2.5), "steps must be a whole number, not 2.5"),
        (lambda: DemoOptions(output_dir=Path("demo")), "output_dir must be a text, not PosixPath"),
        (lambda: check_options(Part(share="x")), "share must be a number, not 'x'"),
        (lambda: DemoOptions(steps=0), "steps must be 1 or more, not 0"),
        (lambda: PredictOptions(input=("a",), threshold=1.5), "threshold must be 1.0 or less, not 1.5"),
        (lambda: ModelOptions(variant="both"), "variant must be one of os, st, msst, not 'both'"),
        (lambda: StepOptions(alpha="x"), r"alpha must be balanced, or a number in .0, 1., not 'x'"),
        (lambda: PredictOptions(input=("a",), dense_crf=CrfChoice("dss")), "the CRF are given, which is off"),
        (lambda: EvaluateOptions(predictions="a", ground_truth="b", output_dir="c", protocol=("mine",)), "among paper"),
        (lambda: PredictOptions(input=("a",), model_name="mine"), "of a model on a server: give --server"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
    with pytest.raises(TypeError, match="names"):
        Whole()


@pytest.mark.parametrize(
    "given, message",
    [
        ({"input": ()}, "input is empty; give a value"),
        ({"input": ("clip.mp4", "")}, r"input has an empty part \('clip.mp4', ''\); take it out"),
    ],
)
def test_nothing_does_not_mean_the_current_folder(given, message):
    """As when a variable of the shell is not set, or a list ends with a comma."""
    with pytest.raises(ValueError, match=message):
        PredictOptions(**given)
    with pytest.raises(ValueError, match="output_dir is empty"):
        EvaluateOptions(predictions="maps", ground_truth="DAVIS", output_dir="")


def test_settings_of_the_crf_stand_in_place_of_the_presets():
    assert CrfChoice().settings() == CrfOptions()
    found = CrfChoice("tuned", iterations=3, bilateral_srgb=4.0).settings()
    assert found == dataclasses.replace(CRF_PRESETS["tuned"], iterations=3, bilateral_srgb=4.0)
    with pytest.raises(ValueError, match="gaussian_sxy must be a positive number"):
        CrfChoice(gaussian_sxy=0).settings()


def test_results_remember_what_they_depend_on_and_nothing_else():
    options = PredictOptions(input=("a.mp4",), mirror=True, server="grpc://a:1", timeout=3.0)
    remembered = remembered_values(options)
    assert remembered["mirror"] is True
    assert {"mirror", "alternate_mirror", "crf", "frame_quality", "crf_preset", "crf_backend"} == set(remembered)
    assert {"output_dir", "timeout", "input", "live"} <= set(list_passed_over(PredictOptions))
    assert set(list_passed_over(EvaluateOptions)) == {
        "predictions", "ground_truth", "output_dir", "overwrite", "compare", "num_workers"
    }  # fmt: skip
    assert set(list_passed_over(TrainPriorOptions)) == {"records", "val_records", "val_frames", "output"}
    assert {"seed", "batch_size", "learning_rate", "image_sizes"}.isdisjoint(list_passed_over(TrainOptions))


def test_a_network_is_described_as_runs_remember_it():
    assert ModelOptions("os", weights="none").arguments() == {
        "variant": "os", "backbone": "vgg16", "num_frames": 1, "width": 1.0, "output_stride": 16, "weights": "none"
    }  # fmt: skip
    light = ModelOptions(decoder="topdown", motion_backbone="mobilenetv2").arguments()
    assert light["num_frames"] == 4
    assert {key: light[key] for key in list(light)[6:]} == {"decoder": "topdown", "motion_backbone": "mobilenetv2"}


@pytest.mark.parametrize("job", JOBS)
def test_every_option_has_a_name_of_its_own_and_help(job):
    names = [name for name, *_ in list_options(job)]
    assert len(set(names)) == len(names)
    for _, field, *_ in list_options(job):
        assert field.metadata["help"].rstrip().endswith((".", ")")), field.name


def test_a_job_gets_what_its_flags_say_and_writes_them_again(tmp_path):
    program = (
        "import sys; from absl import flags; from msst_keras.options import write_flags; from msst_keras.tools import "
        "train; flags.FLAGS(sys.argv); options = train._read_options(); print(options.clips.image_sizes, "
        "options.training.profile_steps, options.training.step.alpha, options.model.output_stride, options.records, "
        "options.training.optimizer); print(write_flags(options), end='')"
    )

    def run(*arguments):
        return subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)

    first = run(
        "--records=a,b:2", "--run_dir=r", "--image_sizes=33x44,55x66", "--profile_steps=2,3", "--alpha=0.3",
        "--output_stride=8", "--learning_rate=3e-4", "--warmup_steps=7", "--clip_norm=2", "--backbone_factor=0.5",
    )  # fmt: skip
    assert first.returncode == 0, first.stderr
    found, _, written = first.stdout.partition("\n")
    assert found == (
        "((33, 44), (55, 66)) (2, 3) 0.3 8 ('a', 'b:2') OptimizerOptions(learning_rate=0.0003, schedule='constant', "
        "warmup_steps=7, decay_power=0.9, clip_norm=2.0, average_decay=0.0, backbone_factor=0.5)"
    )
    (tmp_path / "flags.txt").write_text(written)
    assert run(f"--flagfile={tmp_path}/flags.txt").stdout == first.stdout
    wrong = run("--records=a", "--run_dir=r", "--profile_steps=2,x")
    assert "ValueError: --profile_steps must be FIRST,LAST, such as 20,30, not 2,x" in wrong.stderr


def test_a_run_remembers_the_memory_that_departs_from_the_default():
    assert not {"lstm_filters", "lstm_kernel_size"} & ModelOptions().arguments().keys()
    arguments = ModelOptions(lstm_filters=4, lstm_kernel_size=7).arguments()
    assert (arguments["lstm_filters"], arguments["lstm_kernel_size"]) == (4, 7)
    with pytest.raises(ValueError, match="lstm_kernel_size must be odd, not 4: an even kernel moves the maps by half"):
        ModelOptions(lstm_kernel_size=4)
    with pytest.raises(ValueError, match="are of the decoder branches; that of topdown has its own ConvLSTM"):
        ModelOptions(decoder="topdown", backbone="efficientnet_lite0", lstm_filters=4)


def test_the_light_network_has_sizes_of_multiples_of_its_largest_stride():
    check_sizes("topdown", [(288, 512), (32, 64)], "image_sizes")
    check_sizes("branches", [(33, 49)], "image_sizes")
    with pytest.raises(ValueError, match="^--decoder=topdown needs --image_sizes of multiples of 32, such as 288x512$"):
        check_sizes("topdown", [(288, 512), (288, 520)], "image_sizes")
