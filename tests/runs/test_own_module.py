"""`robcomp evaluate module=`: an architecture of the user's own, attacked as others are, its faults in one sentence."""

import importlib
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import RUN
from torch import nn

import robcomp as rc
from robcomp import data
from robcomp.cli.parser import main
from robcomp.errors import UserError
from robcomp.report.schema import Report
from robcomp.runs.load import load
from robcomp.settings.compose import compose_config

pytestmark = pytest.mark.usefixtures("sandbox")

SETTINGS = [o for o in RUN if not o.startswith(("schedule", "training", "model", "dataset.val"))]
NETS = """
import torch
from torch import nn

def small():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(196, 8), nn.ReLU(), nn.Linear(8, 3)
    )

ready = small().double()

class Attentive(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention, self.head = nn.MultiheadAttention(16, 2, batch_first=True), nn.Linear(16, 3)

    def forward(self, x):
        rows = x[:, 0]
        return {"logits": self.head(self.attention(rows, rows, rows)[0].mean(1))}

class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.head = nn.Linear(16, 16), nn.Linear(256, 3)

    def forward(self, x):
        return self.head(self.inner(self.inner(x)).flatten(1))

def five():
    return nn.Sequential(nn.Flatten(), nn.Linear(256, 5))

def bare():
    return nn.Sequential(nn.AdaptiveAvgPool2d((3, 1)), nn.Flatten())

def divide():
    return 1 / 0

def late():
    import nothing_of_the_kind

class Wrong(nn.Module):
    def forward(self, x):
        return x @ torch.zeros(3, 3)

class Moody(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = small()

    def forward(self, x):
        if x.requires_grad:
            raise RuntimeError("no gradients today")
        return self.net(x)

number = 3
"""


@pytest.fixture(autouse=True)
def nets(sandbox: Path) -> Iterator[None]:
    """nets.py and some broken modules in the working directory, and no trace of them afterwards."""
    path, known = list(sys.path), set(sys.modules)
    (sandbox / "nets.py").write_text(NETS)
    (sandbox / "broken.py").write_text("x = 1\ndef f(:\n")
    (sandbox / "missing.py").write_text("\nimport nothing_of_the_kind\n")
    (sandbox / "leaving.py").write_text("import sys\nsys.exit(3)\n")
    yield
    sys.path[:] = path
    for name in set(sys.modules) - known:
        if name in ("nets", "broken", "missing", "leaving"):
            del sys.modules[name]


def evaluated(capsys: pytest.CaptureFixture[str], module: str, *overrides: str) -> tuple[Path, str]:
    capsys.readouterr()
    assert main(["evaluate", f"module={module}", *SETTINGS, *overrides]) == 0
    out = capsys.readouterr().out
    return Path(out.split("run directory:")[1].strip()), out


def test_the_outcomes_are_those_of_the_library(capsys: pytest.CaptureFixture[str]) -> None:
    folder, _ = evaluated(capsys, "nets:small", "attack.attacks.pgd.steps=3")
    report = Report.read(folder / "report.json")
    assert (report.run.model, report.run.method, report.stages) == ("small", "external", [])
    assert folder.parent.name == "tiny-small-external"
    assert {path.name for path in folder.iterdir()} == {"lock", "outcomes.npz", "report.json", "report.md"}
    import nets

    torch.manual_seed(0)
    config = compose_config(SETTINGS)
    test = data.load(replace(config.dataset, val=0), Path(config.data_dir)).test
    suite = {"fgsm": {}, "pgd": {"steps": 3}}
    found = rc.evaluate(nets.small(), test.images, test.labels, suite, eps=report.threat.eps, verdict=0)
    with np.load(folder / "outcomes.npz") as wanted:
        assert all(np.array_equal(found.outcomes[name], wanted[name]) for name in wanted.files)
    assert found.worst_case == report.accuracy.worst_case


