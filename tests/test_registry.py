"""Names to classes: one way to register, and a kind that belongs to one class alone."""

import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from robcomp.attacks.pgd import PGD
from robcomp.errors import UserError
from robcomp.registry import Registry, import_modules
from robcomp.storage import kind_of


def test_a_name_and_a_class_are_entered_once() -> None:
    table: Registry[type] = Registry("thing")
    first = table.register("first")(type("First", (), {}))
    assert (table["first"], first.kind, list(table)) == (first, "first", ["first"])
    with pytest.raises(ValueError, match="thing 'first' is registered twice"):
        table.register("first")(type("Other", (), {}))
    with pytest.raises(ValueError, match="First is registered as 'first' and as 'second'"):
        table.register("second")(first)
    assert list(table) == ["first"]
    with pytest.raises(UserError, match=r"unknown thing 'frist'.*Did you mean first\?"):
        table["frist"]


def test_a_class_does_not_pass_for_its_parent() -> None:
    @dataclass
    class Stronger(PGD):
        more: int = 1

    assert kind_of(PGD) == PGD(0.1).settings()["name"] == "pgd"
    with pytest.raises(TypeError, match="Stronger names results and has no kind of its own"):
        Stronger(0.1).settings()


def test_every_module_of_a_package_registers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "made_up_things"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from robcomp.registry import Registry, import_modules\n"
        "THINGS = Registry('thing')\n"
        "import_modules(__name__, __path__)\n"
    )
    for name in ("a", "b"):
        text = f"from made_up_things import THINGS\n@THINGS.register('{name}')\nclass C: pass\n"
        (package / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    import made_up_things

    assert list(made_up_things.THINGS) == ["a", "b"]
    import_modules("made_up_things", [str(package)])  # a second time changes nothing
    assert list(made_up_things.THINGS) == ["a", "b"]
    for name in [name for name in sys.modules if name.startswith("made_up_things")]:
        monkeypatch.delitem(sys.modules, name)
