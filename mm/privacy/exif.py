"""Count by kind what EXIF blocks, TIFF directories and ICC profiles tell; never their values.

Ref: Exif 3.0; TIFF 6.0; DNG 1.7; ICC.1:2022.
"""

from collections import Counter

from mm.privacy import containers

_SUB_DIRECTORIES = (0x8769, 0x8825, 0xA005)  # Exif, GPS, interoperability
_MAX_DIRECTORIES = 16
_KINDS = {
    0x8825: "gps",
    0x927C: "maker_note",
    0x0201: "thumbnail",
    0x02BC: "xmp",
    0x8773: "icc",
    0x83BB: "iptc",
    0x8649: "iptc",
    0xCD41: "c2pa",
    # serial numbers and ids of body, lens, camera, picture, raw data
    **dict.fromkeys((0xA431, 0xA435, 0xC62F, 0xA420, 0xC65D, 0xA436, 0xA437), "serial_number"),
    # artist, copyright, owner, author, photographer, editor
    **dict.fromkeys((0x013B, 0x8298, 0xA430, 0x9C9D, 0xA437, 0xA438), "author"),
    # description, user comment, title, keywords, subject, document, page, host computer
    **dict.fromkeys((0x010E, 0x9286, 0x9C9B, 0x9C9C, 0x9C9E, 0x9C9F, 0x010D, 0x011D), "comment"),
    **dict.fromkeys((0x0132, 0x9003, 0x9004, 0x9010, 0x9011, 0x9012), "time"),
    **dict.fromkeys((0x010F, 0x0110, 0x0131, 0x013C, 0xA433, 0xA434), "device"),
}
# Tags from 0x8000 up that describe pixels and nobody.
_PLAIN = {0x80E3, 0x80E4, 0x80E5, 0x80E6, 0x8769, 0x8825, 0x828D, 0x828E, 0x8773, 0x8828}
_TEXT_TAGS = {b"desc", b"cprt", b"dmnd", b"dmdd", b"targ", b"vued", b"tech", b"meta"}


def count_exif(block: bytes, found: Counter[str]) -> None:
    """Count the kinds of an EXIF block: its directories, and what their tags are about."""
    found["exif"] += 1
    try:
        for number, tags in enumerate(containers.tiff_ifds(block)):
            found["thumbnail"] += number > 0
            _count_tags(block, tags, found, skip={"thumbnail"} if number else set())
            if number > _MAX_DIRECTORIES:
                break
    except (EOFError, ValueError):
        found["broken_structure"] += 1


def count_tiff(data: bytes, found: Counter[str]) -> None:
    """Count the kinds of a TIFF file, in every page."""
    for number, tags in enumerate(containers.tiff_ifds(data)):
        found["extra_frame"] += number > 0
        if 0x014A in tags:  # SubIFDs: smaller or raw versions
            found["extra_frame"] += tags[0x014A][1]
        found["exif"] += 0x8769 in tags
        found["vendor"] += sum(t >= 0x8000 and t not in _KINDS and t not in _PLAIN for t in tags)
        _count_tags(data, tags, found, skip={"thumbnail"})
        if 0x8773 in tags:
            _, length, at = tags[0x8773]
            at = containers.tiff_pointer(data, (4, 1, at))
            count_icc(data[at : at + length], found, counted=True)


def _count_tags(
    block: bytes, tags: containers.Ifd, found: Counter[str], skip: set[str], depth: int = 0
) -> None:
    for tag, field in tags.items():
        kind = _KINDS.get(tag)
        if kind and kind not in skip:
            found[kind] += 1
        if tag in _SUB_DIRECTORIES and depth < 2:
            try:
                inner = next(containers.tiff_ifds(block, containers.tiff_pointer(block, field)), {})
                _count_tags(block, inner, found, skip, depth + 1)
            except (EOFError, ValueError):
                found["broken_structure"] += 1


def count_icc(profile: bytes, found: Counter[str], *, counted: bool = False) -> None:
    """Count a profile, and whether it holds texts (maker, copyright, names of devices)."""
    found["icc"] += not counted
    num = min(int.from_bytes(profile[128:132], "big"), 100)
    names = {profile[132 + 12 * k : 136 + 12 * k] for k in range(num)}
    found["icc_text"] += bool(names & _TEXT_TAGS)
