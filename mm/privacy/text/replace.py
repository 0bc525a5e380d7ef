"""What stands where personal data was: a typed placeholder, or a pseudonym that a key decides.

A pseudonym is consistent: the same value gives the same letters under the same key, so that a
conversation still shows who is who. Without the key nobody can compute it from a guess; with the
key anybody can. The key is read from an environment variable or a file and never written anywhere.

Ref: RFC 2104 (HMAC); GDPR article 4(5): what is pseudonymised stays personal data.
"""

import hashlib
import hmac
import os
import re

ACTIONS = ("mask", "pseudonym", "keep", "drop")
KEY_BYTES = 16  # shorter keys can be guessed
_LETTERS = "BCDFGHJKLMNPQRSTVWXZ"  # no vowels: no words


def read_key(variable: str | None = None, path: str | os.PathLike[str] | None = None) -> bytes:
    """Read the key for pseudonyms from an environment variable or a file.

    Raises:
        ValueError: neither is given or set, or the key is shorter than 16 bytes.
    """
    if variable is not None:
        key = os.environ.get(variable, "").encode()
        where = f"environment variable {variable}"
    elif path is not None:
        try:
            with open(path, "rb") as file:
                key = file.read(4096).strip()
        except OSError as error:
            raise ValueError(f"the key file cannot be read: {error.strerror}") from None
        where = "the key file"
    else:
        raise ValueError("pseudonyms need a key: name an environment variable or a file with it")
    check_key(key, where)
    return key


def check_key(key: bytes | None, where: str = "the key for pseudonyms") -> None:
    """Raise `ValueError` for a key that is missing or too short."""
    if not key or len(key) < KEY_BYTES:
        raise ValueError(
            f"{where} holds {len(key or b'')} bytes, pseudonyms need {KEY_BYTES} or more: make one"
            " with `openssl rand -hex 32`"
        )


def placeholder(kind: str) -> str:
    """Return `[EMAIL]` for `email`."""
    return f"[{kind.upper()}]"


def pseudonym(kind: str, value: str, key: bytes) -> str:
    """Return `[EMAIL-BCDFGHJK]`: letters that follow from the key, the kind and the value.

    Args:
        value: what was found, as the rules see it; spellings of one number give one pseudonym.
    """
    message = f"{kind}\0{_canonical(kind, value)}".encode()
    number = int.from_bytes(hmac.new(key, message, hashlib.sha256).digest()[:16], "big")
    letters = ""
    for _ in range(8):
        number, place = divmod(number, len(_LETTERS))
        letters += _LETTERS[place]
    return f"[{kind.upper()}-{letters}]"


def _canonical(kind: str, value: str) -> str:
    """Make spellings of one value equal."""
    if kind == "phone":
        digits = re.sub(r"\D", "", value)
        if value.lstrip().startswith("+") or digits.startswith("0082") or digits.startswith("82"):
            digits = re.sub(r"^(?:00)?82(?:0(?=1))?", "0", digits)
        return digits
    if kind in ("api_key", "wallet", "coordinates"):
        return value
    if kind in ("person", "address"):
        return " ".join(value.casefold().split())
    if kind in ("email", "account_handle"):
        return re.sub(r"\s", "", value.casefold()).removeprefix("@")
    return re.sub(r"[\W_]", "", value.casefold())
