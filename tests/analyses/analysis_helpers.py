"""What the tests of the analyses share: the deterministic attack, counting of its calls, a look at a figure."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from robcomp.attacks.pgd import PGD
from robcomp.cli.parser import main

# without a random start an image's fate does not depend on which others are in its batch
PLAIN = ["attack.attacks.pgd.steps=3", "+attack.attacks.pgd.random_start=false", "attack.batch_size=8"]


def evaluated(out: Path, *arguments: object) -> dict[str, Any]:
    """The JSON that a command wrote into `out`, which is its own."""
    assert main([*map(str, arguments), *PLAIN, f"out={out}"]) == 0
    (path,) = out.glob("*.json")
    return json.loads(path.read_text())


def drawn(path: Path) -> bool:
    """Whether the PNG shows anything: several colours, and not nearly all of one."""
    with Image.open(path) as image:
        colours = image.convert("RGB").getcolors(image.width * image.height)
    return len(colours) > 50 and max(count for count, _ in colours) < 0.99 * image.width * image.height


def count_attacks(patch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows by the batch's size with each call of PGD."""
    sizes, perturb = [], PGD.perturb

    def counting(self: PGD, model: Any, x: Any, y: Any, generator: Any) -> Any:
        sizes.append(len(x))
        return perturb(self, model, x, y, generator)

    patch.setattr(PGD, "perturb", counting)
    return sizes
