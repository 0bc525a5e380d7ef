"""Measure what PRIVACY.md claims: `python -m tests.privacy.measure`. Everything in it is made up.

Prints one line per claim. No part of the test run, which holds the same properties at small n.
"""

import io
import json
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import phonenumbers
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image
from stdnum import luhn

from mm.data.sample import Sample
from mm.data.shards import ShardReader, write_shards
from mm.data.sources import build
from mm.privacy import door
from mm.privacy.errors import DoorError, PrivacyError
from mm.privacy.metadata import check_pixels_only
from mm.privacy.policy import Policy
from mm.privacy.text import find, scrub_text
from tests.privacy import planted as plant
from tests.privacy.test_scrub import TEXT_SECRETS, every_byte, planted_samples

FRAMES = (
    "{}",
    "call {} today",
    "연락처는 {}입니다",
    "({})",
    "it is {}.",
    "{}로 보내",
    "a,{},b",
    "x: {}",
)


def share(name: str, hits: int, n: int) -> None:
    """Print a share with its 95 % Wilson interval."""
    z, p = 1.96, hits / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * ((p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5)
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    print(f"{name}: {hits} of {n} = {p:.4f} [{low:.4f}, {high:.4f}]")


def recall(name: str, make: Callable[[random.Random], str], n: int = 2000) -> None:
    """Count made-up secrets, each put among words, of which no long piece survives."""
    rng, hits = random.Random(name), 0
    for index in range(n):
        secret = make(rng)
        clean, _ = scrub_text(FRAMES[index % len(FRAMES)].format(secret))
        tail = "".join(char for char in clean if char.isdigit() or char == "@")
        hits += secret not in clean and len(tail) < 4
    share(f"found, {name}", hits, n)


def email(rng: random.Random) -> str:
    words = ["kim", "j.doe", "info", "first.last", "user+tag", "a_b", "홍길동", "x99"]
    ends = [
        "example.com",
        "mail.example.co.kr",
        "example.org",
        "예시.한국",
        "sub-domain.example.net",
    ]
    return f"{rng.choice(words)}@{rng.choice(ends)}"


def card(rng: random.Random) -> str:
    length, first = rng.choice(
        [(16, "4"), (16, "5"), (15, "37"), (16, "62"), (16, "35"), (16, "94")]
    )
    body = first + "".join(rng.choice("0123456789") for _ in range(length - 1 - len(first)))
    digits = body + luhn.calc_check_digit(body)
    separator = rng.choice(["", " ", "-"])
    return separator.join(digits[i : i + 4] for i in range(0, len(digits), 4))


def mobile_kr(rng: random.Random) -> str:
    a, b = rng.randrange(1000, 10000), rng.randrange(10000)
    return rng.choice(
        [f"010-{a}-{b:04}", f"010{a}{b:04}", f"010 {a} {b:04}", f"010.{a}.{b:04}",
         f"+82 10-{a}-{b:04}", f"+8210{a}{b:04}", f"010){a}-{b:04}"]
    )  # fmt: skip


def number_of(regions: list[str], style: int) -> Callable[[random.Random], str]:
    def make(rng: random.Random) -> str:
        kind = rng.choice(
            [phonenumbers.PhoneNumberType.MOBILE, phonenumbers.PhoneNumberType.FIXED_LINE]
        )
        while True:
            sample = phonenumbers.example_number_for_type(rng.choice(regions), kind)
            if sample is None:
                continue
            national = str(sample.national_number)
            sample.national_number = int(national[:-4] + f"{rng.randrange(10000):04}")
            if phonenumbers.is_valid_number(sample):
                return str(phonenumbers.format_number(sample, style))

    return make


def planted() -> None:
    """Search every byte of shards made of planted files, raw, inflated and re-read."""
    needles = [*plant.SECRETS, b"PLANTED", *(secret.encode() for secret in TEXT_SECRETS)]
    needles += [needle.decode().encode("utf-16-le") for needle in needles]
    needles += plant.GPS_BYTES
    survived = searched = pictures = 0
    for encoding in ("png", "webp", "jpeg"):
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder, "out")
            write_shards(planted_samples(), out, Policy(encoding=encoding))
            pictures += len(ShardReader(out))
            for blob in every_byte(out):
                searched += len(blob)
                survived += sum(needle in blob for needle in needles)
    print(
        f"planted secrets: {survived} found of {len(needles)} kinds in {pictures} files,", end=" "
    )
    print(f"{searched} bytes searched")


def encoders(n: int = 600) -> None:
    """Check pictures of random sizes and noise, as each encoder writes them."""
    rng, passed = random.Random(0), 0
    for index in range(n):
        size = (rng.randrange(1, 200), rng.randrange(1, 200))
        image = Image.frombytes("RGB", size, rng.randbytes(3 * size[0] * size[1]))
        encoding = ("png", "webp", "jpeg")[index % 3]
        policy = Policy(encoding=encoding, quality=rng.choice([40, 75, 92, 100]))
        passed += check_pixels_only(policy.encode(image)) == encoding
    share("own encoders pass the strict check", passed, n)


