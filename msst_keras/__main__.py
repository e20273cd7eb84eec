"""`python -m msst_keras JOB` is `msst JOB`."""

from msst_keras import cli

cli.main()
