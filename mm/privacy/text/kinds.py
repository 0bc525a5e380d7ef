"""The kinds of personal data that the rules know, most certain first, and what finds each."""

from collections.abc import Callable, Iterable, Iterator

from mm.privacy.text import banks, documents, keys, names, network, numbers, phones, places
from mm.privacy.text.view import Span

Finder = Callable[[str, tuple[str, ...]], Iterable[Span]]


def _plain(find: Callable[[str], Iterator[Span]]) -> Finder:
    return lambda text, regions: find(text)


# Where spans of two kinds overlap, what is found counts as the kind that comes first here.
FINDERS: dict[str, Finder] = {
    "api_key": _plain(keys.find_api_key),
    "email": _plain(network.find_email),
    "wallet": _plain(keys.find_wallet),
    "iban": _plain(banks.find_iban),
    "mac_address": _plain(network.find_mac_address),
    "driver_licence": _plain(documents.find_driver_licence),
    "resident_number": _plain(numbers.find_resident_number),
    "foreigner_number": _plain(numbers.find_foreigner_number),
    "card": _plain(numbers.find_card),
    "passport": _plain(documents.find_passport),
    "date_of_birth": _plain(documents.find_date_of_birth),
    "us_itin": _plain(numbers.find_us_itin),
    "us_ssn": _plain(numbers.find_us_ssn),
    "uk_nhs": _plain(numbers.find_uk_nhs),
    "business_number": _plain(numbers.find_business_number),
    "ip_address": _plain(network.find_ip_address),
    "coordinates": _plain(network.find_coordinates),
    "bank_account": _plain(banks.find_bank_account),
    "phone": phones.find_phone,
    "address": _plain(places.find_address),
    "vehicle_plate": _plain(documents.find_vehicle_plate),
    "account_handle": _plain(network.find_account_handle),
    "person": _plain(names.find_person),
}
# How many digits a text must have before a kind is looked for; 0 for all others.
MIN_DIGITS = {
    "iban": 8, "mac_address": 1, "driver_licence": 5, "resident_number": 7, "foreigner_number": 7,
    "card": 12, "passport": 7, "date_of_birth": 2, "us_itin": 9, "us_ssn": 9, "uk_nhs": 10,
    "business_number": 10, "ip_address": 2, "coordinates": 4, "bank_account": 6, "phone": 7,
    "address": 1, "vehicle_plate": 2,
}  # fmt: skip
