"""Each package says at its top what it offers, and all of it is there."""

import importlib
import pkgutil
import subprocess
import sys

import pytest

import autopeft

PACKAGES = [found.name for found in pkgutil.iter_modules(autopeft.__path__) if found.ispkg]


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_says_what_it_is_for_and_all_it_shows_is_there(name):
    package = importlib.import_module(f"autopeft.{name}")
    assert package.__doc__
    for shown in getattr(package, "__all__", ()):
        assert getattr(package, shown) is not None
    if hasattr(package, "SURFACE"):
        modules = {found.name for found in pkgutil.iter_modules(package.__path__)}
        assert not modules & set(package.SURFACE)  # a module of that name would take its place
        with pytest.raises(AttributeError, match=f"module 'autopeft.{name}' has no attribute 'nothing'"):
            package.nothing  # noqa: B018


@pytest.mark.parametrize(
    "name", ["methods.registry", "study.file", "study.record", "study.archive", "cli.app", "reporting"]
)
def test_what_shows_a_study_imports_no_torch(name):
    code = f"import sys, autopeft.{name}; assert 'torch' not in sys.modules, sorted(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
