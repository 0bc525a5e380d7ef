"""WebDataset tar files: members that share a name up to the first dot are one sample.

Pictures are told by their last suffix; `KEY.json` may hold `turns` and `tags` (as our own shards
do) or `caption`; `KEY.txt` holds a caption. Other members are left out.
"""

import json
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from mm.data.sample import Record, Sample, make_source_id
from mm.data.sources import files
from mm.errors import UsageError
from mm.privacy.door import Limits

_MAX_MEMBER_BYTES = Limits.max_bytes + 1  # one byte more, so that the door refuses it
_MAX_SAMPLE_BYTES = 4 * _MAX_MEMBER_BYTES
_HASH = re.compile(r"[0-9a-f]{64}")


class Source(files.Reader):
    """Read tar files member by member; only one sample is in memory.

    Args:
        path: a tar file (also compressed), or a folder of them.
        prompt: what the user asks in front of a caption.
    """

    def __init__(self, path: str, prompt: str = "Describe this picture.") -> None:
        place = Path(path)
        if place.is_dir():
            self.paths = sorted(file for file in place.iterdir() if ".tar" in file.suffixes)
            self.paths += sorted(place.glob("*.tgz"))
        else:
            self.paths = [files.need_file(path, "webdataset", "a tar file or a folder of them")]
        if not self.paths:
            raise UsageError(f"source.path={path} holds no tar file; source=webdataset reads those")
        self.prompt = prompt

    def records(self) -> Iterator[Record]:
        index = 0
        for path in self.paths:
            for key, members in self._groups(path):
                yield self._sample(path.name, key, members, index)
                index += 1

    def count(self) -> int | None:
        """Take the number from the ledger of our own shards; other tars are not read twice."""
        try:
            ledger = json.loads((self.paths[0].parent / "ledger.json").read_text(encoding="utf-8"))
            listed = {shard["file"] for shard in ledger["shards"]}
            if {path.name for path in self.paths} == listed:
                return int(ledger["counts"]["samples"])
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return None

    def _groups(self, path: Path) -> Iterator[tuple[str, dict[str, bytes] | None]]:
        """Yield (key, members by the rest of their name); members are None in a damaged tar."""
        key, members = "", dict[str, bytes]()
        try:
            with tarfile.open(path, "r|*") as tar:
                for info in tar:
                    name = PurePosixPath(info.name)
                    stem, _, rest = name.name.partition(".")
                    if not info.isfile() or not stem or not rest:
                        continue
                    at = f"{name.parent}/{stem}"
                    if at != key and members:
                        yield key, members
                        members = {}
                    key = at
                    file = tar.extractfile(info)
                    room = _MAX_SAMPLE_BYTES - sum(map(len, members.values()))
                    members[rest.lower()] = (
                        file.read(min(_MAX_MEMBER_BYTES, room)) if file and room > 0 else b""
                    )
        except (tarfile.TarError, OSError, EOFError, ValueError):
            yield key, None  # what was read of this sample may be incomplete
            return
        if members:
            yield key, members

    def _sample(self, tar: str, key: str, members: dict[str, bytes] | None, index: int) -> Sample:
        if members is None:
            return files.broken("truncated", tar, key, index)
        tags: dict[str, str] = {}
        try:
            record = json.loads(members.get("json", b"{}").decode("utf-8-sig"))
            if "turns" in record:
                turns = files.text_pairs(record["turns"])
                tags = files.text_tags(record.get("tags", {}))
            else:
                captions = [record["caption"]] if "caption" in record else []
                captions += [members["txt"].decode("utf-8-sig")] if "txt" in members else []
                turns = files.caption_turns(self.prompt, captions)
        except (ValueError, TypeError, AttributeError, RecursionError):
            return files.broken("bad-record", tar, key, index)
        pictures = [
            data
            for name, data in sorted(members.items(), key=lambda item: _order(item[0]))
            if "." + name.rpartition(".")[2] in files.PICTURE_SUFFIXES
        ]
        identity = record.get("source_id")
        if not isinstance(identity, str):
            identity = make_source_id(tar, key, index)
        origins = record.get("origins")  # our own shards say what raw files they were made of
        if not (
            isinstance(origins, list)
            and len(origins) == len(pictures)
            and all(isinstance(item, str) and _HASH.fullmatch(item) for item in origins)
        ):
            origins = []
        return Sample(pictures, turns, tags, identity, origins=origins)


def _order(name: str) -> tuple[int, str]:
    number = name.partition(".")[0]
    return (int(number) if number.isdecimal() else 0), name