@pytest.mark.slow
def test_sizes_and_operations_are_counted_where_they_can_be(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report.read(evaluated(capsys, "nets:small")[0] / "report.json")
    assert [(layer.name, layer.weights) for layer in report.density.layers] == [("0", 36), ("4", 1568), ("6", 24)]
    assert report.size.nominal.bits == 32 * (36 + 1568 + 24)
    assert report.size.file.bytes == report.size.file.dense_bytes > 4 * (36 + 1568 + 24)
    assert [layer.dense for layer in report.macs.layers] == [36 * 49, 1568, 24]
    assert report.density.layers[0].filters == [4, 4]

    attentive = Report.read(evaluated(capsys, "nets:Attentive")[0] / "report.json")
    names = ["attention.in_proj_weight", "attention.out_proj", "head"]
    assert [layer.name for layer in attentive.density.layers] == names
    assert attentive.density.layers[0].channels is None
    assert attentive.macs is None

    twice = Report.read(evaluated(capsys, "nets:Twice")[0] / "report.json")
    assert [layer.dense for layer in twice.macs.layers] == [2 * 16 * 256, 3 * 256]


@pytest.mark.slow
def test_an_instance_is_taken_and_recognised_until_it_changes(capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = evaluated(capsys, "nets:ready")
    assert "already evaluated" not in out
    assert "already evaluated" in evaluated(capsys, "nets:ready")[1]
    Path("nets.py").write_text(NETS + "# other\n")
    assert evaluated(capsys, "nets:ready")[0] != folder


@pytest.mark.slow
def test_weights_fill_the_network_by_its_own_names(capsys: pytest.CaptureFixture[str]) -> None:
    fresh, _ = evaluated(capsys, "nets:small")
    import nets

    torch.manual_seed(7)
    state = {f"module.{name}": tensor for name, tensor in nets.small().state_dict().items()}
    torch.save(state, "net.pt")
    folder, out = evaluated(capsys, "nets:small", "model.weights=net.pt")
    assert folder != fresh
    assert "by the names of the network itself under 'module.'" in " ".join(out.split())
    torch.save(
        {name: torch.cat([tensor, tensor]) if tensor.dim() else tensor for name, tensor in state.items()}, "net.pt"
    )
    assert "net.pt does not fit" in refused(capsys, "nets:small", "model.weights=net.pt")


def refused(capsys: pytest.CaptureFixture[str], module: str, *overrides: str) -> str:
    capsys.readouterr()
    assert main(["evaluate", f"module={module}", *SETTINGS, *overrides]) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert len(said.splitlines()) == 1
    return said


@pytest.mark.parametrize(
    ("module", "sentence"),
    [
        (
            "nets:divide",
            f"nets.py, line {NETS.splitlines().index('    return 1 / 0') + 1}: ZeroDivisionError: division",
        ),
        ("nets:late", "ModuleNotFoundError: No module named 'nothing_of_the_kind'"),
        ("nets:Wrong", "the network cannot take images [2, 1, 16, 16] in torch.float32: RuntimeError"),
        ("nets:Moody", "RuntimeError: no gradients today"),
        ("nets:five", "returns 5 logits, and the data set has 3 classes"),
        ("nets:bare", "has no parameter of two or more dimensions"),
        ("nets:number", "is of type int; give a torch.nn.Module"),
        ("nets:smal", "nets.py has no 'smal'"),
        ("broken:f", "broken.py, line 2: SyntaxError"),
        ("missing:f", "missing.py, line 2: No module named 'nothing_of_the_kind'; install it"),
        ("leaving:f", "leaving.py, line 2: it ends the program"),
        ("absent:f", "no module 'absent' in"),
        ("nets.deep:f", "no module 'nets.deep' in"),
        ("nets", "is not PACKAGE.MODULE:NAME"),
        ("nets.py:small", "no module 'nets.py' in"),
        ("../nets:small", "is not PACKAGE.MODULE:NAME"),
    ],
)
def test_a_fault_gets_one_sentence(capsys: pytest.CaptureFixture[str], module: str, sentence: str) -> None:
    said = refused(capsys, module)
    assert sentence in said
    assert said.startswith(f"robcomp: module={module}")
    assert not list(Path().rglob("report.json"))


def test_keys_of_robcomps_own_networks_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for key in ("model=resnet18", "model.width=0.5", "++model.width=3"):
        assert f"{key} is for robcomp's own networks" in refused(capsys, "nets:small", key)
    assert "run= and module= are both given" in refused(capsys, "nets:small", "run=somewhere")
    assert "module= is given 2 times" in refused(capsys, "nets:small", "module=nets:five")


def test_what_needs_a_packed_network_says_that_there_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    folder, _ = evaluated(capsys, "nets:small")
    with pytest.raises(UserError, match="keeps figures and no network"):
        load(folder, [])
    with pytest.raises(UserError, match=r"holds no model\.rcz"):
        rc.load(folder)
    assert main(["compare", str(folder), str(folder)]) == 0


@pytest.mark.slow
def test_a_module_in_training_mode_is_evaluated_in_eval_mode(capsys: pytest.CaptureFixture[str]) -> None:
    folder, _ = evaluated(capsys, "nets:small")
    Path("nets.py").write_text(
        NETS.replace("ready = small().double()", "torch.manual_seed(0); ready = small().train()")
    )
    del sys.modules["nets"]
    other, _ = evaluated(capsys, "nets:ready")
    first, second = (Report.read(path / "report.json").accuracy for path in (folder, other))
    assert first.clean == second.clean
    import nets

    assert isinstance(nets.ready, nn.Module)


def test_what_it_imports_belongs_to_the_network(capsys: pytest.CaptureFixture[str]) -> None:
    Path("layer.py").write_text("import torch\ndef act(x):\n    return torch.relu(x)\n")
    Path("outer.py").write_text(
        "import layer\nfrom nets import small\nfrom torch import nn\n"
        "class Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n        self.net = small()\n"
        "    def forward(self, x):\n        return self.net(layer.act(x))\n"
    )
    command = ["evaluate", "module=outer:Net", *SETTINGS]
    assert main(command) == main(command) == 0
    assert "already evaluated" in capsys.readouterr().out
    for name in ("outer", "layer"):  # as in another process
        del sys.modules[name]
    Path("layer.py").write_text("import torch\ndef act(x):\n    return torch.relu(0.5 - x)\n")
    importlib.invalidate_caches()
    assert main(command) == 0
    assert "already evaluated" not in capsys.readouterr().out
    assert len(list(Path("outputs").glob("*/*/report.json"))) == 2


def test_what_it_prints_is_kept_out_of_the_report(capsys: pytest.CaptureFixture[str]) -> None:
    Path("loud.py").write_text(
        "print('imported')\nfrom nets import small\nfrom torch import nn\n"
        "class Loud(nn.Module):\n    def __init__(self):\n        super().__init__()\n        print('made')\n"
        "        self.net = small()\n    def forward(self, x):\n        print('called')\n        return self.net(x)\n"
    )
    assert main(["evaluate", "module=loud:Loud", *SETTINGS, "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["run"]["method"] == "external"
    assert all(word in err for word in ("imported", "made", "called"))


@pytest.mark.parametrize("said", ["torch.nn:Linear", "needing:needs"])
def test_what_needs_arguments_is_said_to(said: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("needing.py").write_text("def needs(width):\n    return width\n")
    assert main(["evaluate", f"module={said}", *SETTINGS]) == 2
    assert f"module={said} cannot be called without arguments" in capsys.readouterr().err
