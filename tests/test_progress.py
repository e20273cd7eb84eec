"""Progress passes items on and reports in lines where there is no terminal."""

from __future__ import annotations

from msst_keras.progress import progress


def test_items_pass_and_a_log_gets_lines(capsys):
    assert list(progress(iter("abc"), 3, "letters")) == ["a", "b", "c"]
    error = capsys.readouterr().err
    assert "letters: 100% 3/3" in error
    assert "\r" not in error and error.endswith("\n")


def test_work_done_before_counts(capsys):
    assert list(progress(range(2, 4), 4, "steps", initial=2)) == [2, 3]
    assert "steps: 100% 4/4" in capsys.readouterr().err
