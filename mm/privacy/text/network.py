"""What identifies people on networks: addresses, accounts, wallets, keys.

Ref: RFC 5321 section 4.1.2 (e-mail); RFC 4291 (IPv6); BIP 13, 173, 350 and EIP 55 (wallets); the
prefixes that providers give to their keys so that leaks can be found.
"""

import ipaddress
import re
from collections.abc import Iterator

from mm.privacy.text.view import Span, has_any

# --- E-mail ---------------------------------------------------------------------------------------

_LOCAL = r"[\w.!#$%&'*+/=?^`{|}~-]"
_AT = r"(?:%40|&#0*64;|[(\[{<]\s?(?:at|AT|a|골뱅이|앳|@)\s?[)\]}>]|_at_|[ ]?골뱅이[ ]?)"
_DOT = r"(?:\s?[(\[{<]\s?(?:dot|DOT|\.|닷|점)\s?[)\]}>]\s?|\s(?:dot|DOT)\s|[ ]?닷[ ]?)"
_TLD = (
    r"(?:com|net|org|edu|gov|info|biz|io|dev|app|me|kr|uk|us|de|jp|cn|fr|ca|au|eu|co|ac|go|or|re"
    r"|컴)"
)
_EMAIL = re.compile(
    rf"(?:\"[^\"\n]{{1,64}}\"|(?<!{_LOCAL}){_LOCAL}{{1,256}})(?:@|\s@\s|\s?{_AT}\s?)"
    r"(?:(?:[a-z0-9-]+\.)+[a-z]{2,24}(?![a-z0-9])|(?:[\w-]+\.)+[^\W\d_]{2,24}"
    r"|\[[0-9a-f:.]{3,45}\])",
    re.IGNORECASE,
)
_SPELLED = re.compile(
    rf"(?<![\w.+-])[\w+-]{{1,40}}(?:(?:\.|{_DOT})[\w+-]{{1,40}}){{0,3}}(?:@|\s?{_AT}\s?|\s(?:@|at"
    rf"|AT)\s)"
    rf"(?:[\w-]{{1,40}}(?:\.|{_DOT})){{1,4}}{_TLD}(?![a-z0-9])"
)
_AT_GATE = re.compile(r"@|%40|&#0*64;|\b_?at_?\b|\bAT\b|골뱅이|앳|\([aA]\)")
_AT_HINTS = ("%40", "64;", "at", "(a)", "골뱅이", "앳")
_NO_MAILBOX = frozenset(
    "look looks is are was us me here visit it available found find live sold shop buy sale hosted"
    " online based working works work read more them register apply download see".split()
)


def find_email(text: str) -> Iterator[Span]:
    """Find e-mail addresses, "kim (at) example.com" and "kim at example dot com" too."""
    if "@" not in text and not (has_any(text.lower(), _AT_HINTS) and _AT_GATE.search(text)):
        return
    for match in _EMAIL.finditer(text):
        yield match.span()
    for match in _SPELLED.finditer(text):
        words = match.group().lower()
        if " at " in words:
            before, after = words.split(" at ", 1)
            if before in _NO_MAILBOX or not re.search(r"dot|닷|점|\[\.\]|\(\.\)", words):
                continue  # "found at example.com"
        yield match.span()


# --- IP and MAC addresses, coordinates ------------------------------------------------------------

