"""`python -m polyhead.cli`, the same as the console script."""

from polyhead.cli.main import run

run()
