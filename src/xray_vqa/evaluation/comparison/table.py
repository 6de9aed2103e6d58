"""A comparison as a table for people."""

from xray_vqa.evaluation.comparison.compare import Comparison, Delta, Flips

SHOWN_FLIPS = 30


def format_comparison(found: Comparison) -> str:
    """Return numbers, McNemar's counts, slices and the bags that flipped, threats lost first."""
    lines = [
        f"A  {found.a.model}  {found.a.engine} {found.a.dtype}  {found.a.file}",
        f"B  {found.b.model}  {found.b.engine} {found.b.dtype}  {found.b.file}",
        f"{found.num_questions} questions on {found.num_scans} scans of {found.num_groups} bags, "
        f"test set {found.test_set[:12]}",
        "",
        f"{'':<22}{'A':>8}{'B':>8}{'B - A':>9}  {'95 % interval':<20}{'p':>8}  {'detectable':>10}",
    ]
    lines += [_delta_line(name, delta, found.margin) for name, delta in found.metrics.items()]
    lines += [
        "",
        f"{'bags judged rightly':<30}{'n':>6}{'both':>7}{'A only':>8}{'B only':>8}{'neither':>9}{'p':>9}  Holm",
    ]
    lines += [_flips_line("threat bags flagged", found.detection), _flips_line("clean bags passed", found.alarms)]
    lines += [_flips_line(name, entry) for name, entry in found.slices.items() if entry.only_a or entry.only_b]
    equal = sum(not (entry.only_a or entry.only_b) for entry in found.slices.values())
    if equal:
        lines.append(f"{equal} more of {len(found.slices)} slices are equal for both")
    if found.flips:
        lines += ["", "from A to B:"]
        lines += [
            f"  {flip.kind:<16} {flip.image_path}  {', '.join(flip.categories)}".rstrip()
            for flip in found.flips[:SHOWN_FLIPS]
        ]
        if len(found.flips) > SHOWN_FLIPS:
            lines.append(f"  and {len(found.flips) - SHOWN_FLIPS} more in the JSON")
    return "\n".join([*lines, *([""] if found.notes else []), *(f"note: {note}" for note in found.notes)])


def _delta_line(name: str, delta: Delta, margin: float | None) -> str:
    interval = "-" if delta.low is None or delta.high is None else f"[{delta.low:+.3f}, {delta.high:+.3f}]"
    line = (
        f"{name:<22}{_number(delta.a):>8}{_number(delta.b):>8}{_number(delta.difference, '+.3f'):>9}  {interval:<20}"
        f"{_number(delta.p_value, '.2g'):>8}  {_number(delta.detectable):>10}"
    )
    if margin is not None and delta.not_worse is not None:
        line += f"  {'not worse' if delta.not_worse else 'NOT SHOWN to be no worse'} by {margin:g}"
    return line


def _flips_line(name: str, entry: Flips) -> str:
    return (
        f"{name:<30}{entry.n:>6}{entry.both:>7}{entry.only_a:>8}{entry.only_b:>8}{entry.neither:>9}"
        f"{entry.p_value:>9.2g}  {_number(entry.p_corrected, '.2g')}"
    )


def _number(value: float | None, form: str = ".3f") -> str:
    return "-" if value is None else format(value, form)
