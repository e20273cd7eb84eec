"""`python -m msst_keras JOB` is `msst JOB`, and so is the installed command."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> None:
    """Runs `msst JOB`; see `cli.main`. Ctrl-C while the program itself is still being loaded is a sentence, too."""
    try:
        from msst_keras import cli

        cli.main(argv)
    except KeyboardInterrupt:
        print("msst: interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
