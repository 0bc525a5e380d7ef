"""docs/explain.md says what there is."""

import re
from pathlib import Path

from mm.explain.methods import DEFAULT_METHOD, METHODS

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_lists_every_method_and_its_links_lead_somewhere() -> None:
    text = (ROOT / "docs/explain.md").read_text("utf-8")
    rows = re.findall(r"^\| `(\w+)`( \(default\))?.*\|$", text, re.MULTILINE)
    listed = [name for name, _ in rows[: len(METHODS)]]
    assert listed == list(METHODS)
    assert [name for name, default in rows if default] == [DEFAULT_METHOD]
    links = re.findall(r"\]\(([^)#:]+)\)", text)
    assert links
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []
