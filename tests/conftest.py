"""Fixtures of all tests."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# A shell lets what it starts in the background ignore Ctrl-C, and `nohup` what it starts a hangup. The processes that
# tests interrupt would do so too: they inherit what is ignored, but no handler.
signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data that MSST_REAL_DATA names; the tests that ask for it are skipped without one."""
    path = os.environ.get("MSST_REAL_DATA")
    if not path:
        pytest.skip("MSST_REAL_DATA is not set: this test needs real data")
    return Path(path)
