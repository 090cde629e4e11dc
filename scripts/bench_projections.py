"""Time the projections against the plain ways to write them, and print a table.

python scripts/bench_projections.py --device cpu
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

from robcomp.projections import codebook, l0_

LENET = [(20, 1, 5, 5), (50, 20, 5, 5), (500, 800), (10, 500)]


def median_ms(call: Callable[[], object], repeats: int) -> float:
    """Median wall time of `call` in milliseconds after one warm-up, waiting for the accelerator."""
    times = []
    for _ in range(repeats + 1):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        begin = time.perf_counter()
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
    return sorted(times[1:])[repeats // 2] * 1e3


def concatenated_topk(tensors: list[Tensor], k: int) -> None:
    """The plain l0 projection: concatenate, take the indices of the k largest, scatter, copy back."""
    flat = torch.cat([t.reshape(-1) for t in tensors])
    index = flat.abs().topk(k).indices
    kept = torch.zeros_like(flat).scatter_(0, index, flat[index])
    for t, part in zip(tensors, kept.split([t.numel() for t in tensors]), strict=True):
        t.copy_(part.view(t.shape))


def textbook_kmeans(values: Tensor, bits: int, iterations: int = 20) -> Tensor:
    """Lloyd on the N x (K + 1) table of distances from random first centres, as in the published code."""
    support = values[values != 0]
    centres = support[torch.randperm(support.numel(), device=values.device)[: 2**bits]]
    centres = torch.cat([centres, centres.new_zeros(1)])
    for _ in range(iterations):
        index = (support[:, None] - centres).abs().argmin(dim=1)
        count = torch.bincount(index, minlength=centres.numel())
        centres = torch.zeros_like(centres).scatter_add_(0, index, support) / count.clamp(min=1)
        centres[-1] = 0
    index = (support[:, None] - centres).abs().argmin(dim=1)
    return torch.zeros_like(values).masked_scatter_(values != 0, centres[index])


def l0_rows(name: str, shapes: list[tuple[int, ...]], device: str, repeats: int) -> None:
    weights = [torch.randn(shape, device=device) for shape in shapes]
    total = sum(w.numel() for w in weights)

    def restored(project: Callable[[list[Tensor], int], None], k: int) -> float:
        work = [w.clone() for w in weights]

        def call() -> None:
            torch._foreach_copy_(work, weights)
            project(work, k)

        return median_ms(call, repeats) - median_ms(lambda: torch._foreach_copy_(work, weights), repeats)

    for ratio in (0.005, 0.1):
        k = int(ratio * total)
        ours, plain = restored(l0_, k), restored(concatenated_topk, k)
        print(f"l0        {name:<28} keep {ratio:<6} {ours:10.2f} {plain:10.2f} {plain / ours:8.1f}x")


def codebook_rows(count: int, device: str, repeats: int) -> None:
    values = torch.distributions.Laplace(0.0, 0.05).sample((count,)).to(device)
    for bits in (4, 8):
        projected, book = codebook.project(values, bits)
        ours = median_ms(lambda bits=bits: codebook.project(values, bits), repeats)
        warm = median_ms(lambda bits=bits, book=book: codebook.project(values, bits, start=book, iterations=4), repeats)
        plain = median_ms(lambda bits=bits: textbook_kmeans(values, bits), max(1, repeats // 4))
        gain = (textbook_kmeans(values, bits) - values).square().sum() / (projected - values).square().sum()
        print(
            f"codebook  {count:<28} bits {bits:<6} {ours:10.2f} {plain:10.2f} {plain / ours:8.1f}x"
            f"   warm, 4 steps {warm:.2f} ms; its error is {float(gain):.2f} times ours"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeats", type=int, default=7, help="timed calls, the median is printed (default 7)")
    parser.add_argument("--large", action="store_true", help="also 45 M entries in 111 tensors (1 GB of memory)")
    parser.add_argument("--points", type=int, default=106_000, help="entries for the codebook (default 106000)")
    options = parser.parse_args()
    torch.manual_seed(0)
    print(f"{options.device}, {torch.get_num_threads()} threads, times in ms")
    print(f"{'projection':<39}{'setting':<12}{'robcomp':>10} {'plain':>10} {'gain':>9}")
    factored = [shape for shape in LENET for _ in range(3)]
    l0_rows("LeNet factors, 1.3 M in 12", factored, options.device, options.repeats)
    if options.large:
        l0_rows("ResNet34 factors, 45 M in 111", [(405_405,)] * 111, options.device, max(1, options.repeats // 3))
    codebook_rows(options.points, options.device, options.repeats)


if __name__ == "__main__":
    main()
