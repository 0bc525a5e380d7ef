"""Addresses of wallets; keys and tokens that open accounts.

Ref: BIP 13, 173, 350 and EIP 55 (wallets); the prefixes that providers give to their keys so that
leaks can be found; RFC 7468 (PEM).
"""

import re
from collections.abc import Iterator

from mm.privacy.text.view import Span, has_any

# --- Wallets --------------------------------------------------------------------------------------

_B58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_WALLET = re.compile(
    rf"(?<![A-Za-z0-9])(?:0x[0-9a-fA-F]{{40}}|[13LMDTA9][{_B58}]{{25,34}})(?![A-Za-z0-9])"
)
_BECH32 = re.compile(
    r"(?<![a-z0-9])(?:(?:bc|tb|ltc)1[02-9ac-hj-np-z]{11,90}"
    r"|addr1[02-9ac-hj-np-z]{50,110})(?![a-z0-9])",
    re.I,
)
_WALLET_NAMED = re.compile(
    rf"(?:wallet|지갑|bitcoin|ethereum|solana|ripple|monero|비트코인|이더리움|솔라나|리플"
    rf"|\b(?:BTC|ETH|SOL|XRP"
    rf"|XMR|ADA|TRX)\b)[^\n]{{0,24}}?(?<![A-Za-z0-9])([{_B58}]{{25,110}})(?![A-Za-z0-9])",
    re.IGNORECASE,
)


_LONG = re.compile(r"[A-Za-z0-9]{18}")


def find_wallet(text: str) -> Iterator[Span]:
    """Find addresses of cryptocurrencies: Base58Check and Bech32, Ethereum's, others by context."""
    if not _LONG.search(text):
        return
    for match in _WALLET.finditer(text):
        if match.group().startswith("0x") or _base58check(match.group()):
            yield match.span()
    for match in _BECH32.finditer(text):
        if any(map(str.isdigit, match.group()[3:])):
            yield match.span()
    for match in _WALLET_NAMED.finditer(text):
        if (
            re.search(r"\d", match.group(1))
            and re.search("[a-z]", match.group(1))
            and re.search("[A-Z]", match.group(1))
        ):
            yield match.span(1)


def _base58check(address: str) -> bool:
    import hashlib

    number = 0
    for char in address:
        number = number * 58 + _B58.index(char)
    data = number.to_bytes((number.bit_length() + 7) // 8, "big")
    data = b"\0" * (len(address) - len(address.lstrip("1"))) + data
    digest = hashlib.sha256(hashlib.sha256(data[:-4]).digest()).digest()
    return len(data) == 25 and digest[:4] == data[-4:]


# --- Keys and tokens ------------------------------------------------------------------------------

_KEY = re.compile(
    r"(?<![A-Za-z0-9])(?:(?:AKIA|ASIA|AGPA|AIDA|AROA)[0-9A-Z]{16}"
    r"|gh[pousr]_[A-Za-z0-9]{30,255}|github_pat_[A-Za-z0-9_]{22,255}|glpat-[\w-]{20,}"
    r"|xox[abeprs]-[A-Za-z0-9-]{10,}|(?:sk|pk|rk)_(?:live|test)_[A-Za-z0-9]{10,}"
    r"|whsec_[A-Za-z0-9]{20,}"
    r"|AIza[\w-]{35}|ya29\.[\w-]{20,}|sk-(?:proj-|ant-|svcacct-)?[\w-]{20,}|hf_[A-Za-z0-9]{30,}"
    r"|r8_[A-Za-z0-9]{30,}"
    r"|npm_[A-Za-z0-9]{36}|pypi-[\w-]{50,}|SG\.[\w-]{16,}\.[\w-]{16,}|(?:SK|AC)[0-9a-f]{32}"
    r"|key-[0-9a-f]{32}|dop_v1_[0-9a-f]{64}|shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}"
    r"|lin_api_[A-Za-z0-9]{32,}"
    r"|eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{8,}|\d{8,10}:AA[\w-]{33}"
    r"|[MN][A-Za-z\d]{23,27}\.[\w-]{6}\.[\w-]{27,})"
    r"(?![A-Za-z0-9])"
)
_PEM = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----[\s\S]{0,8192}?"
    r"(?:-----END [A-Z ]*PRIVATE KEY(?: BLOCK)?-----|\Z)"
)
_KEY_NAMED = re.compile(
    r"(?:api[ _-]?(?:key|token|secret)|(?:access|secret|private|auth|client|session|bearer"
    r"|refresh|account)[ _-]?(?:key|token|secret)"
    r"|\btoken|\bsecret|\bpassw(?:or)?d|\bpasscode|\bpwd|비밀번호|비번|패스워드|암호|(?:API|인증"
    r"|접근|액세스"
    r"|시크릿)[ ]?(?:키|토큰))"
    r"(?:[\"'`]?[ ]?[:=]{1,2}>?[ ]?| (?:is|was)[ :]{1,2}|(?:은|는|이"
    r"|가)[ ]?:?[ ]?)[\"'`]?([^\s\"'`,;<>(){}\[\]\x00가-힣]{6,200})",
    re.IGNORECASE,
)
_LONG_KEY = re.compile(r"[A-Za-z0-9_\-.:+/]{14}")
_SECRET_HINTS = (
    "key",
    "token",
    "secret",
    "pass",
    "pwd",
    "비밀",
    "비번",
    "패스워드",
    "암호",
    "키",
    "토큰",
)
_BEARER = re.compile(r"\b(?:Bearer|Basic|Authorization: \w+) ([\w\-.=+/~]{16,})")
_URL_USER = re.compile(r"(?<=://)([^\s/:@\x00]{1,64}:[^\s/@\x00]{1,128})(?=@)")


def find_api_key(text: str) -> Iterator[Span]:
    """Find keys and tokens by their providers' prefixes, and secrets after the word for them."""
    if _LONG_KEY.search(text):
        for match in _KEY.finditer(text):
            yield match.span()
        for match in _BEARER.finditer(text):
            yield match.span(1)
    if "PRIVATE KEY" in text:
        for match in _PEM.finditer(text):
            yield match.span()
    if "://" in text:
        for match in _URL_USER.finditer(text):
            yield match.span(1)
    if not has_any(text.lower(), _SECRET_HINTS):
        return
    for match in _KEY_NAMED.finditer(text):
        if _is_secret(match.group(1)):
            yield match.start(1), match.start(1) + len(match.group(1).rstrip(".!?"))


def _is_secret(value: str) -> bool:
    """Tell a secret from a word: two kinds of characters at least, or long and mixed."""
    value = value.rstrip(".!?")
    kinds = sum(
        any(test(char) for char in value)
        for test in (str.islower, str.isupper, str.isdigit, lambda char: char in "!@#$%^&*+=-_~?/")
    )
    has_digit = any(map(str.isdigit, value))
    return len(value) >= 6 and kinds >= 2 and (has_digit or kinds >= 3)
