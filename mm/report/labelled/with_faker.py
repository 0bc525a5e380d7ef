"""Values from Faker's lists (`pip install faker`), which share nothing with the rules' own"
" lists."""

import random

from mm.report.labelled.values import Make


def makers_of(seed: int) -> dict[str, Make]:
    """Return makers by kind that draw from Faker in both languages.

    Raises:
        ValueError: Faker is not installed.
    """
    try:
        from faker import Faker
    except ImportError:
        raise ValueError("the set faker needs Faker: pip install 'mm[faker]'") from None
    fakes = {"en": Faker("en_US"), "ko": Faker("ko_KR")}
    for fake in fakes.values():
        fake.seed_instance(seed)

    def plain(name: str) -> Make:
        return lambda rng, language: str(getattr(fakes[language], name)()).replace("\n", ", ")

    def person(rng: random.Random, language: str) -> str:
        fake = fakes[language]
        return str(fake.name()) if language == "ko" else f"{fake.first_name()} {fake.last_name()}"

    return {
        "person": person, "address": plain("address"), "email": plain("email"),
        "phone": plain("phone_number"), "ip_address": plain("ipv4"), "iban": plain("iban"),
        "mac_address": plain("mac_address"), "card": plain("credit_card_number"),
    }  # fmt: skip
