"""Suggestions for a declaration: words of the ontology in one language, each of which is understood as it stands."""

from functools import cache

from xray_vqa.core.lexicon import load_lexicon
from xray_vqa.core.policy.ontology import load_ontology
from xray_vqa.core.taxonomy import CATEGORIES, names_of
from xray_vqa.serving.browsing.schemas import DeclarableBody


def suggestions(begun: str, language: str, limit: int) -> list[DeclarableBody]:
    """Return what a text that was begun may become: names that begin with it first, then those that hold it.

    Raises KeyError for a language that is none of `core.lexicon.LANGUAGES`.
    """
    wanted = begun.strip().casefold()
    found = [one for one in _all(language) if wanted in one.name.casefold()]
    found.sort(key=lambda one: (not one.name.casefold().startswith(wanted), one.prohibited, one.name.casefold()))
    return found[:limit]


@cache
def _all(language: str) -> tuple[DeclarableBody, ...]:
    ontology, lexicon = load_ontology(), load_lexicon(language)
    named: dict[str, DeclarableBody] = {}

    def add(name: str, concept: str, *, prohibited: bool) -> None:
        named.setdefault(name.casefold(), DeclarableBody(name=name, concept=concept, prohibited=prohibited))

    for good, entry in ontology.goods.items():
        for name in [lexicon.goods.get(good, good)] if language != "en" else [good, *entry.names]:
            add(name, good, prohibited=False)
    for category in CATEGORIES:
        english = [category.lower(), *names_of(category), *ontology.categories[category].names]
        for name in english if language == "en" else [lexicon.categories[category].one]:
            add(name, category, prohibited=True)
    return tuple(named.values())
