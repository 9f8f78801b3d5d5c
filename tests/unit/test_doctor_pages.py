"""The doctor's codes and the pages about them are one thing."""

from __future__ import annotations

import re
from pathlib import Path

from ansible_collections.claw.fleet.plugins.module_utils._findings import CODES
from ansible_collections.claw.fleet.plugins.module_utils._findings_code import SEVERITIES

from docs.doctor import pages

ROOT = Path(__file__).resolve().parents[2]
UTILS = ROOT / "collections/ansible_collections/claw/fleet/plugins"


def test_the_pages_are_what_the_table_makes() -> None:
    committed = {path.name: path.read_text() for path in pages.PLACE.glob("*.md")}
    assert committed == pages.pages(), "run PYTHONPATH=collections python -m docs.doctor.pages"


def test_each_code_is_whole() -> None:
    for name, code in CODES.items():
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name)
        assert code.severity in SEVERITIES
        assert all((code.title, code.means, code.seen, code.fix)), name
        assert set(code.explains) <= set(CODES) - {name}, name
        assert set(code.remedies) <= set(pages.REMEDIES), name


def test_no_two_codes_explain_each_other() -> None:
    for name, code in CODES.items():
        for other in code.explains:
            assert name not in CODES[other].explains, (name, other)


def test_each_code_is_found_by_some_check() -> None:
    sources = [*(UTILS / "module_utils").glob("_doctor*.py"), UTILS / "action" / "fleet_doctor.py"]
    text = "".join(path.read_text() for path in sources)
    assert [name for name in CODES if f'"{name}"' not in text] == []
