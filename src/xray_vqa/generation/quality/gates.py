"""Holds the figures of a pairs file against their thresholds."""

from collections.abc import Iterable, Iterator

from xray_vqa.config.quality import PairGates
from xray_vqa.generation.quality.blind import surely_above
from xray_vqa.generation.quality.report import Gate, Quality, YesRatio


def judge(quality: Quality, gates: PairGates) -> list[Gate]:
    """Return every gate with what was found; those without a threshold or without enough questions are not judged."""
    checks, copies, making = quality.checks, quality.duplicates, quality.making
    plain = [
        _least("validity", "lines that are pairs", checks.validity, gates.min_validity),
        _least("agreement", "answers that the annotations give", checks.agreement, gates.min_agreement),
        _most("contradictions", "images with contradicting pairs", checks.contradiction_rate, gates.max_contradictions),
        _most("unsupported", "answers that name what is not there", checks.unsupported_rate, gates.max_unsupported),
        _most("leaks", "pairs that give something away", checks.leak_rate, gates.max_leaks),
        _balance(quality, gates),
        _premises(quality, gates),
        _blind(quality, gates),
        _choices(quality, gates),
        _most(
            "repeats_in_image", "same question again in an image", copies.repeated_in_image, gates.max_repeats_in_image
        ),
        _most(
            "near_repeats_in_image",
            "nearly the same question again in an image",
            copies.near_in_image,
            gates.max_near_repeats_in_image,
        ),
        _most("repeats", "same question again in the set", copies.repeated, gates.max_repeats),
        _most("near_repeats", "different questions with a near copy", copies.near, gates.max_near_repeats),
        _distinct(quality, gates),
        _openings(quality, gates),
        _types(quality, gates),
    ]
    if making:
        plain += [
            _most("rejected", "planned pairs without words that hold", making.rejected, gates.max_rejected),
            _rejected_of_category(quality, gates),
            _cost(making.usd_per_pair, gates.max_usd_per_pair),
        ]
    return plain


def _least(name: str, title: str, found: float | None, wanted: float | None) -> Gate:
    passed = None if wanted is None or found is None else found >= wanted
    text = "nothing to derive" if found is None else _percent(found)
    wish = "not set" if wanted is None else f"{wanted:.4g} or more" if wanted < 1 else "all"
    breach = f"{title}: {text}, wanted {wish}" if passed is False else ""
    return Gate(name=name, title=title, wanted=wish, found=text, passed=passed, breach=breach)


def _most(name: str, title: str, found: float, wanted: float | None) -> Gate:
    passed = None if wanted is None else found <= wanted
    wish = "not set" if wanted is None else f"{_percent(wanted)} or less" if wanted else "none"
    breach = f"{title}: {_percent(found)}, wanted {wish}" if passed is False else ""
    return Gate(name=name, title=title, wanted=wish, found=_percent(found), passed=passed, breach=breach)


def _percent(share: float) -> str:
    """As a person writes it, and never 0 % or 100 % where it is not exactly that."""
    if 0 < share < 0.0001:
        return "< 0.01 %"
    if 0.9999 < share < 1:
        return "> 99.99 %"
    return f"{100 * share:.3g} %" if share < 1 else "100 %"


def _gate(name: str, title: str, wanted: str, found: str, breaches: Iterable[str] | None) -> Gate:
    """A gate over several figures; None: not judged."""
    named = None if breaches is None else list(breaches)
    breach = "; ".join(named or [])
    return Gate(
        name=name, title=title, wanted=wanted, found=found, passed=None if named is None else not named, breach=breach
    )


def _balance(quality: Quality, gates: PairGates) -> Gate:
    title = "share of yes, overall and by category"
    if gates.yes_ratio is None:
        return _gate("yes_ratio", title, "not set", "", None)
    low, high = gates.yes_ratio
    total = [("all presence questions", quality.yes_ratio)] if quality.yes_ratio else []
    judged = [
        (name, ratio)
        for name, ratio in [*total, *quality.yes_ratio_by_category.items()]
        if ratio.yes + ratio.no >= gates.min_questions
    ]
    wanted = f"{low:g} to {high:g}"
    if not judged:
        return _gate("yes_ratio", title, wanted, "too few questions", None)
    ratios = [ratio.ratio for _, ratio in judged]
    found = f"{min(ratios):.2f} to {max(ratios):.2f}"
    return _gate("yes_ratio", title, wanted, found, _lopsided(judged, low, high))


def _lopsided(judged: list[tuple[str, YesRatio]], low: float, high: float) -> Iterator[str]:
    for name, ratio in judged:
        if not low <= ratio.ratio <= high:
            told = f"{ratio.ratio:.2f} ({ratio.yes} yes, {ratio.no} no)"
            yield f"yes ratio of {name} is {told}; wanted {low:g} to {high:g}"


def _premises(quality: Quality, gates: PairGates) -> Gate:
    title = "share of true premises"
    found, count = quality.premise_true_ratio, quality.question_types.get("absent", 0)
    if gates.true_premise_ratio is None or found is None or count < gates.min_questions:
        told = "too few questions" if found is None or count < gates.min_questions else f"{found:.2f}"
        return _gate("true_premises", title, "not set" if gates.true_premise_ratio is None else "-", told, None)
    low, high = gates.true_premise_ratio
    breaches = (
        [] if low <= found <= high else [f"premises hold in {found:.2f} of the questions; wanted {low:g} to {high:g}"]
    )
    return _gate("true_premises", title, f"{low:g} to {high:g}", f"{found:.2f}", breaches)


