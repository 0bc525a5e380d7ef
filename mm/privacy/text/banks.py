"""Bank accounts: IBANs by their check, others beside the name of a bank or a word for account.

Ref: ISO 13616 (IBAN).
"""

import re
from collections.abc import Iterator

from mm.privacy.text.view import Span, has_any

_IBAN = re.compile(r"(?<![A-Z0-9])[A-Z]{2}\d{2}(?:[ \-]?[A-Z0-9]{1,4}){3,9}", re.IGNORECASE)
_BANK = (
    r"(?:(?:국민|신한|우리|하나|농협|기업|카카오|토스|케이|우체국|수협|신협|SC제일|제일|씨티"
    r"|한국씨티|대구|iM|부산"
    r"|광주|전북|경남|제주|산업|KB국민|NH농협|IBK기업|KDB산업|KEB하나)[ ]?(?:은행|뱅크)"
    r"|새마을금고|카카오뱅크|케이뱅크|토스뱅크|농협|수협|신협|우체국|국민|신한|카뱅"
    r"|(?<![A-Z])(?:KB|NH|IBK|KDB|KEB)(?![A-Z]))"
)
_ACCOUNT_WORD = r"(?:계좌(?:[ ]?번호)?|입금(?:처|[ ]?계좌)?|송금|이체|예금주|통장(?:[ ]?번호)?)"
_ACCOUNT = r"(?<!\d)(?:\d{2,7}(?:[ \-]\d{1,8}){1,4}|\d{10,16})(?!\d|[\-]\d)"
_KO_ACCOUNT = re.compile(
    rf"(?:{_BANK}|{_ACCOUNT_WORD})[^\d\n]{{0,18}}?({_ACCOUNT})"
    rf"|({_ACCOUNT})(?=[ ]?[(,/]?[ ]?(?:{_BANK}|예금주|계좌))"
)
_EN_ACCOUNT = re.compile(
    r"(?:\b(?:bank |checking |savings |current )?(?:account|acct|a/c)\b\.?(?: ?(?:number|no\b\.?"
    r"|num|#))?"
    r"|routing(?: (?:number|no\.?))?|sort code|\bABA\b)"
    r"(?:(?: [a-z]{1,12}){0,5} (?:is|was)| to| at)?[^\w\n]{0,4}(\d{2}-\d{2}-\d{2}(?!\d)"
    r"|\d(?:[ \-]?\d){5,18})(?!\d)",
    re.IGNORECASE,
)
_BANK_HINTS = (
    *"계좌 은행 뱅크 입금 송금 이체 예금 통장 농협 수협 신협 우체국 국민 신한 카뱅 금고".split(),
    *"kb nh ibk kdb keb account acct a/c routing sort aba".split(),
)
_MOBILE = re.compile(r"01[016789]\D?\d{3,4}\D?\d{4}")


def find_iban(text: str) -> Iterator[Span]:
    """Find international bank account numbers that pass their check and their country's layout."""
    from stdnum import iban

    for match in _IBAN.finditer(text):
        end = match.end()
        while end - match.start() >= 15:  # a word may follow: drop pieces from the end
            piece = text[match.start() : end]
            if piece[-1].isalnum() and iban.is_valid(piece):
                yield match.start(), end
                break
            end -= 1


def find_bank_account(text: str) -> Iterator[Span]:
    """Find account numbers next to the name of a Korean bank or a word such as 계좌, account."""
    if not has_any(text.lower(), _BANK_HINTS):
        return
    for match in _KO_ACCOUNT.finditer(text):
        group = 1 if match.group(1) else 2
        number = match.group(group)
        if 9 <= sum(map(str.isdigit, number)) <= 16 and not _MOBILE.fullmatch(number):
            yield match.span(group)
    for match in _EN_ACCOUNT.finditer(text):
        yield match.span(1)