def damaged(seconds: float = 30.0) -> None:
    """Open files with random damage: a picture of pixels only, or a DoorError."""
    rng, opened, refused, worst = random.Random(0), 0, 0, 0.0
    base, end = [plant.planted(kind) for kind in plant.FORMATS], time.monotonic() + seconds
    while time.monotonic() < end:
        data = bytearray(rng.choice(base))
        for _ in range(rng.choice((1, 2, 8))):
            data[rng.randrange(min(len(data), rng.choice((64, 10**6))))] = rng.randrange(256)
        start = time.monotonic()
        try:
            image = door.open_image(bytes(data))
            opened += image.mode == "RGB" and image.info == {}
        except DoorError:
            refused += 1
        worst = max(worst, time.monotonic() - start)
    print(f"damaged files: {opened} opened, {refused} refused, 0 other errors, worst {worst:.2f} s")


NEEDLESS: dict[str, Callable[[random.Random], str]] = {
    "counts and years": lambda r: f"{r.randrange(99)} cats, {r.randrange(1900, 2100)}",
    "dates and times": lambda r: (
        f"{r.randrange(1950, 2050)}-{r.randrange(1, 13):02}-{r.randrange(1, 29):02}"
        f" {r.randrange(24):02}:{r.randrange(60):02}:{r.randrange(60):02}"
    ),
    "prices": lambda r: f"${r.randrange(10**7):,}.{r.randrange(100):02}",
    "decimals": lambda r: f"{r.random() * 100:.12f}",
    "coordinates": lambda r: f"({r.uniform(-90, 90):.6f}, {r.uniform(-180, 180):.6f})",
    "lists of small numbers": lambda r: ", ".join(str(r.randrange(100)) for _ in range(12)),
    "IP addresses": lambda r: ".".join(str(r.randrange(256)) for _ in range(4)),
    "Unix times": lambda r: str(r.randrange(1_300_000_000, 1_900_000_000)),
    "8-digit numbers": lambda r: str(r.randrange(10**7, 10**8)),
    "12-digit numbers": lambda r: str(r.randrange(10**11, 10**12)),
    "16-digit numbers": lambda r: str(r.randrange(10**15, 10**16)),
}


def needless(n: int = 2000) -> None:
    """Count plain numbers of each kind that a rule takes for personal data."""
    for name, make in NEEDLESS.items():
        rng = random.Random(name)
        hits = sum(scrub_text(text := f"It says {make(rng)} here")[0] != text for _ in range(n))
        share(f"removed without need, {name}", hits, n)


def clean_texts() -> Iterator[str]:
    for split in ("train", "test"):
        for sample in build("easy_vqa", "", split=split):
            yield from (words for _, words in sample.turns)


def twice(n: int = 20_000) -> None:
    @settings(max_examples=n, deadline=None, database=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(st.one_of(st.text(max_size=60), st.text("0123456789-. ()+@/a가０\u200b", max_size=60)))
    def holds(text: str) -> None:
        once, _ = scrub_text(text)
        assert scrub_text(once) == (once, {})

    holds()
    print(f"scrubbing twice equals once: {n} random texts, no exception")


def speed() -> None:
    rng = random.Random(0)
    texts = [
        f"There are {rng.randrange(9)} red dogs left of the cat and 3 cups." for _ in range(20_000)
    ]
    start = time.perf_counter()
    for text in texts:
        scrub_text(text)
    print(f"text rules: {(time.perf_counter() - start) / len(texts) * 1e6:.1f} us per caption")
    for side in (64, 1024):
        image = plant.picture(side, side)
        for kind in ("PNG", "JPEG"):
            buffer, n = io.BytesIO(), 200 if side == 64 else 10
            image.save(buffer, kind)
            start = time.perf_counter()
            for _ in range(n):
                door.open_image(buffer.getvalue())
            took = (time.perf_counter() - start) / n * 1e3
            print(f"door: {took:.2f} ms per {side} x {side} {kind}")


def tampered() -> None:
    """Flip one byte anywhere in a directory of shards: the reader must refuse it."""
    rng, refused, n = random.Random(0), 0, 300
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out")
        write_shards([Sample([plant.planted("png")]) for _ in range(4)], out, Policy())
        files = sorted(out.iterdir())
        for _ in range(n):
            path = rng.choice(files)
            good = path.read_bytes()
            bad = bytearray(good)
            bad[rng.randrange(len(bad) - 1)] ^= 1 << rng.randrange(
                8
            )  # not the ledger's last newline
            path.write_bytes(bad)
            try:
                ShardReader(out)
            except PrivacyError:
                refused += 1
            path.write_bytes(good)
        assert json.loads((out / "ledger.json").read_text())["audit"]
    share("shards with one bit flipped are refused", refused, n)


def main() -> None:
    planted()
    encoders()
    tampered()
    damaged()
    recall("e-mail addresses", email)
    recall("card numbers", card)
    recall("Korean mobile numbers", mobile_kr)
    style = phonenumbers.PhoneNumberFormat
    recall("KR, US, GB numbers, national format", number_of(["KR", "US", "GB"], style.NATIONAL))
    regions = sorted(phonenumbers.SUPPORTED_REGIONS)
    recall("numbers of all regions with +", number_of(regions, style.INTERNATIONAL))
    others = ["DE", "FR", "JP", "CN", "IN", "BR"]
    recall("DE, FR, JP, CN, IN, BR numbers, national format", number_of(others, style.NATIONAL))
    needless()
    if find_spec("easy_vqa"):
        texts = list(clean_texts())
        hits = sum(any(find(text, rule) for rule in Policy().text_rules) for text in texts)
        share("easy-VQA texts changed without need", hits, len(texts))
    twice()
    speed()


if __name__ == "__main__":
    main()
