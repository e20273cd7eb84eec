"""Trains, tests and draws variants of the network side by side, as the paper's Fig. 6 and 8; `msst ablate`."""

from __future__ import annotations

import csv
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from msst_keras.data import datasets
from msst_keras.data.sequences import FileSequence
from msst_keras.evaluation.figures import Method, write_ablation
from msst_keras.evaluation.options import check_method_names
from msst_keras.evaluation.protocols import PROTOCOLS, SCALARS
from msst_keras.evaluation.report import format_table, metrics_path
from msst_keras.evaluation.scores import ALL_BLACK, FLOW_MAGNITUDE
from msst_keras.evaluation.seeds import mean_and_spread, mean_result
from msst_keras.files import guard_cell, publish, read_json, write_json
from msst_keras.jobs.options import AblateOptions
from msst_keras.locks import hold_folder
from msst_keras.options import join_values
from msst_keras.outputs import check_apart
from msst_keras.processes import run_job
from msst_keras.training.options import AUTO

_CRF_SUFFIX = "_crf"
_REPORT = "report.html"  # what `msst evaluate` writes last
_MEND = "remove it to plan these runs again, or choose another --output_dir"


def ablate(options: AblateOptions, configs: Mapping[str, Sequence[str]]) -> int:
    """Runs the stages of each run, then evaluates all of them and draws.

    Args:
      options: what to do.
      configs: config name -> the flags of `msst train` that it has, in the order of training.

    Returns:
      0, or the exit status of the job that ended otherwise.

    Raises:
      ValueError, FileNotFoundError: options that cannot be meant, or a folder that was begun with others.
    """
    if options.protocol not in PROTOCOLS:
        raise ValueError(f"--protocol must be one of {', '.join(PROTOCOLS)}, not '{options.protocol}'")
    out = Path(options.output_dir)
    variants = _plan_runs(options, configs)
    runs = [name for members in variants.values() for name in members]
    # What `msst evaluate` would refuse is refused before the first training.
    check_method_names([*runs, *(name + _CRF_SUFFIX for name in runs)], [ALL_BLACK, FLOW_MAGNITUDE])
    sequences = datasets.find_sequences(options.layout, options.ground_truth, options.split, options.sequences)
    if options.crf and len({sequence.frame_paths[0].parent.parent for sequence in sequences}) > 1:
        raise ValueError(
            f"the sequences to test on lie in several folders of {options.ground_truth}, and `msst refine` takes one; "
            "give --split=train or --split=val"
        )
    check_apart(out, {sequence.frame_paths[0].parent for sequence in sequences})
    with hold_folder(out):
        _keep_plan(options, variants, [sequence.name for sequence in sequences])
        return _run_stages(options, variants, sequences)


def _run_stages(options: AblateOptions, variants: dict, sequences: list[FileSequence]) -> int:
    """Makes the maps of all runs, evaluates and draws; returns the status of the job that failed, or 0."""
    out = Path(options.output_dir)
    methods = {}  # variant -> the names of its maps, one per seed
    first = next(name for runs in variants.values() for name in runs)
    for variant, runs in variants.items():
        for name, train_args in runs.items():
            precision = share_precision(out / "runs" / first, out / "runs" / name, train_args)
            if status := _make_maps(out, name, [*train_args, *precision], sequences):
                return status
        methods[variant] = list(runs)
        if variant in options.crf or tuple(options.crf) == ("all",):
            for name in runs:
                if status := _refine_maps(options, name, sequences):
                    return status
            methods[variant + _CRF_SUFFIX] = [name + _CRF_SUFFIX for name in runs]
    names = [name for members in methods.values() for name in members]
    if status := _evaluate(options, names):
        return status
    _report(options, methods)
    return 0


