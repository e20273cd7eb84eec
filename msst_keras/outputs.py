"""Result folders: what each was made from, how far it is, and what must not lie where.

A result folder holds MEMORY, a hidden file that says what it was made from: the inputs by their content, the model's
fingerprint, the options, the version of this package. The same again goes on or is done already; anything else is
refused by one sentence that names the difference, unless the caller may overwrite.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from msst_keras import __version__
from msst_keras.files import DifferentSettingsError, compare_settings, read_json, write_json

MEMORY = ".msst.json"
_MEND = "remove the folder or choose another --output_dir"


class Memory:
    """What a result folder remembers.

    Args:
      folder: the folder.
      job: who makes it, as "predict".
      made_from: what the result depends on, as JSON values; content by hashes.
    """

    def __init__(self, folder: Path, job: str, made_from: Mapping):
        self.path, self._job = Path(folder) / MEMORY, job
        self._made_from = {"job": job, "version": __version__, **made_from}

    def compare(self) -> dict | None:
        """Compares what the folder says with what is to be made.

        Returns:
          how far it is, what `write` was given last; None where nothing is remembered.

        Raises:
          DifferentSettingsError: it was made from something else; its caller catches it where that may be overwritten.
          ValueError: the memory is damaged.
        """
        if not self.path.is_file():
            return None
        found = read_json(self.path, _MEND)
        progress = found.pop("progress", {})
        try:
            compare_settings(self.path, self._made_from, found)
        except DifferentSettingsError as error:
            folder = self.path.parent
            error.args = (
                f"{folder} was made from something else: {error.difference}; choose another --output_dir, or give "
                "--overwrite to make it anew",
            )
            raise
        return progress

    def write(self, **progress: Any) -> None:
        """Writes what the folder is made from, and how far it is."""
        write_json(self.path, {**self._made_from, "progress": progress})

    def refuse_strangers(self, names: Iterable[str]) -> None:
        """Raises ValueError when there are files, by these names, and nothing says that this job has made them."""
        if names := list(names):
            raise ValueError(
                f"{self.path.parent} holds files that `msst {self._job}` did not write ({', '.join(names[:3])}"
                + (", ..." if len(names) > 3 else "")
                + "); choose another --output_dir, or move them away"
            )


def check_apart(output: str | Path, inputs: Iterable[str | Path]) -> None:
    """Refuses an output that would land in its own input.

    Args:
      output: the file or folder to be written.
      inputs: the files and folders that are read; an output may not lie in such a folder either.

    Raises:
      ValueError: it would; names both.
    """
    resolved = Path(output).resolve()
    for path in inputs:
        if Path(path).resolve() in (resolved, *resolved.parents):
            raise ValueError(f"the output {output} would land in its own input {path}; choose another place for it")
