"""The extra that a local page needs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def import_page() -> Iterator[None]:
    """Stands around the imports of a page, whose libraries the extra `labels` brings.

    Raises:
      ValueError: one of them is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ValueError(f"the page needs '{error.name}': pip install 'msst-keras[labels]'") from None
