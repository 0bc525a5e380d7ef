"""Who somebody in a picture is stays unsaid, by default; a user's own policy can take its place."""

import sys
import types
from pathlib import Path

import pytest

from mm.errors import UsageError
from mm.model import Model
from mm.refusal import NamesPolicy, PeoplePolicy, Policy, Refusal, asks_who, make_policy
from tests import tiny_model
from tests.scripts.pictures import encoded


class Shouting(Policy):
    """Refuses what is shouted, and every answer."""

    reads_answers = True

    def before(self, question: str, pictures: int) -> Refusal | None:
        return Refusal("shouted", "Please ask calmly.") if question.isupper() else None

    def after(self, question: str, answer: str, pictures: int) -> Refusal | None:
        return Refusal("checked", f"{pictures} pictures")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    return Model.load(tiny_model.save(folder, tiny_model.model(1)), "cpu")


def test_questions_without_a_picture_are_answered() -> None:
    policy = PeoplePolicy()
    assert policy.before("Who is she?", 0) is None
    refusal = policy.before("Who is she?", 1)
    assert refusal is not None and refusal.kind == "identify_person"


def test_refusal_speaks_the_language_of_the_question() -> None:
    english = PeoplePolicy().before("who is this man", 1)
    korean = PeoplePolicy().before("이 사람은 누구인가요?", 1)
    assert english and korean
    assert "pictures" in english.text and "사진" in korean.text


@pytest.mark.parametrize(
    "question", ["Is this New York?", "Is this Maria Keller's umbrella?", "누구나 쓸 수 있나요?"]
)
def test_what_only_looks_like_it_is_answered(question: str) -> None:
    assert not asks_who(question)


@pytest.mark.parametrize(
    "question", ["WHO  IS\nTHIS MAN?", "Who’s she?", "What colour is it? And who is that woman?"]
)
def test_letters_lines_and_company_hide_nothing(question: str) -> None:
    assert asks_who(question)


def test_names_in_answers_are_withheld_if_asked_for() -> None:
    answer = "a portrait of Maria Keller"
    assert PeoplePolicy().after("Describe it.", answer, 1) is None
    assert NamesPolicy().after("Describe it.", answer, 1) is not None
    assert NamesPolicy().after("Describe it.", "a red cup", 1) is None
    assert NamesPolicy().after("Who wrote it?", answer, 0) is None


def test_refused_rows_of_a_batch_leave_the_others_alone(model: Model) -> None:
    picture = encoded(shade=120)
    prompts = ["what is this?", "who is this man?", "how many cups?"]
    model.policy = Policy()
    plain = model.answer_many([picture] * 3, prompts)
    model.policy = PeoplePolicy()
    kept = model.answer_many([picture] * 3, prompts)
    assert [kept[0].text, kept[2].text] == [plain[0].text, plain[2].text]
    assert kept[1].refused == "identify_person" and kept[1].tokens == 0
    assert plain[1].refused == ""


def test_a_stream_is_refused_in_one_part(model: Model) -> None:
    model.policy = PeoplePolicy()
    parts = list(model.stream(model.prepare(encoded(shade=20), "Who is this?")))
    assert parts == [model.answer(encoded(shade=20), "Who is this?").text]


def test_chats_are_judged_by_what_was_said_last(model: Model) -> None:
    model.policy = PeoplePolicy()
    turns = [("user", "<image>what is this?"), ("assistant", "a man"), ("user", "who is he?")]
    request = model.prepare_turns(turns, [encoded(shade=20)])
    assert request.refusal is not None and request.question == "who is he?"
    request = model.prepare_turns([*turns[:2], ("user", "how many cups?")], [encoded(shade=20)])
    assert request.refusal is None


def test_a_policy_of_the_users_own_sees_questions_and_answers(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.ModuleType("own_policy")
    module.Shouting = Shouting  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "own_policy", module)
    model.policy = make_policy("own_policy:Shouting")
    assert model.answer(encoded(shade=20), "WHAT?").refused == "shouted"
    answer = model.answer(encoded(shade=20), "what?")
    assert (answer.refused, answer.text) == ("checked", "1 pictures")
    assert list(model.stream(model.prepare(encoded(shade=20), "what?"))) == ["1 pictures"]


@pytest.mark.parametrize(
    ("name", "words"),
    [("peple", "people"), ("nowhere_at_all:X", "nowhere_at_all"), ("pathlib:Path", "derive")],
)
def test_an_unknown_policy_is_told(name: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        make_policy(name)


def test_none_answers_everything(tmp_path: Path) -> None:
    assert make_policy("none").before("Who is she?", 3) is None
