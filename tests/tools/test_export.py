"""`msst export` chooses the next version by the folders that are there."""

from __future__ import annotations

from msst_keras.jobs import export as export_job
from msst_keras.model.msst import build_msst
from msst_keras.serving.options import ExportOptions
from msst_keras.training import run_dir


def test_only_folders_of_decimal_digits_are_versions(tmp_path, monkeypatch):
    settings = {"variant": "os", "backbone": "vgg16", "num_frames": 1, "width": 0.03, "output_stride": 16}
    run_dir.write_run(tmp_path / "run", {"model": settings, "motion": None, "image_size": [32, 32]})
    monkeypatch.setattr(export_job, "_load_mean", lambda runs, checkpoint: build_msst(**settings))
    monkeypatch.setattr(export_job, "export_saved_model", lambda path, *_: None)
    for name in ("2", "\u00b2", "\u00b3", "9a", ".8"):
        (tmp_path / "models" / name).mkdir(parents=True)
    path = export_job.export(ExportOptions(run_dir=str(tmp_path / "run"), output_dir=str(tmp_path / "models")))
    assert path == tmp_path / "models" / "3"
