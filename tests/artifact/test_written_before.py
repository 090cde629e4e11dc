"""Files that an earlier version wrote, one of each kind of network, are read and answer as they did then.

written_before/ holds them with what their networks said of two fixed images. They were made by the last version before
the package was laid out in rooms (commit 7b91da3), and are not to be made again.
"""

import json
from pathlib import Path

import pytest
import torch

from robcomp import artifact
from robcomp.models.parameterisation import KINDS, form_of

FOLDER = Path(__file__).parent / "written_before"
ANSWERS = json.loads((FOLDER / "answers.json").read_text())


def test_there_is_a_file_of_every_kind() -> None:
    kinds = {form_of(artifact.load(path)[0]).kind for path in FOLDER.glob("*.rcz")}
    assert kinds == set(KINDS)
    assert {path.stem for path in FOLDER.glob("*.rcz")} == set(ANSWERS)


@pytest.mark.parametrize("name", ANSWERS)
def test_a_file_from_before_answers_as_it_did(name: str) -> None:
    model, spec, bits = artifact.load(FOLDER / f"{name}.rcz")
    assert (spec.shape, spec.classes, bits) == ((1, 16, 16), 3, ANSWERS[name]["bits"])
    assert sum(int(p.count_nonzero()) for p in model.parameters()) == ANSWERS[name]["nonzero"]
    images = torch.linspace(0, 1, 2 * 16 * 16).view(2, 1, 16, 16)
    with torch.no_grad():
        logits = model(images).double()
    assert torch.allclose(logits, torch.tensor(ANSWERS[name]["logits"], dtype=torch.float64), rtol=1e-5, atol=1e-6)