def name_configs(options: AblateOptions) -> dict[str, Path]:
    """The config files by the names that their runs have.

    Raises:
      ValueError: two files of one name, or a name that `options.crf` has and no file.
      FileNotFoundError: a file that is not there.
    """
    paths = [Path(path) for path in options.configs]
    names = [path.stem for path in paths]
    if len(set(names)) < len(names):
        raise ValueError(f"--configs has two files of one name ({', '.join(names)}); a run is named after its file")
    unknown = [] if tuple(options.crf) == ("all",) else sorted(set(options.crf) - set(names))
    if unknown:
        raise ValueError(f"--crf names {', '.join(unknown)}; the configs are {', '.join(names)}")
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such config; it is a flagfile of `msst train`")
    return dict(zip(names, paths, strict=True))


def _plan_runs(options: AblateOptions, configs: Mapping[str, Sequence[str]]) -> dict[str, dict[str, list[str]]]:
    """Config name -> run name -> its arguments of `msst train`."""
    variants: dict[str, dict[str, list[str]]] = {}
    for config, own in configs.items():
        variants[config] = {}
        for seed in options.seeds:
            suffix = f"-{seed}" if len(options.seeds) > 1 else ""
            runs = f"{Path(options.output_dir)}/runs"
            earlier = {f"--init_from={name}": f"--init_from={runs}/{name}{suffix}" for name in variants}
            arguments = [*shlex.split(options.train_args), *(earlier.get(argument, argument) for argument in own)]
            variants[config][config + suffix] = [*arguments, f"--seed={seed}"]
    return variants


def _keep_plan(options: AblateOptions, variants: dict, sequences: list[str]) -> None:
    """Writes what is made with which flags; refuses to mix runs of other flags or tests on other sequences.

    Unlike other folders this one may be continued with more runs, and with others for those that were not begun.
    """
    out = Path(options.output_dir)
    path = out / "plan.json"
    test = {"ground_truth": options.ground_truth, "sequences": sequences, "protocol": options.protocol,
            "refine_args": options.refine_args}  # fmt: skip
    runs = {name: arguments for members in variants.values() for name, arguments in members.items()}
    if path.is_file():
        found = read_json(path, _MEND)
        if not isinstance(found.get("test"), dict) or not isinstance(found.get("runs"), dict):
            raise ValueError(f"{path}: damaged (expected test and runs, found {', '.join(found)}); {_MEND}")
        for name, value in test.items():
            if (out / "maps").exists() and found["test"].get(name) != value:
                raise ValueError(f"{out} was begun with {name} {found['test'].get(name)}; choose another --output_dir")
        for name, arguments in runs.items():
            if (out / "runs" / name).exists() and found["runs"].get(name, arguments) != arguments:
                raise ValueError(
                    f"{out} was begun with other flags for the run {name} ({shlex.join(found['runs'][name])}); "
                    "choose another --output_dir or another name"
                )
        runs = {**found["runs"], **runs}
    write_json(path, {"test": test, "runs": runs}, indent=2)


def share_precision(first: Path, run_dir: Path, train_args: Sequence[str]) -> list[str]:
    """The flag by which a run that is to measure its precision takes that of the first run instead.

    Runs that measure, each by itself, may differ in what they choose, and then the table would compare that too. A run
    that was begun goes on only with the flags that it was begun with, so it is given the same flag again.

    Args:
      first: the run directory that is trained first.
      run_dir: the one to be trained; it may be `first`.
      train_args: its flags.

    Returns:
      --precision=...; nothing for a run that measures or was begun so, or whose flags choose one.
    """
    values = re.findall("(?:^|\n)--?precision[=\n](.*)", "\n".join(train_args))
    if values and values[-1] != AUTO:
        return []
    if (run_dir / "run.json").exists():
        precision = _read_begun_precision(run_dir)
    else:
        precision = None if run_dir == first else read_json(first / "run.json", _MEND).get("precision")
    return [f"--precision={precision}"] if precision not in (None, AUTO) else []


def _read_begun_precision(run_dir: Path) -> str | None:
    """What --precision was when a run was begun; None where its run.json does not say so."""
    training = read_json(run_dir / "run.json", _MEND).get("training")
    return training.get("precision") if isinstance(training, dict) else None