_OCTET = r"(?:\d|[1-9]\d|1\d\d|2[0-4]\d|25[0-5])"
_IPV4 = re.compile(rf"(?<![\d.])(?<!\d-){_OCTET}(?:(?:\.|\[\.\]){_OCTET}){{3}}(?!\d|\.\d|-\d)")
_IPV6 = re.compile(
    r"(?<![\w:.])(?=[0-9a-f:]*:[0-9a-f:]*:)[0-9a-f:]{3,39}(?:(?:\.\d{1,3}){3})?(?![\w:])",
    re.I | re.A,
)
_VERSION = re.compile(
    r"(?:\b(?:up|down)grad\w+(?: from)?(?: [\d.]+ to)?|\bupdat\w+ (?:from|to)"
    r"|\bversions?|\bver\.?|\bv\.?|\brelease|build|firmware|driver|버전|펌웨어|빌드|릴리[스즈]"
    r"|드라이버"
    r"|section|clause|§|조항|==|>=|<=|~=)"
    r"[^\w\n]{0,4}(?:is|was|는|은|이|가)?[^\w\n]{0,3}$|[A-Za-z_][\w]*[-_/]v?$|[a-z]+==$|v$",
    re.IGNORECASE,
)
_NOBODY = re.compile(r"(?:0\.0\.0\.0|127\.\d+\.\d+\.\d+|255\.255\.\d+\.\d+)$")
_MAC = re.compile(
    r"(?<![\w:\-])(?:[0-9a-f]{2}(?::[0-9a-f]{2}){5}|[0-9a-f]{2}(?:-[0-9a-f]{2}){5}"
    r"|[0-9a-f]{4}(?:\.[0-9a-f]{4}){2})(?![\w:\-])",
    re.IGNORECASE | re.A,
)
_MAC_PLAIN = re.compile(r"\bMAC\b[^\n]{0,20}?(?<![\w])([0-9a-f]{12})(?!\w)", re.IGNORECASE | re.A)
_PAIR = re.compile(
    r"(?<![\w.\-])(?<!\d, )(?<!\d,)([+-]?\d{1,2}\.\d{4,10})(?: ?[,/;] ?"
    r"| )([+-]?1?\d{1,2}\.\d{4,10})(?!\w|\.\d|, ?[+-]?\d+\.\d)",
    re.A,
)
_ARC = (  # 37°33'58.9", 37.5665°
    r"\d{1,3}(?:\.\d+)?[ ]?°[ ]?(?:\d{1,2}(?:\.\d+)?[ ]?['’′][ ]?"
    r"(?:\d{1,2}(?:\.\d+)?[ ]?(?:\"|”|″|''|′′)[ ]?)?)?"
)
_DEGREES = re.compile(rf"(?<![\d.]){_ARC}(?:[NS]|북위|남위)?[ ,/]{{0,3}}(?:[EW] ?)?{_ARC}[EW]?")
_LETTERED = re.compile(
    r"(?<![\w.])(?:[NS] ?)?\d{1,2}\.\d{2,10} ?°?(?: ?[NS])?[ ,/]{1,3}"
    r"(?:[EW] ?)?1?\d{1,2}\.\d{2,10} ?°?(?: ?[EW])?(?!\w|\.\d)",
    re.A,
)
_LATITUDE = re.compile(
    r"(?:\blat(?:itude)?\b[^\d\n]{0,6}|위도[^\d\n]{0,6}|(?=북위|남위))((?:(?:북위"
    r"|남위)[ ]?)?[+-]?\d{1,2}\.\d{2,12}도?"
    r"(?:[^\d\n]{1,24}?(?:\blon(?:g(?:itude)?)?\b|경도|동경"
    r"|서경)[^\d\n]{0,6}[+-]?\d{1,3}\.\d{2,12}도?)?)",
    re.IGNORECASE,
)
_LONGITUDE = re.compile(
    r"(?:\blon(?:g(?:itude)?)?\b|경도|동경|서경)[^\d\n]{0,6}([+-]?\d{1,3}\.\d{2,12})", re.IGNORECASE
)


def find_ip_address(text: str) -> Iterator[Span]:
    """Find IPv4 and IPv6 addresses; no versions, and none that name the machine itself."""
    for match in _IPV4.finditer(text) if text.count(".") > 2 else ():
        if _NOBODY.match(match.group()):
            continue
        if not _VERSION.search(text, max(0, match.start() - 40), match.start()):
            yield match.span()
    if ":" in text:
        for match in _IPV6.finditer(text):
            address = (
                match.group().rstrip(":") if not match.group().endswith("::") else match.group()
            )
            groups = [group for group in address.split(":") if group]
            if len(groups) < 3 and not (len(groups) == 2 and len(address) >= 8):
                continue
            try:
                ipaddress.IPv6Address(address)
            except ValueError:
                continue
            yield match.start(), match.start() + len(address)


def find_mac_address(text: str) -> Iterator[Span]:
    """Find hardware addresses in the three usual forms."""
    for match in _MAC.finditer(text):
        if "." not in match.group() or re.search("[a-f]", match.group(), re.I):
            yield match.span()
    for match in _MAC_PLAIN.finditer(text) if "mac" in text.lower() else ():
        yield match.span(1)


