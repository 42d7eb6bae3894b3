import sys

import pytest

from polyhead.models.importing import imported
from polyhead.models.spec import ModelSpec, SpecError


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = list(sys.path)
    modules = set(sys.modules)
    yield tmp_path
    assert sys.path == path  # it is left as it was
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def test_a_name_of_a_package_is_imported():
    assert imported("polyhead.models.spec:ModelSpec", "model") is ModelSpec


@pytest.mark.parametrize("place", ["mine_a.py", "folder/mine_b.py"])
def test_a_file_is_imported_with_its_neighbours(here, place):
    path = here / place
    path.parent.mkdir(exist_ok=True)
    (path.parent / f"neighbour_of_{path.stem}.py").write_text("VALUE = 7\n")
    path.write_text(f"from neighbour_of_{path.stem} import VALUE\n")
    assert imported(f"{place}:VALUE", "model") == 7
    assert imported(f"{path}:VALUE", "model") == 7


def test_a_module_where_the_user_stands_is_found(here):
    (here / "standing_here.py").write_text("VALUE = 8\n")
    assert imported("standing_here:VALUE", "model") == 8


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("digits", "model 'digits': write package.module:name or path/to/file.py:name"),
        ("digits:", "model 'digits:': write package.module:name or path/to/file.py:name"),
        ("gone.py:MODEL", "model 'gone.py:MODEL': the file gone.py is not there"),
        ("polyhead.models.spec:None_", "polyhead.models.spec has nothing by the name 'None_'"),
        ("no_such_package:MODEL", "no_such_package cannot be imported (ModuleNotFoundError: No module named"),
        ("broken.py:MODEL", "broken.py cannot be imported (ZeroDivisionError: division by zero)"),
    ],
)
def test_what_cannot_be_imported_says_why(here, name, says):
    (here / "broken.py").write_text("1 / 0\n")
    with pytest.raises(SpecError) as caught:
        imported(name, "model")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
