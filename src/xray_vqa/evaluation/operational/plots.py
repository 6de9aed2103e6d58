"""Pictures of the figures: the distribution of latencies, and throughput against latency."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

SIZE = (8, 3.6)
DPI = 120


def draw_latencies(latencies_ms: Mapping[str, Sequence[float]], path: Path, title: str) -> None:
    """Draw a histogram of all latencies and the cumulative share of each kind, p50 and p95 marked, into a PNG."""
    from matplotlib.figure import Figure

    every = [value for values in latencies_ms.values() for value in values]
    figure = Figure(figsize=SIZE, layout="constrained")
    bars, shares = figure.subplots(1, 2)
    bars.hist(every, bins=min(40, max(5, len(every) // 5)), color="#4878a8")
    for share, dashes in ((0.5, "-"), (0.95, "--")):
        value = float(np.quantile(every, share))
        bars.axvline(value, color="black", linewidth=1, linestyle=dashes, label=f"p{share * 100:.0f} {value:.1f} ms")
    bars.set(xlabel="latency (ms)", ylabel="inspections")
    bars.legend(fontsize="small", frameon=False)
    for number, (kind, values) in enumerate(latencies_ms.items()):
        if values:
            ordered = np.sort(values)
            line = ("-", "--", ":", "-.")[number % 4]
            steps = np.arange(1, len(ordered) + 1) / len(ordered)
            shares.step(ordered, steps, where="post", linestyle=line, label=f"{kind.replace('_', ' ')} ({len(values)})")
    shares.set(xlabel="latency (ms)", ylabel="share of inspections", ylim=(0, 1.02))
    shares.grid(alpha=0.25)
    shares.legend(fontsize="small", frameon=False, loc="lower right")
    figure.suptitle(title, fontsize="medium")
    figure.savefig(path, dpi=DPI)


def draw_throughput(
    points: Sequence[tuple[str, float, float, float]], path: Path, title: str, knee: str | None = None
) -> None:
    """Draw p50 and p95 against throughput into a PNG.

    Args:
        points: Label, successes a second, p50 in ms, p95 in ms; in the order of the load.
        path: Of the picture.
        title: Above it.
        knee: The label of the point to be marked.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, layout="constrained")
    axis = figure.subplots()
    labels, rates, p50, p95 = zip(*points, strict=True)
    axis.plot(rates, p50, "o-", color="#4878a8", label="p50")
    axis.plot(rates, p95, "s--", color="#c0504d", label="p95")
    for label, rate, value in zip(labels, rates, p95, strict=True):
        axis.annotate(label, (rate, value), textcoords="offset points", xytext=(4, 5), fontsize="small")
        if label == knee:
            axis.axvline(rate, color="grey", linewidth=1, linestyle=":", label=f"knee: {label}")
    axis.set(xlabel="successful inspections a second", ylabel="latency (ms)", yscale="log", xlim=(0, 1.12 * max(rates)))
    axis.grid(alpha=0.25, which="both")
    axis.legend(fontsize="small", frameon=False)
    axis.set_title(title, fontsize="medium")
    figure.savefig(path, dpi=DPI)
