"""Trains, tests and draws variants of the network side by side, as the paper's Fig. 6 and 8.

  msst ablate --configs=configs/ablate/os.cfg,configs/ablate/st.cfg,configs/ablate/msst.cfg --crf=msst \\
       --train_args="--records=records/fbms_train --prior=prior.keras --steps=20000" \\
       --ground_truth=DAVIS --split=val --output_dir=ablation

A config is a flagfile of `msst train` with what is special about its run, named after it; --train_args has what all
runs share. `--init_from=NAME` in a config, NAME being a config before it, starts from that run. Every command is
printed; what is done is not done again, so the same command goes on after an interruption, and a longer --configs adds
runs. OUTPUT_DIR then holds runs/, models/, maps/, results/ (of `msst evaluate`), ablation.csv, and the figures.
"""

from __future__ import annotations

import csv
import json
import shlex
import statistics
from pathlib import Path

from absl import flags

from msst_keras import cli
from msst_keras.processes import run_job

_CONFIGS = flags.DEFINE_list("configs", None, "Flagfiles of `msst train`, in order, comma-separated.")
_TRAIN_ARGS = flags.DEFINE_string("train_args", "", "Flags of `msst train` for all runs; a config's own win.")
_SEEDS = flags.DEFINE_list("seeds", ["0"], "Each config is trained once a seed; more than one gives mean and spread.")
_CRF = flags.DEFINE_list("crf", [], "Configs whose maps are also refined, as NAME_crf: names, or all.")
_REFINE_ARGS = flags.DEFINE_string("refine_args", "", "Flags of `msst refine`, such as --crf_preset=dss.")
_GROUND_TRUTH = flags.DEFINE_string("ground_truth", None, "Folder of the dataset to test on.")
_LAYOUT = flags.DEFINE_enum("layout", "davis", ["davis", "fbms", "segtrackv2"], "Of --ground_truth.")
_SPLIT = flags.DEFINE_enum("split", "all", ["train", "val", "all"], "Which official part of it.")
_SEQUENCES = flags.DEFINE_list("sequences", None, "Only these sequences, comma-separated.")
_PROTOCOL = flags.DEFINE_string("protocol", "paper", "Of `msst evaluate`.")
_OUTPUT_DIR = flags.DEFINE_string("output_dir", None, "Folder for everything.")
flags.mark_flags_as_required(["configs", "ground_truth", "output_dir"])

_CRF_SUFFIX = "_crf"
_REPORT = "report.html"  # what `msst evaluate` writes last


def main() -> int | None:
    """Runs the stages of each run, then evaluates all of them and draws."""
    from msst_keras.data import datasets
    from msst_keras.evaluation.protocols import PROTOCOLS

    if _PROTOCOL.value not in PROTOCOLS:
        raise ValueError(f"--protocol must be one of {', '.join(PROTOCOLS)}, not '{_PROTOCOL.value}'")
    out = Path(_OUTPUT_DIR.value)
    variants = _read_configs(out)
    sequences = datasets.find_sequences(_LAYOUT.value, _GROUND_TRUTH.value, _SPLIT.value, _SEQUENCES.value)
    _keep_plan(out, variants, [sequence.name for sequence in sequences])
    methods = {}  # variant -> the names of its maps, one per seed
    for variant, runs in variants.items():
        for name, train_args in runs.items():
            if status := _make_maps(out, name, train_args, sequences):
                return status
        methods[variant] = list(runs)
        if variant in _CRF.value or _CRF.value == ["all"]:
            for name in runs:
                if status := _refine_maps(out, name, sequences):
                    return status
            methods[variant + _CRF_SUFFIX] = [name + _CRF_SUFFIX for name in runs]
    names = [name for members in methods.values() for name in members]
    return _evaluate(out, names) or _report(out, methods)


def _read_configs(out: Path) -> dict[str, dict[str, list[str]]]:
    """Config name -> run name -> its arguments of `msst train`."""
    paths = [Path(path) for path in _CONFIGS.value]
    names = [path.stem for path in paths]
    if len(set(names)) < len(names):
        raise ValueError(f"--configs has two files of one name ({', '.join(names)}); a run is named after its file")
    unknown = [] if _CRF.value == ["all"] else sorted(set(_CRF.value) - set(names))
    if unknown:
        raise ValueError(f"--crf names {', '.join(unknown)}; the configs are {', '.join(names)}")
    variants = {}
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such config; it is a flagfile of `msst train`")
        own = flags.FLAGS.read_flags_from_files([f"--flagfile={path}"])
        variants[path.stem] = {}
        for seed in _SEEDS.value:
            suffix = f"-{seed}" if len(_SEEDS.value) > 1 else ""
            earlier = {f"--init_from={name}": f"--init_from={out}/runs/{name}{suffix}" for name in variants}
            arguments = [*shlex.split(_TRAIN_ARGS.value), *(earlier.get(argument, argument) for argument in own)]
            variants[path.stem][path.stem + suffix] = [*arguments, f"--seed={seed}"]
    return variants


