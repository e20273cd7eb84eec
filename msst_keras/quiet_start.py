"""Makes TensorFlow start without its notes on libraries and processors, which none of its own options turns off.

C++ writes them straight to the file descriptor of standard error, before TensorFlow reads any setting. So this
descriptor leads to a temporary file while TensorFlow is imported, and everything but the notes is passed on afterwards.
"""

from __future__ import annotations

import contextlib
import ctypes
import glob
import importlib.abc
import importlib.machinery
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from types import ModuleType

_NOTES = (
    r"WARNING: All log messages before absl::InitializeLog\(\) is called are written to STDERR",
    r".*\boneDNN custom operations are on\b",
    r".*\bCould not find cuda drivers on your machine\b",
    r".*\bThis TensorFlow binary is optimized to use available CPU instructions\b",
    r"To enable the following instructions:.*rebuild TensorFlow",
    r".*\boneDNN supports DT_INT32 only on platforms with\b",
)
# The last of them comes once in a process, when integers are first worked on, and on every processor. It is an exported
# function that writes it; called at the start, it has nothing left to write later.
_INTEGER_NOTE = "_ZN10tensorflow26DataTypeUnsupportedWarningERKNS_8DataTypeE"
_DT_INT32 = 3

# Without an NVIDIA card these lines are no news. With one they say why the card is not used, and the user must see
# them.
_NO_CARD = (r".*\bfailed call to cuInit\b", r".*\bUNKNOWN ERROR \(303\)")


def quiet_tensorflow() -> None:
    """Keeps the notes of TensorFlow's start off standard error. Call it before anything imports TensorFlow.

    Warnings and errors that are not among the known notes still reach standard error, all of them after the import. If
    the import fails, everything that was written reaches it.
    """
    if "tensorflow" not in sys.modules:
        sys.meta_path.insert(0, _Finder())


class _Finder(importlib.abc.MetaPathFinder):
    """Finds TensorFlow in the usual place and wraps its loader. It removes itself as soon as it has been asked."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """TensorFlow's own spec with another loader; None for every other module."""
        if fullname != "tensorflow":
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(importlib.abc.Loader):
    def __init__(self, loader: importlib.abc.Loader):
        self._loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        """Does what TensorFlow's own loader does."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Imports TensorFlow without its notes."""
        with _without_notes():
            self._loader.exec_module(module)
            module.config.list_physical_devices()  # looks for GPUs, which writes more notes; it would come later anyway
            _write_integer_note(module)


def _write_integer_note(tensorflow: ModuleType) -> None:
    """Writes the note on integers now. A TensorFlow that has no such function, or another, keeps its note."""
    folder = os.path.dirname(tensorflow.__file__ or "")
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(os.path.join(folder, "libtensorflow_framework.so.2"), os.RTLD_NOLOAD)
        getattr(library, _INTEGER_NOTE)(ctypes.byref(ctypes.c_int(_DT_INT32)))


@contextlib.contextmanager
def _without_notes() -> Iterator[None]:
    """Holds back what this block writes to the descriptor of standard error, then passes on all but the notes."""
    kept = os.dup(2)
    patterns: tuple[str, ...] = _NOTES if glob.glob("/dev/nvidia[0-9]*") else _NOTES + _NO_CARD
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            patterns = ()
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            held.seek(0)
            for line in held:
                if not any(re.match(pattern, line.decode(errors="replace")) for pattern in patterns):
                    os.write(2, line)