def find_coordinates(text: str) -> Iterator[Span]:
    """Find places on the globe: pairs of decimals, degrees, latitudes and longitudes by name."""
    if "°" in text:
        for match in _DEGREES.finditer(text):
            if re.search("[NSEW]|북|남|동|서", text[max(0, match.start() - 4) : match.end() + 3]):
                yield match.span()
    if "." not in text:
        return
    for match in _PAIR.finditer(text):
        latitude, longitude = (float(value) for value in match.groups())
        if abs(latitude) <= 90 and abs(longitude) <= 180 and max(abs(latitude), abs(longitude)) > 1:
            yield match.span()
    for match in _LETTERED.finditer(text):
        if re.search("[NS]", match.group()) and re.search("[EW]", match.group()):
            yield match.span()
    if not has_any(text.lower(), ("lat", "lon", "위도", "경도", "북위", "남위", "동경", "서경")):
        return
    for match in _LATITUDE.finditer(text):
        yield match.span(1)
    for match in _LONGITUDE.finditer(text):
        yield match.span(1)


# --- Accounts -------------------------------------------------------------------------------------

_HANDLE = re.compile(
    r"(?<![\w.@/=+\-)\]%&'\"`])@([A-Za-z0-9_](?:[\w.]{1,28})[A-Za-z0-9_])(?![\w@/(\-]|\.\w)", re.A
)
_SITE = (
    r"(?:twitter|instagram|insta|facebook|telegram|tiktok|snapchat|discord|skype|wechat|line"
    r"|kakao(?:talk)?"
    r"|트위터|인스타(?:그램)?|페이스북|페북|텔레그램|틱톡|카카오톡|카톡|라인|디스코드|트위치"
    r"|유튜브|블로그|네이버)"
)
_IS = r"(?:(?: is| was)?[ ]?[:=][ ]?| (?:is|was) )[\"']?@?"
_NAMED = re.compile(
    rf"(?:(?:(?:{_SITE})[ ]?(?:id|handle|account|name|user(?:name)?)|\buser[ ]?name|\bscreen name"
    rf"|\bhandle|\blogin (?:id|name)){_IS}|(?:{_SITE}[ ]?)?(?:아이디|계정(?:명|[ ]?이름)?|닉네임)"
    r"(?:은|는|이|가)?[ ]?[:=]?[ ]?[\"']?@?)"
    r"((?=[\w.\-]*[a-z])[A-Za-z0-9_][\w.\-]{1,28}[A-Za-z0-9_](?:#\d{4})?)(?![\w@(\[])",
    re.IGNORECASE | re.A,
)
_NAMED_HINTS = ("name", "handle", "id", "login", "account", "아이디", "계정", "닉네임")
_PROFILE = re.compile(
    r"(?<![\w.\-])(?:(?:www|m|mobile)\.)?(?:(?:instagram|twitter|facebook|tiktok|threads|snapchat"
    r"|vk|x"
    r"|linkedin|youtube)\.com|threads\.net|t\.me|(?:pf|open)\.kakao\.com|blog\.naver\.com)"
    r"/(?:in/|add/|channel/|_)?@?([\w.\-]{2,40})(?![\w/]*\w/)",
    re.IGNORECASE | re.A,
)
_TAG = re.compile(r"(?<![\w#@])([A-Za-z][\w.]{2,30}#\d{4})(?!\d)", re.A)
_COMMON = frozenset(
    "dataclasses contextmanager cached_property functools contextlib typing asyncio click flask"
    " home work media property dataclass staticmethod classmethod override overload param params"
    " return"
    " returns import charset supports keyframes everyone here channel all types angular babel vue"
    " react"
    " pytest fixture app router abstractmethod deprecated test author since see throws link code"
    " inject"
    " component autowired entity gmail naver daum hanmail example lru_cache wraps cache setter"
    " getter"
    " school lunch noon night once least most first last end start top bottom the this that".split()
)
_NOT_NAMES = frozenset(
    "is was are must should may can cannot has for and the or not with field column required"
    " optional"
    " string null none true false empty name names in of on to at by from it that this password"
    " email"
    " example invalid unknown missing taken length validation".split()
)


def find_account_handle(text: str) -> Iterator[Span]:
    """Find @handles, names after user name, 아이디 and such, and addresses of profiles."""
    if "@" in text:
        for match in _HANDLE.finditer(text):
            if match.group(1).lower() not in _COMMON:
                yield match.span()
    lower = text.lower()
    for match in _NAMED.finditer(text) if has_any(lower, _NAMED_HINTS) else ():
        if match.group(1).lower() not in _NOT_NAMES and not match.group(1).isupper():
            yield match.span(1)
    if "/" in text and "." in text:
        for match in _PROFILE.finditer(text):
            if match.group(1).lower() not in (
                "p",
                "share",
                "home",
                "intent",
                "watch",
                "groups",
                "pages",
            ):
                yield match.span(1)
    if "#" in text:
        for match in _TAG.finditer(text):
            yield match.span(1)
