"""Trains, tests and draws variants of the network side by side, as the paper's Fig. 6 and 8.

  msst ablate --configs=configs/ablate/os.cfg,configs/ablate/st.cfg,configs/ablate/msst.cfg --crf=msst \\
       --train_args="--records=records/fbms_train --prior=prior.keras --steps=20000" \\
       --ground_truth=DAVIS --split=val --output_dir=ablation

A config is a flagfile of `msst train` that has the flags of its run alone, and the run is named after the file.
--train_args has the flags that all runs share. `--init_from=NAME` in a config starts from the run of NAME, a config
before it. Every command is printed. What is done is not done again, so the same command goes on after an interruption,
and more --configs add runs. OUTPUT_DIR then holds runs/, models/, maps/, results/ (of `msst evaluate`), ablation.csv,
and the figures.
"""

from __future__ import annotations

from msst_keras import cli
from msst_keras.flagfiles import read_flagfile
from msst_keras.jobs.options import AblateOptions
from msst_keras.tools._flags import define_flags

_read_options = define_flags(AblateOptions)


def main() -> int:
    """Trains, tests and draws what the flags say."""
    options = _read_options()
    from msst_keras.jobs.ablate import ablate, name_configs

    paths = name_configs(options)
    return ablate(options, {name: read_flagfile(path) for name, path in paths.items()})


if __name__ == "__main__":
    cli.run(main)
