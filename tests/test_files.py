"""Nothing appears under its final name before it is whole."""

from __future__ import annotations

import os

import pytest

from msst_keras.files import DifferentSettingsError, guard_cell, hash_folder, publish, read_cell, remember


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


def test_a_folder_remembers_what_it_is_made_with(tmp_path):
    path = tmp_path / "folder" / "settings.json"
    remember(path, {"size": (3, 4), "name": None}, indent=1)
    assert path.read_text() == '{\n "size": [\n  3,\n  4\n ],\n "name": null\n}\n'
    before = path.stat().st_mtime_ns
    remember(path, {"size": [3, 4], "name": None}, indent=1)
    assert path.stat().st_mtime_ns == before
    for settings, keys in (
        ({"size": (3, 5), "name": None}, ["size"]),
        ({"size": (3, 4)}, ["name"]),  # None is not the same as nothing
        ({"more": 1, "name": "x", "size": (3, 4)}, ["more", "name"]),
    ):
        with pytest.raises(DifferentSettingsError, match=f"{path} says {keys[0]} .*; choose another folder") as caught:
            remember(path, settings)
        assert caught.value.keys == keys and caught.value.found == {"size": [3, 4], "name": None}
    assert path.stat().st_mtime_ns == before


@pytest.mark.parametrize("content", ["{", "[1]", "7", "[" * 10**5])
def test_a_damaged_memory_is_said(tmp_path, content):
    (tmp_path / "settings.json").write_text(content)
    with pytest.raises(ValueError, match="settings.json: damaged .*; remove the folder or choose another"):
        remember(tmp_path / "settings.json", {"size": 3})


@pytest.mark.parametrize("name", ["=1+1", "+1", "-2", "@SUM(A1)", "\tx", "'=1", "''-1", "'quoted", "bear", "", "a=b"])
def test_a_cell_is_text_to_a_spreadsheet_and_comes_back(name):
    cell = guard_cell(name)
    assert not cell.startswith(tuple("=+-@\t\r")) and read_cell(cell) == name
    assert cell == name or cell == f"'{name}"


def test_what_is_published_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    done, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: done.append(os.readlink(f"/proc/self/fd/{descriptor}")) or fsync(descriptor)
    )
    monkeypatch.setattr(os, "replace", lambda source, target: done.append("named") or replace(source, target))
    with publish(tmp_path / "a.txt") as temporary:
        temporary.write_text("whole")
    assert done == [str(temporary), "named", str(tmp_path)]  # and the name is on the disk, too
    done.clear()
    with publish(tmp_path / "folder") as temporary:
        temporary.mkdir()
        (temporary / "b.txt").write_text("whole")
    assert set(done[: done.index("named")]) == {str(temporary), str(temporary / "b.txt")} and done[-1] == str(tmp_path)


def write_folder(folder):
    for name in ("b/2.png", "b/.hidden", "b-1.png", "a/deep/x", "10"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def test_the_hash_of_a_folder_is_that_which_result_folders_remember(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "nowhere").symlink_to("none")
    assert hash_folder(tmp_path) == "1a239a9e7338f4a9bbd4915ab8e7a0e8e8ce0d6b2b6d9081370e2d666699032e"


def test_the_hash_of_a_folder_is_also_of_what_links_lead_to(tmp_path):
    write_folder(tmp_path / "flow")
    (tmp_path / "links").mkdir()
    for name in ("a", "b", "b-1.png", "10"):
        (tmp_path / "links" / name).symlink_to(tmp_path / "flow" / name)
    before = hash_folder(tmp_path / "links")
    assert before == hash_folder(tmp_path / "flow")
    (tmp_path / "links/again").symlink_to("b")
    both = hash_folder(tmp_path / "links")
    for name in ("up", "here", "flow"):  # no end, and nothing that is not there already
        (tmp_path / "flow/a/deep" / name).symlink_to({"up": "..", "here": ".", "flow": tmp_path / "links/a"}[name])
    assert hash_folder(tmp_path / "links") == both != before
    (tmp_path / "flow/b/2.png").write_text("else")
    assert hash_folder(tmp_path / "links") not in (before, both)
