"""Lists the subpackages; everything else is in pyproject.toml."""

from setuptools import find_packages, setup

HOUSE = ("models", "export", "serving", "cli")
setup(packages=[f"polyhead.{p}" for top in HOUSE for p in [top, *(f"{top}.{s}" for s in find_packages(top))]])
