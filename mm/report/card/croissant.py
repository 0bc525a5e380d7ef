"""A scrubbed set's metadata in Croissant 1.0, from its ledger.

The shards are tar files beside `croissant.json`: `samples` are their JSON members, one a record,
and `pictures` their image members, joined by the sample's number. mlcroissant keeps what it unpacks
under the shards' names, 000000.tar and so on: give each set a CROISSANT_CACHE of its own.

Ref: docs.mlcommons.org/croissant/docs/croissant-spec-1.0.html, with its vocabulary for responsible
AI (RAI 1.0).
"""

from __future__ import annotations

import json
from typing import Any

from mm.data.shard_format import EXTENSIONS
from mm.report.card.data_facts import UNSTATED, DataFacts

# The specification's own context, which every file repeats.
CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
NUMBER = r"^(?:.*/)?(\d+)\."  # of a sample, at the start of each member's name
RECORD = "JSON: turns (pairs of role and words), tags, source_id, images, audit."
MIME = {"png": "image/png", "jpg": "image/jpeg", "webp": "image/webp"}


def croissant_json(facts: DataFacts, licence: str = "") -> str:
    """The metadata as text.

    Args:
        licence: where the samples don't say theirs; else all that they say.
    """
    stated = [name for name in facts.licences if name != UNSTATED]
    if licence:
        stated = [licence, *(name for name in stated if name != licence)]
    counts = facts.ledger["counts"]
    found: dict[str, Any] = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": [
            "http://mlcommons.org/croissant/1.0",
            "http://mlcommons.org/croissant/RAI/1.0",
        ],
        "name": facts.name,
        "description": (
            f"{counts['samples']:,} conversations about {counts['images']:,} pictures, scrubbed by"
            f" mm {facts.ledger['tools'].get('mm', '')} under policy"
            f" {facts.ledger['policy']['name']!r}."
        ),
        "version": f"1.0.0+{facts.digest[:12]}",
        "license": stated[0] if len(stated) == 1 else stated,
        "rai:personalSensitiveInformation": _personal(facts),
        "rai:dataPreprocessingProtocol": [
            f"mm policy {facts.ledger['policy_hash']}, ledger {facts.digest}"
        ],
        "distribution": _files(facts),
        "recordSet": [
            _record_set("samples", "records", "record", "sc:Text", RECORD),
            _record_set(
                "pictures", "images", "image", "sc:ImageObject", "Pixels and nothing else."
            ),
        ],
    }
    if not stated:
        del found["license"]
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


def _files(facts: DataFacts) -> list[dict[str, Any]]:
    tars: list[dict[str, Any]] = [
        {
            "@type": "cr:FileObject",
            "@id": shard["file"],
            "name": shard["file"],
            "contentUrl": shard["file"],
            "contentSize": f"{shard['bytes']} B",
            "encodingFormat": "application/x-tar",
            "sha256": shard["sha256"],
        }
        for shard in facts.ledger["shards"]
    ]
    inside = [{"@id": tar["@id"]} for tar in tars]
    encoding = EXTENSIONS[facts.ledger["policy"]["encoding"]]
    sets = [("records", "application/json", "*.json"), ("images", MIME[encoding], f"*.{encoding}")]
    return tars + [
        {
            "@type": "cr:FileSet",
            "@id": name,
            "name": name,
            "containedIn": inside,
            "encodingFormat": kind,
            "includes": pattern,
        }
        for name, kind, pattern in sets
    ]


def _record_set(name: str, files: str, field: str, kind: str, says: str) -> dict[str, Any]:
    """A record for each member of a kind: the number of its sample, and its content."""
    entries = (
        ("sample", "sc:Text", "The sample's number.", {"fileProperty": "fullpath"}),
        (field, kind, says, {"fileProperty": "content"}),
    )
    fields: list[dict[str, Any]] = [
        {
            "@type": "cr:Field",
            "@id": f"{name}/{entry}",
            "name": entry,
            "description": words,
            "dataType": data_type,
            "source": {"fileSet": {"@id": files}, "extract": extract},
        }
        for entry, data_type, words, extract in entries
    ]
    fields[0]["source"]["transform"] = {"regex": NUMBER}
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "description": f"One of the {files} a record.",
        "field": fields,
    }


def _personal(facts: DataFacts) -> list[str]:
    counts = facts.ledger["counts"]
    removed = [
        f"{kind} ({place}): {number} taken out"
        for place in ("metadata", "text", "visible")
        for kind, number in sorted(counts.get(place, {}).items())
    ]
    kept = f"not looked for: {', '.join(facts.kept)}" if facts.kept else "all kinds were looked for"
    return [*removed, kept]
