"""Fixtures of all tests."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import small_model

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# A shell lets what it starts in the background ignore Ctrl-C, and `nohup` what it starts a hangup. The processes that
# tests interrupt would do so too: they inherit what is ignored, but no handler.
signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)


# The order of the files. Those that measure the memory of their process come before all that fill it. Then come those
# that take longest, so that at the end no process waits minutes for another.
_FIRST = (
    "test_hostile*.py", "tools/test_demo.py", "tools/test_train.py", "app/test_app.py", "serving/test_export.py",
    "motion/test_prior_training.py", "conversion/test_convert.py", "pipeline/test_batches.py",
    "tools/test_bad_input.py", "labels/test_review_browser.py", "tools/test_predict.py", "training/test_loop.py",
    "training/test_optimizer.py", "tools/test_fuse_labels.py", "test_fuzz.py", "synthetic/test_still_variety.py",
    "serving/test_step.py", "model/test_backbones.py",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    def rank(item):
        return next((place for place, name in enumerate(_FIRST) if item.path.match(name)), len(_FIRST))

    items.sort(key=rank)


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory) -> Path:
    """A folder of all processes that run these tests; what is made in it under a lock is made once."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(scope="session")
def saved_model(shared_folder) -> Path:
    """The folder of `small_model`; not to be changed."""
    return small_model.export_once(shared_folder)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data that MSST_REAL_DATA names; the tests that ask for it are skipped without one."""
    path = os.environ.get("MSST_REAL_DATA")
    if not path:
        pytest.skip("MSST_REAL_DATA is not set: this test needs real data")
    return Path(path)
