import json

import pytest
import torch
from PIL import Image

from mm.data.sample import Sample
from mm.data.shard_stream import ShardStream, ShardStreamConfig, Sight
from mm.data.shards import ShardReader, write_shards
from mm.errors import ConfigError
from mm.privacy.door import encode_png, open_image
from mm.privacy.policy import Policy
from tests import tiny_model

NUM_SAMPLES = 11


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> ShardReader:
    """Each picture is one grey, which its first answer names; some have more questions."""
    samples = []
    for number in range(NUM_SAMPLES):
        image = encode_png(Image.new("RGB", (20, 10), (number * 20,) * 3))
        turns = [("user", "<image>What is this?"), ("assistant", str(number * 20))]
        turns += [("user", "yes?"), ("assistant", "no")] * (number % 3)
        samples.append(Sample([image], turns, {}, f"{number:064x}"))
    folder = tmp_path_factory.mktemp("shards") / "grey"
    write_shards(samples, folder, Policy())
    return ShardReader(folder)


def grey(data: bytes) -> torch.Tensor:
    colour = open_image(data).getpixel((0, 0))
    assert isinstance(colour, tuple)
    return torch.full((3, 8, 8), int(colour[0]), dtype=torch.uint8)


def stream(reader: ShardReader, seed: int = 0, **values: int | str) -> ShardStream:
    config = ShardStreamConfig(**{"rows": 2, "row_length": 256, "images_per_row": 3, **values})
    sight = Sight(grey, 4)
    return ShardStream([reader], tiny_model.tokenizer(), sight, config, seed, num_steps=50)


def test_a_batch_is_the_same_whenever_it_is_asked_for(reader: ShardReader) -> None:
    forwards, backwards = stream(reader), stream(reader)
    there = [forwards[step] for step in range(9)]
    back = [backwards[step] for step in reversed(range(9))][::-1]
    for a, b in zip(there, back, strict=True):
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.packed.input_ids, b.packed.input_ids)
    other = stream(reader, seed=1)
    assert any(
        not torch.equal(other[s].packed.input_ids, there[s].packed.input_ids) for s in range(9)
    )


def test_pictures_stand_beside_their_own_questions(reader: ShardReader) -> None:
    pad = tiny_model.tokenizer().token_id("<|image_pad|>")
    feed = stream(reader)
    for step in range(6):
        batch = feed[step]
        images = iter(batch.images)
        for row, segments in zip(batch.packed.input_ids, batch.packed.segment_ids, strict=True):
            prefixes = segments[row == pad].unique(sorted=True)
            for prefix in prefixes:
                grey = int(next(images)[0, 0, 0])
                text = tiny_model.tokenizer().decode(row[segments == prefix + 1].tolist())
                assert f"assistant\n{grey}" in text
        assert next(images, None) is None


def test_an_epoch_shows_every_question_at_most_once(reader: ShardReader) -> None:
    feed = stream(reader, rows=1)
    batches = [batch for batch in map(feed.__getitem__, range(30)) if batch.cursor["epoch"] == 0]
    greys = [int(v) for batch in batches for v in batch.images[:, 0, 0, 0]]
    assert sorted(greys) == [number * 20 for number in range(NUM_SAMPLES)]
    counts = batches[-1].counts
    assert counts["items"] == sum(1 + number % 3 for number in range(NUM_SAMPLES))
    assert counts["too_long"] == counts["repeated_prefixes"] == 0
    assert counts["rows"] == len(batches)
    fill = sum(batch.packed.fill for batch in batches) / len(batches)
    assert fill == pytest.approx(counts["tokens"] / (counts["rows"] * 256))


def test_shards_too_small_for_a_batch_are_named(reader: ShardReader) -> None:
    with pytest.raises(ValueError, match=r"lower stream\.rows"):
        stream(reader, rows=500)[0]


@pytest.mark.parametrize("stop", [1, 4, 7, 13])
def test_going_on_from_a_cursor_equals_never_having_stopped(reader: ShardReader, stop: int) -> None:
    through = stream(reader, row_length=100, lookahead=2)
    batches = [through[step] for step in range(16)]
    assert batches[-1].cursor["epoch"] > 0
    resumed = stream(reader, row_length=100, lookahead=2)
    resumed.seek(json.loads(json.dumps(batches[stop - 1].cursor)))
    for expected in batches[stop:]:
        found = resumed[expected.step]
        assert torch.equal(found.images, expected.images)
        for name, tensor in vars(expected.packed).items():
            assert torch.equal(getattr(found.packed, name), tensor)
        assert found.sources == expected.sources
        assert found.counts == expected.counts
        assert json.dumps(found.cursor) == json.dumps(expected.cursor)
    assert torch.equal(resumed[0].packed.input_ids, batches[0].packed.input_ids)  # and back again


