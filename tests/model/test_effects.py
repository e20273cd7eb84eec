"""Options of a network that have no effect are refused; what configs, runs and exported models hold is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from msst_keras.model.options import BATCH_NORMS, VARIANTS, ModelOptions, check_arguments

ROOT = Path(__file__).parents[2]
LIGHT = {"decoder": "topdown", "backbone": "efficientnet_lite0"}


def read_flags(path):
    """Flag -> text of a flagfile and those it names; the last one counts."""
    flags = {}
    for line in path.read_text().splitlines():
        name, _, value = line.strip().removeprefix("--").partition("=")
        if name == "flagfile":
            flags |= read_flags(ROOT / value)
        elif line.startswith("--"):
            flags[name] = value
    return flags


def network_of(flags):
    kinds = {"num_frames": int, "output_stride": int, "width": float, "frozen_stride": int}
    kinds |= {"lstm_filters": int, "lstm_kernel_size": int}
    names = {field.name for field in ModelOptions.__dataclass_fields__.values()}
    return {name: kinds.get(name, str)(value) for name, value in flags.items() if name in names}


CONFIGS = sorted((ROOT / "configs").rglob("*.cfg"))


@pytest.mark.parametrize("path", CONFIGS, ids=[str(path.relative_to(ROOT / "configs")) for path in CONFIGS])
def test_every_config_is_a_network(path):
    base = {"backbone": "efficientnet_lite0"} if path.parent.name == "ablate" else {}
    arguments = ModelOptions(**base | network_of(read_flags(path))).arguments()
    check_arguments(arguments)


def test_the_installed_model_says_what_network_it_is():
    paths = sorted((ROOT / "msst_keras" / "shipped").rglob("msst.json"))
    assert paths
    for path in paths:
        check_arguments(json.loads(path.read_text())["model"])


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("batch_norm", BATCH_NORMS)
@pytest.mark.parametrize("more", [{}, LIGHT, LIGHT | {"fusion": "gated", "frozen_stride": 4}])
def test_a_run_that_holds_every_option_is_loaded(variant, batch_norm, more):
    network = ModelOptions(variant, batch_norm=batch_norm, **more)
    check_arguments(network.arguments())
    check_arguments(vars(network))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frozen_stride": 4}, "frozen_stride=4 is of the decoder topdown"),
        ({"fusion": "gated"}, 'The decoder "branches" fuses by Eq. 5'),
        (LIGHT | {"output_stride": 8}, "output_stride=8 is of the decoder branches"),
        (LIGHT | {"lstm_kernel_size": 5}, "are of the decoder branches; that of topdown has its own ConvLSTM"),
        (LIGHT | {"frozen_stride": 2}, "frozen_stride must be one of 0, 4, 8, 16, 32, not 2"),
    ],
)
def test_options_without_effect_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ModelOptions(**options)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("lstm_kernel_size", None, "lstm_kernel_size must have a value, not None"),
        ("variant", None, "variant must have a value, not None"),
        ("lstm_filters", 10**9, "lstm_filters must be 256 or less, not 1000000000"),
        ("lstm_kernel_size", 10**9 + 1, "lstm_kernel_size must be 31 or less, not 1000000001"),
    ],
)
def test_a_damaged_file_is_refused_by_name(name, value, message):
    with pytest.raises(ValueError, match=message):
        check_arguments({name: value})
    check_arguments({"motion_backbone": None})  # which may be none
