"""Placeholders and pseudonyms: consistent under one key, useless without it, never found again."""

from pathlib import Path

import pytest

from mm.privacy.text import KINDS, check_rules, find_all, scrub_text
from mm.privacy.text.replace import placeholder, pseudonym, read_key

KEY, OTHER = b"0123456789abcdef", b"fedcba9876543210"
ALL = dict.fromkeys(KINDS, "pseudonym")


def test_one_value_has_one_pseudonym_under_one_key() -> None:
    text = "Jane Roe met Jane Roe and John Smith."
    clean, found = scrub_text(text, actions=ALL, key=KEY)
    first, second, third = (part.strip(".") for part in clean.split() if part.startswith("["))
    assert first == second != third
    assert found == {"person": 3}
    assert scrub_text(text, actions=ALL, key=OTHER)[0] != clean
    assert "Jane" not in clean and "Smith" not in clean


@pytest.mark.parametrize(
    "spellings",
    [
        (
            "010-1234-5678",
            "01012345678",
            "+82 10 1234 5678",
            "０１０-1234-5678",
            "공일공 일이삼사 오육칠팔",
        ),
        ("Kim@Example.com", "kim@example.com", "kim @ example.com"),
        ("4111 1111 1111 1111", "4111-1111-1111-1111", "4111111111111111"),
        ("900101-1234567", "900101 1234567"),
    ],
)
def test_spellings_of_one_value_have_one_pseudonym(spellings: tuple[str, ...]) -> None:
    assert len({scrub_text(text, actions=ALL, key=KEY)[0] for text in spellings}) == 1


def test_kinds_keep_their_pseudonyms_apart() -> None:
    assert pseudonym("phone", "1", KEY)[-9:] != pseudonym("card", "1", KEY)[-9:]


@pytest.mark.parametrize("kind", KINDS)
def test_what_replaces_is_never_found(kind: str) -> None:
    for new in (placeholder(kind), pseudonym(kind, "x", KEY)):
        for text in (new, f"name: {new} 010 {new} 씨", f"1234{new}5678 {new}{new}"):
            assert find_all(text) == []


def test_keep_is_not_looked_for_and_drop_is_counted() -> None:
    clean, found = scrub_text(
        "a@example.com 010-1234-5678", actions={"email": "keep", "phone": "drop"}
    )
    assert clean == "a@example.com [PHONE]"
    assert found == {"phone": 1}


def test_bad_actions_and_keys_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown action 'blur' for email; known: mask"):
        scrub_text("x", actions={"email": "blur"})
    with pytest.raises(ValueError, match="unknown text rule 'fone'"):
        check_rules([], [], actions={"fone": "mask"})
    with pytest.raises(ValueError, match="holds 5 bytes, pseudonyms need 16 or more"):
        scrub_text("x", actions={"email": "pseudonym"}, key=b"short")
    with pytest.raises(ValueError, match="holds 0 bytes"):
        scrub_text("x", actions={"email": "pseudonym"})
    with pytest.raises(ValueError, match="unknown finder of names 'bert'"):
        scrub_text("x", names="bert")


def test_key_is_read_from_a_variable_or_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "key"
    path.write_bytes(KEY + b"\n")
    assert read_key(path=path) == KEY
    monkeypatch.setenv("MM_TEST_KEY", KEY.decode())
    assert read_key("MM_TEST_KEY") == KEY
    with pytest.raises(ValueError, match="environment variable MM_TEST_NONE holds 0 bytes"):
        read_key("MM_TEST_NONE")
    with pytest.raises(ValueError, match="the key file cannot be read: No such file"):
        read_key(path=tmp_path / "none")
    with pytest.raises(ValueError, match="name an environment variable or a file"):
        read_key()
