"""Names by spaCy, alone or through Presidio (`pip install 'mm[privacy]'`).

They add to the rules of `names`, in the languages whose spaCy model is installed; PRIVACY.md says
what each reaches. A finder that is asked for and cannot run is an error.
"""

from collections.abc import Iterator
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

from mm.privacy.text.view import BLANK, Span

_LANGUAGES = ("en", "ko")
_LABELS = frozenset({"PERSON", "PS"})  # what English and Korean models call people


def check(names: str) -> None:
    """Raise `ValueError` where Presidio, spaCy or a model is missing, naming what installs it."""
    needed = ("spacy", "presidio_analyzer") if names == "presidio" else ("spacy",)
    for library in needed:
        if find_spec(library) is None:
            raise ValueError(
                f"names: {names} needs {library}, which is not installed: pip install 'mm[privacy]'"
            )
    if not _models():
        raise ValueError(
            f"names: {names} needs a spaCy model and none is installed:"
            " python -m spacy download en_core_web_sm (and ko_core_news_sm)"
        )


def find_person(text: str, names: str) -> Iterator[Span]:
    """Find people by the recognisers of all installed languages.

    Args:
        text: a view's text.
        names: presidio or spacy.
    """
    readable = text.replace(BLANK, " ")
    for language in _models():
        if language == "ko" and text.isascii():
            continue
        if names == "presidio":
            analyzer = _presidio()
            for found in analyzer.analyze(readable, language=language, entities=["PERSON"]):
                yield found.start, found.end
        else:
            for entity in _spacy(language)(readable).ents:
                if entity.label_ in _LABELS:
                    yield entity.start_char, entity.end_char


@lru_cache(maxsize=1)
def _models() -> dict[str, str]:
    """Return the installed model of each language, the largest if there are several."""
    from spacy.util import get_installed_models

    order = ("_trf", "_lg", "_md", "_sm", "")
    found = {}
    for language in _LANGUAGES:
        names = [name for name in get_installed_models() if name.startswith(f"{language}_")]
        if names:
            found[language] = min(
                names, key=lambda name: next(i for i, size in enumerate(order) if size in name)
            )
    return found


@lru_cache(maxsize=2)
def _spacy(language: str) -> Any:  # a spacy.Language; the library is an extra
    import spacy

    model = _models()[language]
    return spacy.load(model, exclude=["parser", "lemmatizer", "attribute_ruler", "tagger"])


@lru_cache(maxsize=1)
def _presidio() -> Any:  # a presidio_analyzer.AnalyzerEngine; the library is an extra
    from presidio_analyzer import AnalyzerEngine
    from presidio_analyzer.nlp_engine import NlpEngineProvider

    models = [{"lang_code": code, "model_name": name} for code, name in _models().items()]
    engine = NlpEngineProvider(
        nlp_configuration={"nlp_engine_name": "spacy", "models": models}
    ).create_engine()
    return AnalyzerEngine(nlp_engine=engine, supported_languages=list(_models()))
