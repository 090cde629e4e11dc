"""Accuracy of any network under an attack suite, as one call that prints nothing."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from rich.console import Console

from robcomp.attacks.inputs import Classifier, Images, Labels, Network, as_images, as_labels, whole_seed
from robcomp.data import Split
from robcomp.errors import UserError, unknown
from robcomp.evaluation.accuracy import Measured, measure
from robcomp.evaluation.bars import EvaluationProgress
from robcomp.evaluation.evaluator import Evaluator
from robcomp.evaluation.suite import SuiteConfig
from robcomp.library.suites import Suite, check, chosen_suite
from robcomp.report import render
from robcomp.report.accuracy import Accuracy, AttackAccuracy, Proportion, Verdict
from robcomp.report.formatting import interval, listed, percent
from robcomp.report.records import to_json
from robcomp.report.schema import DOUBT
from robcomp.units import Fraction


@torch.inference_mode(False)
def evaluate(
    model: Classifier,
    x: Images,
    y: Labels,
    suite: Suite = "quick",
    *,
    eps: Fraction | None = None,
    norm: str | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    verdict: int | None = None,
    progress: bool = False,
) -> "Evaluation":
    """The accuracy of `model` on the images x and labels y, clean and under every attack of `suite`.

    model: an nn.Module in any state, which comes back as it was, or a plain function, which is called as it is; logits
    [N, K] of images [N, C, H, W] in [0, 1]. x: floats in [0, 1] or uint8, told apart by dtype, as a tensor or an array.
    y: class numbers [N]. suite: a name (robcomp list attacks), an attack, or attacks or their settings by names of
    choice. eps and norm replace those of every attack of the worst case; without them a named suite attacks in Linf
    with eps 8/255 where it has no eps of its own. verdict: on how many images to check whether the figures can be
    trusted (0: none; the suite's own number, 100, unless given). With the same seed and batch_size the outcomes are
    those of `robcomp evaluate`, image by image. progress: bars on the terminal.

    UserError, in a sentence, for what cannot be evaluated.
    """
    seed = whole_seed(seed)
    chosen = chosen_suite(suite, eps, norm, batch_size, verdict)
    images = as_images(x)
    labels = as_labels(y, len(images))
    if not len(images):
        raise UserError("x holds no image; give at least one.")
    images = images.float() if images.is_floating_point() else images
    network = Network(model, int(labels.max()) + 1, lambda classes: check(chosen, classes))
    console = Console(stderr=True, quiet=not progress, force_terminal=None if progress else False)
    split = Split(images, labels.to(images.device))
    with (
        torch.random.fork_rng(devices=[]),  # copies of layers are made with fresh weights
        EvaluationProgress(console) as bars,
        Evaluator(network, split, seed, chosen.batch_size) as evaluator,
    ):
        return Evaluation(measure(evaluator, chosen, bars), chosen, seed)


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation(Mapping[str, Proportion]):
    """What an evaluation found: a mapping from clean, each attack and worst_case to its accuracy.

    An accuracy has value, correct, images and interval (95 %, Wilson); that of an attack also its settings (`attack`),
    seconds, and the median_distance of a minimum-norm attack.
    """

    measured: Measured
    suite: SuiteConfig
    seed: int

    @property
    def accuracy(self) -> Accuracy:
        """All accuracies, as a report has them."""
        return self.measured.accuracy

    @property
    def clean(self) -> Proportion:
        """On the images as they are."""
        return self.accuracy.clean

    @property
    def worst_case(self) -> Proportion:
        """An image counts only where it withstands every attack that is not excluded."""
        return self.accuracy.worst_case

    @property
    def verdict(self) -> Verdict | None:
        """Whether the figures can be trusted, with the evidence; None where it was not asked for."""
        return self.measured.verdict

    @property
    def outcomes(self) -> dict[str, np.ndarray]:
        """Whether each image is classified correctly, bool [N], under the names of the accuracies."""
        return {name: found for name, found in self.measured.outcomes.items() if name in self.accuracy}

    @property
    def distances(self) -> dict[str, np.ndarray]:
        """Of minimum-norm attacks that met all images: each image's distance, float32 [N], infinity where none."""
        end = ".distance"
        return {n.removesuffix(end): found for n, found in self.measured.outcomes.items() if n.endswith(end)}

    def __getitem__(self, name: str) -> Proportion:
        entries = self.accuracy.entries()
        if name not in entries:
            raise KeyError(str(unknown("accuracy", name, entries)))
        return entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.accuracy.entries())

    def __len__(self) -> int:
        return len(self.accuracy.entries())

    def to_json(self) -> str:
        """Suite, seed, accuracies and verdict as JSON text; `np.savez(file, **result.outcomes)` keeps the outcomes."""
        content = {
            "suite": self.suite.name,
            "seed": self.seed,
            "batch_size": self.suite.batch_size,
            "accuracy": to_json(self.accuracy),
            "verdict": to_json(self.verdict),
        }
        return json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False)

    def __str__(self) -> str:
        doubt = DOUBT if self.verdict is not None and self.verdict.trusted is False else ""
        rows = []
        for name, entry in self.items():
            if name == "worst_case" and self.accuracy.worst_cases:
                continue  # it is one of those below
            said = ""
            if isinstance(entry, AttackAccuracy):
                notes = [f"{entry.attack['norm']} eps {entry.attack['eps']:.4g}"]
                notes += ["cumulative"] * entry.cumulative + ["excluded"] * (name in self.accuracy.unused)
                said = ", ".join(notes)
            mark = "" if name == "clean" else doubt
            shown = "worst case" if name == "worst_case" else name
            rows.append([shown, percent(entry.value) + mark, interval(entry.interval), said])
        for worst in self.accuracy.worst_cases:
            of, shown = f"of {listed(worst.attacks)}", f"worst at {worst.norm} {worst.eps:.4g}"
            rows.append([shown, percent(worst.value) + doubt, interval(worst.interval), of])
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        lines = [f"suite {self.suite.name} on {self.clean.images:,} images (seed {self.seed}), 95 % intervals"]
        for name, value, bounds, said in rows:
            line = f"  {name:<{widths[0]}}  {value:>{widths[1]}}  {bounds:>{widths[2]}}  {said}"
            lines.append(line.rstrip())
        remarks = [render.constant_in(self.accuracy, []), render.trust_in(self.verdict, self.accuracy)]
        return "\n".join([*lines, *filter(None, remarks)])

    __repr__ = __str__
