"""Nothing appears under its final name before it is whole."""

from __future__ import annotations

import pytest

from msst_keras.files import publish


def test_a_file_appears_when_the_block_ends(tmp_path):
    path = tmp_path / "new" / "file.txt"
    with publish(path) as temporary:
        temporary.write_text("whole")
        assert temporary.suffix == ".txt" and not path.exists()
    assert path.read_text() == "whole" and [*path.parent.iterdir()] == [path]


def test_a_failure_leaves_what_was_there(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="disk"), publish(path) as temporary:
        temporary.write_text("ha")
        raise RuntimeError("disk")
    assert path.read_text() == "old" and [*tmp_path.iterdir()] == [path]


def test_a_folder_is_published_whole_and_does_not_replace_another(tmp_path):
    path = tmp_path / "folder"

    def write(content):
        with publish(path) as temporary:
            temporary.mkdir()
            (temporary / "file").write_text(content)

    write("first")
    with pytest.raises(FileExistsError, match="exists already and is not empty"):
        write("second")
    assert (path / "file").read_text() == "first" and [*tmp_path.iterdir()] == [path]
