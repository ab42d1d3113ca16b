"""Print what pip is to install so that the oldest versions of pyproject.toml's dependencies are tested.

Those that are installed in their oldest version already are left out, and so are torch and torchvision: a second copy
of them would double what CI downloads.
"""

import tomllib
from importlib.metadata import version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version


SHARED = ("torch", "torchvision")

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
for requirement in map(Requirement, project["dependencies"]):
    oldest = next(bound.version for bound in requirement.specifier if bound.operator == ">=")
    if requirement.name not in SHARED and Version(version(requirement.name)) != Version(oldest):
        print(f"{requirement.name}=={oldest}")
