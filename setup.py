"""The packages: all folders of code, and `configs/` as `transformer_kit.configs`. The rest stands in pyproject.toml."""

from setuptools import find_packages, setup

setup(packages=[*find_packages(include=["registry*", "transformer_kit*"]), "transformer_kit.configs"])
