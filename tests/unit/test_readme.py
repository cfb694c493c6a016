"""The README, which is read where the site is not built."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
_LINK = re.compile(r"\]\((?![a-z]+:|#)([^)\s#]+)(?:#([^)\s]+))?\)")


def test_each_link_leads_to_a_file() -> None:
    """A link of the README leads to a file that is there, and one with an anchor to a heading of it."""
    links = _LINK.findall((ROOT / "README.md").read_text())
    assert len(links) > 5
    assert [path for path, _ in links if not (ROOT / path).exists()] == []
    for path, anchor in links:
        headings = re.findall(r"^#+ (.+)$", (ROOT / path).read_text(), re.MULTILINE) if anchor else []
        anchors = [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]
        assert not anchor or anchor in anchors, f"{path}#{anchor}"
