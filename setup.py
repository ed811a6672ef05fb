"""Maps the repository's top folders into the package; the links in `goalward/` are never used to build."""

from setuptools import find_packages, setup

FOLDERS = ("wm", "planners", "policies", "envs", "datasets", "experiments")
nested = [f"goalward.{folder}.{package}" for folder in FOLDERS for package in find_packages(folder)]

setup(
    packages=["goalward", *(f"goalward.{folder}" for folder in FOLDERS), *nested],
    package_dir={"goalward": "goalward", **{f"goalward.{folder}": folder for folder in FOLDERS}},
)
