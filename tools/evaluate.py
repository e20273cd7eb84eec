"""Scores saliency maps against masks under named protocols; writes metrics, a CSV per frame, and a report.

  msst evaluate --predictions=maps --ground_truth=DAVIS --protocol=paper --output_dir=results
  msst evaluate --predictions=maps --ground_truth=DAVIS --protocol=all --output_dir=results --compare=pdb:PDB,ssav:SSAV

Maps are 8-bit grey PNGs named PREDICTIONS/SEQUENCE/FRAME.png, as `msst predict` writes them, or
PREDICTIONS/NAME.png with --layout=flat. Two baselines are scored beside them, an all-black map and the magnitude of
optical flow. OUTPUT_DIR gets metrics.json, metrics.csv, frames.csv and report.html, and for each other method
metrics-NAME.json, metrics-NAME.csv and frames-NAME.csv. With several protocols, each has a folder of its own.
"""

from __future__ import annotations

from absl import flags

from msst_keras import cli
from msst_keras.evaluation.options import PROTOCOL_NAMES, EvaluateOptions, are_protocols
from msst_keras.tools._flags import define_flags

_read_options = define_flags(EvaluateOptions)
flags.register_validator("protocol", are_protocols, message=f"must be among {', '.join(PROTOCOL_NAMES)}, or all")


def main() -> None:
    """Scores what the flags say."""
    options = _read_options()
    from msst_keras.jobs.evaluate import evaluate

    evaluate(options)


if __name__ == "__main__":
    cli.run(main)