def _make_maps(out: Path, name: str, train_args: list[str], sequences: list[FileSequence]) -> int:
    """Trains and exports a run and predicts the maps of the test sequences; returns the status of what failed, or 0."""
    run_dir, model, maps = out / "runs" / name, out / "models" / name, out / "maps" / name
    folders = join_values(sequence.frame_paths[0].parent for sequence in sequences)
    stages = (
        (run_dir / "result.json", ["train", *train_args, f"--run_dir={run_dir}"]),
        (model / "1", ["export", f"--run_dir={run_dir}", f"--output_dir={model}", "--version=1"]),
        # Sequences are predicted in this order: where the last is, all are.
        (maps / sequences[-1].name, ["predict", f"--model={model}", f"--input={folders}", f"--output_dir={maps}"]),
    )
    for done, command in stages:
        if not done.exists() and (status := run_job(*command)):
            return status
    return 0


def _refine_maps(options: AblateOptions, name: str, sequences: list[FileSequence]) -> int:
    folder = Path(options.output_dir) / "maps"
    maps, refined = folder / name, folder / (name + _CRF_SUFFIX)
    # An empty file is what a power cut leaves of a map.
    if sum(path.stat().st_size > 0 for path in refined.glob("*/[!.]*.png")) == sum(map(len, sequences)):
        return 0
    frames = sequences[0].frame_paths[0].parent.parent
    arguments = [f"--maps={maps}", f"--frames={frames}", f"--output_dir={refined}"]
    return run_job("refine", *arguments, *shlex.split(options.refine_args))


def _evaluate(options: AblateOptions, names: list[str]) -> int:
    """Scores all maps in one table and report; the last, the fullest variant, stands for the user's own."""
    out = Path(options.output_dir)
    *others, own = names
    # The job itself knows whether this is done already, and of the same maps.
    arguments = ["--overwrite",
        f"--predictions={out}/maps/{own}", f"--name={own}", f"--ground_truth={options.ground_truth}",
        f"--layout={options.layout}", f"--split={options.split}", f"--protocol={options.protocol}",
        f"--output_dir={out}/results/{own}",
    ]  # fmt: skip
    if options.sequences:
        arguments.append(f"--sequences={join_values(options.sequences)}")
    if others:
        arguments.append("--compare=" + join_values(f"{name}:{out}/maps/{name}" for name in others))
    return run_job("evaluate", *arguments)


def _result_paths(out: Path, names: list[str]) -> dict[str, Path]:
    *others, own = names
    folder = out / "results" / own
    return {**{name: metrics_path(folder, name) for name in others}, own: metrics_path(folder)}


def _report(options: AblateOptions, methods: dict[str, list[str]]) -> None:
    """Writes ablation.csv and the figures, of the means over seeds, and prints the table."""
    out = Path(options.output_dir)
    paths = _result_paths(out, [name for members in methods.values() for name in members])
    results = {name: read_json(path, "remove it to score again") for name, path in paths.items()}
    with publish(out / "ablation.csv") as path, open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["variant", "num_seeds", *(f"{name}{part}" for name in SCALARS for part in ("", "_spread"))])
        for variant, names in methods.items():
            cells = [cell for key in SCALARS for cell in mean_and_spread([results[name][key] for name in names])]
            writer.writerow([guard_cell(variant), len(names), *cells])
    means = {variant: mean_result([results[name] for name in names]) for variant, names in methods.items()}
    num_seeds = len(options.seeds)
    title = f"Variants, protocol {options.protocol}" + (f", means of {num_seeds} seeds" if num_seeds > 1 else "")
    report = list(paths.values())[-1].with_name(_REPORT)
    figures = write_ablation(out, [Method(name, result, {}) for name, result in means.items()], title)
    print(f"\n{title}\n{format_table(means)}\n" + ", ".join(map(str, [out / "ablation.csv", report, *figures])))
