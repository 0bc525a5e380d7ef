import pytest
import torch
from PIL import Image

from mm.data.sample import Sample
from mm.data.shard_stream import ShardStream, ShardStreamConfig
from mm.data.shards import ShardReader, write_shards
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


def stream(reader: ShardReader, seed: int = 0, **values: int) -> ShardStream:
    def prepare(data: bytes) -> torch.Tensor:
        colour = open_image(data).getpixel((0, 0))
        assert isinstance(colour, tuple)
        return torch.full((3, 8, 8), int(colour[0]), dtype=torch.uint8)

    config = ShardStreamConfig(**{"rows": 2, "row_length": 256, "images_per_row": 3, **values})
    return ShardStream([reader], tiny_model.tokenizer(), 4, prepare, config, seed, num_steps=50)


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
    batches = len(feed._pack_epoch(0))
    greys = [int(v) for step in range(batches) for v in feed[step].images[:, 0, 0, 0]]
    assert sorted(greys) == [number * 20 for number in range(NUM_SAMPLES)]
    assert feed.counts.items == sum(1 + number % 3 for number in range(NUM_SAMPLES))
    assert feed.counts.too_long == feed.counts.repeated_prefixes == 0


def test_shards_too_small_for_a_batch_are_named(reader: ShardReader) -> None:
    with pytest.raises(ValueError, match=r"lower stream\.rows"):
        stream(reader, rows=500)[0]