def test_a_cursor_of_another_stream_is_refused(reader: ShardReader) -> None:
    cursor = stream(reader)[2].cursor
    for other in (stream(reader, seed=1), stream(reader, lookahead=3)):
        with pytest.raises(ConfigError, match=r"other shards, another data\.stream or another"):
            other.seek(cursor)


def test_an_epoch_is_read_no_further_than_the_rows_ahead(reader: ShardReader) -> None:
    feed = stream(reader, rows=1, row_length=100, lookahead=1, images_per_row=1)
    feed[0]
    assert feed.cursor()["taken"] < NUM_SAMPLES / 2


def test_workers_together_give_what_one_gives(reader: ShardReader) -> None:
    loader = torch.utils.data.DataLoader(
        stream(reader), batch_size=None, sampler=range(8), num_workers=2
    )
    alone = stream(reader)
    for step, batch in enumerate(loader):
        assert torch.equal(batch.packed.input_ids, alone[step].packed.input_ids)
        assert batch.cursor == alone[step].cursor


@pytest.fixture(scope="module")
def talks(tmp_path_factory: pytest.TempPathFactory) -> ShardReader:
    """Conversations of several turns and pictures, and some that can't be learned from."""
    image = encode_png(Image.new("RGB", (20, 10), (40,) * 3))
    other = encode_png(Image.new("RGB", (20, 10), (80,) * 3))
    ask, answer = ("user", "<image>What is this?"), ("assistant", "a red cup")
    samples = [
        Sample([image, other], [ask, answer, ("user", "and <image>this?"), ("assistant", "3")]),
        Sample([image], [("system", "yes"), ask, answer, ("user", "how many?"), answer]),
        Sample([image, image, image, image], [("user", "<image>" * 4), answer]),
        Sample([image], [ask]),
        Sample([], [("user", "What is this?"), answer]),
        Sample([image], [ask, ("assistant", "cups " * 400)]),
    ]
    samples = [Sample(s.images, s.turns, {}, f"{number:064x}") for number, s in enumerate(samples)]
    folder = tmp_path_factory.mktemp("talks") / "talks"
    write_shards(samples, folder, Policy())
    return ShardReader(folder)


def test_conversations_are_kept_whole_and_what_is_left_out_is_counted(talks: ShardReader) -> None:
    feed = stream(talks, rows=1, images_per_row=3)
    batch = feed[0]
    assert (
        batch.counts
        | {
            "pictures": 6,
            "items": 3,
            "too_long": 1,
            "too_many_pictures": 1,
            "without_picture": 1,
            "unanswered": 1,
        }
        == batch.counts
    )
    assert batch.images.shape[0] == 3
    fill = int((batch.packed.segment_ids > 0).sum()) / 256
    reasons = ("too_long", "too_many_pictures", "unanswered")
    assert batch.measured() == {
        "fill": pytest.approx(fill),
        "left_out": 3,
        **{f"left_out/{reason}": 1 for reason in reasons},
    }
    row, segments = batch.packed.input_ids[0], batch.packed.segment_ids[0]
    words = tiny_model.tokenizer()
    texts = [words.decode(row[segments == s].tolist()) for s in segments.unique() if s]
    assert sorted(text.count("assistant\n") for text in texts) == [1, 2, 2]
    assert any("system\nyes" in text for text in texts)
    learned = words.decode(batch.packed.label_ids.tolist())
    assert learned.count("a red cup") == 4 and "What" not in learned
    assert (row == words.token_id("<|image_pad|>")).sum() == 3 * 4


def test_turns_of_one_picture_see_each_other_if_asked(reader: ShardReader) -> None:
    together = stream(reader, turns="together", rows=1)[0]
    apart = stream(reader, rows=1)[0]
    assert len(together.packed.segment_ids.unique()) < len(apart.packed.segment_ids.unique())
    with pytest.raises(ConfigError, match=r"stream.turns is 'both'; known: independent, together"):
        ShardStreamConfig(turns="both")
