"""Names by Presidio and spaCy: what is missing is named, what they find joins the rules' finds."""

import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace

import pytest

from mm.privacy.text import check_rules, find_all, ner, scrub_text

TEXT = "Xochitl Quetzal met Emily Johnson."


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Put stand-ins for both libraries in place; they find one name that no list has."""
    asked: list[str] = []
    name = (TEXT.index("Xochitl"), TEXT.index(" met"))

    def entities(text: str) -> SimpleNamespace:
        asked.append(text)
        if "Xochitl" not in text:
            return SimpleNamespace(ents=[])
        person = SimpleNamespace(label_="PERSON", start_char=name[0], end_char=name[1])
        place = SimpleNamespace(label_="GPE", start_char=name[1], end_char=name[1] + 4)
        return SimpleNamespace(ents=[person, place])

    class Engine:
        def __init__(self, **given: object) -> None:
            assert given["supported_languages"] == ["en"]

        def analyze(self, text: str, language: str, entities: list[str]) -> list[SimpleNamespace]:
            asked.append(text)
            assert (language, entities) == ("en", ["PERSON"])
            found = SimpleNamespace(start=name[0], end=name[1])
            return [found] if "Xochitl" in text else []

    class Provider:
        def __init__(self, nlp_configuration: dict[str, object]) -> None:
            assert nlp_configuration["models"] == [
                {"lang_code": "en", "model_name": "en_core_web_sm"}
            ]

        def create_engine(self) -> str:
            return "engine"

    modules = {
        "spacy": {"load": lambda name, exclude: entities},
        "spacy.util": {"get_installed_models": lambda: ["en_core_web_sm", "de_core_news_sm"]},
        "presidio_analyzer": {"AnalyzerEngine": Engine},
        "presidio_analyzer.nlp_engine": {"NlpEngineProvider": Provider},
    }
    for module, members in modules.items():
        made = ModuleType(module)
        for member, value in members.items():
            setattr(made, member, value)
        monkeypatch.setitem(sys.modules, module, made)
    monkeypatch.setattr(ner, "find_spec", lambda library: object())
    cached = (ner._models, ner._spacy, ner._presidio)
    for function in cached:
        function.cache_clear()
    yield asked
    for function in cached:
        function.cache_clear()


@pytest.mark.parametrize("names", ["spacy", "presidio"])
def test_a_recogniser_adds_to_the_rules(pretend: list[str], names: str) -> None:
    assert scrub_text(TEXT)[0] == "Xochitl Quetzal met [PERSON]."
    clean, found = scrub_text(TEXT, names=names)
    assert clean == "[PERSON] met [PERSON]."
    assert found == {"person": 2}
    assert scrub_text(clean, names=names) == (clean, {})
    assert all("PERSON" not in text for text in pretend)  # placeholders are hidden from it


def test_a_recogniser_is_not_asked_where_names_stay(pretend: list[str]) -> None:
    assert find_all(TEXT, ["email"], names="spacy") == []
    assert pretend == []


@pytest.mark.parametrize("names", ["spacy", "presidio"])
def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, names: str) -> None:
    monkeypatch.setattr(ner, "find_spec", lambda library: None)
    with pytest.raises(ValueError, match=rf"names: {names} needs spacy, .*'mm\[privacy\]'"):
        check_rules([], [], names=names)
    with pytest.raises(ValueError, match="which is not installed"):
        scrub_text(TEXT, names=names)


def test_a_missing_model_is_named(pretend: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ner, "_models", lambda: {})
    with pytest.raises(ValueError, match="python -m spacy download en_core_web_sm"):
        scrub_text(TEXT, names="spacy")
