"""What pyproject.toml cannot say: configs/ of the checkout lie in the installed package, as adaspec_jax/configs."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["adaspec_jax*"]), "adaspec_jax.configs"],
    package_dir={"adaspec_jax.configs": "configs"},
)