def _keep_plan(out: Path, variants: dict, sequences: list[str]) -> None:
    """Writes what is made with which flags; refuses to mix runs of other flags or tests on other sequences."""
    from msst_keras.files import publish

    path = out / "plan.json"
    test = {"ground_truth": _GROUND_TRUTH.value, "sequences": sequences, "protocol": _PROTOCOL.value,
            "refine_args": _REFINE_ARGS.value}  # fmt: skip
    runs = {name: arguments for members in variants.values() for name, arguments in members.items()}
    if path.is_file():
        found = json.loads(path.read_text())
        for name, value in test.items():
            if (out / "maps").exists() and found["test"][name] != value:
                raise ValueError(f"{out} was begun with {name} {found['test'][name]}; choose another --output_dir")
        for name, arguments in runs.items():
            if (out / "runs" / name).exists() and found["runs"].get(name, arguments) != arguments:
                raise ValueError(
                    f"{out} was begun with other flags for the run {name} ({shlex.join(found['runs'][name])}); "
                    "choose another --output_dir or another name"
                )
        runs = {**found["runs"], **runs}
    with publish(path) as temporary:
        temporary.write_text(json.dumps({"test": test, "runs": runs}, indent=2) + "\n")


def _make_maps(out: Path, name: str, train_args: list[str], sequences) -> int:
    """Trains and exports a run and predicts the maps of the test sequences; returns the status of what failed, or 0."""
    run_dir, model, maps = out / "runs" / name, out / "models" / name, out / "maps" / name
    folders = ",".join(str(sequence.frame_paths[0].parent) for sequence in sequences)
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


def _refine_maps(out: Path, name: str, sequences) -> int:
    maps, refined = out / "maps" / name, out / "maps" / (name + _CRF_SUFFIX)
    if len(list(refined.glob("*/[!.]*.png"))) == sum(map(len, sequences)):
        return 0
    frames = sequences[0].frame_paths[0].parent.parent
    arguments = [f"--maps={maps}", f"--frames={frames}", f"--output_dir={refined}"]
    return run_job("refine", *arguments, *shlex.split(_REFINE_ARGS.value))


def _evaluate(out: Path, names: list[str]) -> int:
    """Scores all maps in one table and report; the last, the fullest variant, stands for the user's own."""
    *others, own = names
    paths = _result_paths(out, names)
    if all(path.is_file() for path in (*paths.values(), paths[own].with_name(_REPORT))):
        return 0
    arguments = [
        f"--predictions={out}/maps/{own}", f"--name={own}", f"--ground_truth={_GROUND_TRUTH.value}",
        f"--layout={_LAYOUT.value}", f"--split={_SPLIT.value}", f"--protocol={_PROTOCOL.value}",
        f"--output_dir={out}/results/{own}",
    ]  # fmt: skip
    if _SEQUENCES.value:
        arguments.append(f"--sequences={','.join(_SEQUENCES.value)}")
    if others:
        arguments.append("--compare=" + ",".join(f"{name}:{out}/maps/{name}" for name in others))
    return run_job("evaluate", *arguments)


def _result_paths(out: Path, names: list[str]) -> dict[str, Path]:
    *others, own = names
    folder = out / "results" / own
    return {**{name: folder / f"metrics-{name}.json" for name in others}, own: folder / "metrics.json"}


def _report(out: Path, methods: dict[str, list[str]]) -> None:
    """Writes ablation.csv and the figures, of the means over seeds, and prints the table."""
    from msst_keras.evaluation.figures import Method, write_ablation
    from msst_keras.evaluation.protocols import SCALARS
    from msst_keras.evaluation.report import format_table
    from msst_keras.files import publish

    paths = _result_paths(out, [name for members in methods.values() for name in members])
    results = {name: json.loads(path.read_text()) for name, path in paths.items()}
    with publish(out / "ablation.csv") as path, open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["variant", "num_seeds", *(f"{name}{part}" for name in SCALARS for part in ("", "_spread"))])
        for variant, names in methods.items():
            cells = [cell for key in SCALARS for cell in _mean_and_spread([results[name][key] for name in names])]
            writer.writerow([variant, len(names), *cells])
    means = {variant: _mean([results[name] for name in names]) for variant, names in methods.items()}
    num_seeds = len(_SEEDS.value)
    title = f"Variants, protocol {_PROTOCOL.value}" + (f", means of {num_seeds} seeds" if num_seeds > 1 else "")
    report = list(paths.values())[-1].with_name(_REPORT)
    figures = write_ablation(out, [Method(name, result, {}) for name, result in means.items()], title)
    print(f"\n{title}\n{format_table(means)}\n" + ", ".join(map(str, [out / "ablation.csv", report, *figures])))


def _mean_and_spread(values: list[float | None]) -> tuple:
    """Mean and sample standard deviation; None (an empty cell) where there is none."""
    if None in values:
        return None, None
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def _mean(results: list[dict]) -> dict:
    """The mean of several metrics.json: numbers, and lists of numbers, over seeds; the rest is alike in all."""
    first = results[0]

    def mean(key):
        values = [result[key] for result in results]
        if isinstance(first[key], list):
            return [None if None in column else statistics.fmean(column) for column in zip(*values, strict=True)]
        return statistics.fmean(values) if isinstance(first[key], float) else first[key]

    return {key: mean(key) for key in first if key != "sequences"}


if __name__ == "__main__":
    cli.run(main)