def _blind(quality: Quality, gates: PairGates) -> Gate:
    title = "right without looking, above the majority answer"
    margin = gates.max_blind_margin
    if margin is None:
        return _gate("blind", title, "not set", "", None)
    judged = {name: score for name, score in quality.blind_accuracy.items() if score.n >= gates.min_blind_questions}
    wanted = f"{100 * margin:g} points or less"
    if not judged:
        return _gate("blind", title, wanted, "too few questions", None)
    name, worst = max(judged.items(), key=lambda item: item[1].classifier - item[1].majority)
    breaches = [
        f"{name} questions are answered right by {score.classifier:.0%} without looking, the majority answer by "
        f"{score.majority:.0%}"
        for name, score in judged.items()
        if score.classifier > score.majority + margin
        and surely_above(round(score.classifier * score.n), score.n) > score.majority
    ]
    return _gate("blind", title, wanted, f"{100 * (worst.classifier - worst.majority):+.0f} points ({name})", breaches)


def _choices(quality: Quality, gates: PairGates) -> Gate:
    title = "lead of one letter or place among right choices"
    if gates.max_choice_lead is None:
        return _gate("choices", title, "not set", "", None)
    # With few questions one place leads by luck: its share of n questions strays by some 1 / sqrt(n).
    judged = {size: found for size, found in quality.choices.items() if found.n >= gates.min_blind_questions}
    wanted = f"{100 * gates.max_choice_lead:g} points or less"
    if not judged:
        return _gate("choices", title, wanted, "too few questions", None)
    breaches = [
        f"of {size} choices {max(found.by_place, key=lambda place: found.by_place[place])} is right "
        f"{found.lead + 1 / int(size):.0%} of the time; an even share is {1 / int(size):.0%}"
        for size, found in judged.items()
        if found.lead > gates.max_choice_lead
    ]
    worst = max(found.lead for found in judged.values())
    return _gate("choices", title, wanted, f"{100 * worst:.0f} points", breaches)


def _distinct(quality: Quality, gates: PairGates) -> Gate:
    title, found = "different word pairs in questions (distinct-2)", quality.diversity.question_distinct_2
    full = quality.diversity.num_sampled >= 1000
    if gates.min_distinct_2 is None or found is None or not full:
        wanted = "not set" if gates.min_distinct_2 is None else f"{gates.min_distinct_2:g} or more"
        return _gate("distinct_2", title, wanted, f"{found:.3f}" if full and found else "too few questions", None)
    wanted = f"{gates.min_distinct_2:g} or more"
    breaches = (
        [] if found >= gates.min_distinct_2 else [f"questions vary little: distinct-2 is {found:.3f}, wanted {wanted}"]
    )
    return _gate("distinct_2", title, wanted, f"{found:.3f}", breaches)


def _openings(quality: Quality, gates: PairGates) -> Gate:
    title, found = "variety of how questions begin", quality.diversity.opening_entropy_bits
    wanted = "not set" if gates.min_opening_entropy_bits is None else f"{gates.min_opening_entropy_bits:g} bits or more"
    if gates.min_opening_entropy_bits is None or quality.num_pairs < gates.min_blind_questions:
        return _gate("openings", title, wanted, f"{found:.1f} bits", None)
    breaches = (
        [] if found >= gates.min_opening_entropy_bits else [f"questions begin alike: {found:.1f} bits, wanted {wanted}"]
    )
    return _gate("openings", title, wanted, f"{found:.1f} bits", breaches)


def _types(quality: Quality, gates: PairGates) -> Gate:
    title = "types away from the plan's shares"
    away = {
        name: abs(quality.type_shares.get(name, 0.0) - quality.type_shares_wanted.get(name, 0.0))
        for name in {*quality.type_shares, *quality.type_shares_wanted}
    }
    name = max(sorted(away), key=lambda key: away[key], default="")
    found = f"{100 * away[name]:.0f} points ({name})" if name else "no types"
    most = gates.max_type_deviation
    if most is None or quality.num_pairs < gates.min_blind_questions:
        return _gate("types", title, "not set" if most is None else f"{100 * most:g} points or less", found, None)
    breaches = [
        f"{key} is {quality.type_shares.get(key, 0.0):.0%} of the pairs; planned "
        f"{quality.type_shares_wanted.get(key, 0.0):.0%}"
        for key in sorted(away)
        if away[key] > most
    ]
    return _gate("types", title, f"{100 * most:g} points or less", found, breaches)


def _rejected_of_category(quality: Quality, gates: PairGates) -> Gate:
    title = "the same, in the category that has it worst"
    assert quality.making is not None
    shares = quality.making.rejected_by_category
    worst = max(shares, key=lambda name: shares[name], default="")
    found = f"{_percent(shares[worst])} ({worst})" if worst else "0 %"
    most = gates.max_rejected_of_category
    if most is None:
        return _gate("rejected_of_category", title, "not set", found, None)
    breaches = [
        f"{_percent(share)} of the pairs about {name} were rejected" for name, share in shares.items() if share > most
    ]
    return _gate("rejected_of_category", title, f"{_percent(most)} or less", found, breaches)


def _cost(usd_per_pair: float, most: float | None) -> Gate:
    title, found = "cost of a kept pair", f"${usd_per_pair:.5f}" if usd_per_pair else "nothing"
    if most is None:
        return _gate("cost", title, "not set", found, None)
    breaches = [] if usd_per_pair <= most else [f"a kept pair costs ${usd_per_pair:.5f}, wanted ${most:g} at most"]
    return _gate("cost", title, f"${most:g} or less", found, breaches)
