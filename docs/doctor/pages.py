"""The pages about the doctor's codes: `PYTHONPATH=collections python -m docs.doctor.pages` writes them beside this file."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.claw.fleet.plugins.module_utils._findings import CODES
from ansible_collections.claw.fleet.plugins.module_utils._findings_code import SEVERITIES, Code

PLACE = Path(__file__).resolve().parent
MADE = "<!-- Made by `python -m docs.doctor.pages` from the collection's module_utils/_findings.py. Do not edit. -->"
REMEDIES = {
    "start": "starts the unit",
    "enable": "enables the unit",
    "restart": "restarts the unit, which gives turns that are under way their time",
    "reload": "reloads the unit",
    "gateway": "runs the role gateway, which restarts the gateway where its config or unit was another, or it runs without its guard",
    "proxy": "runs the role proxy",
    "sandbox": "runs the role sandbox",
    "coaches": "runs the role coaches",
    "register": "tells the app of the gateway, as the role coaches does",
}
INDEX = """# What the doctor finds

{made}

`ansible-playbook -i inventory/ claw.fleet.fleet_doctor` looks at every gateway and its machine and names what is wrong by one of
these codes. [operations.md](../operations.md) says how it is run. Where *mended* says yes, `--tags fix` does it.

| code | severity | what | mended |
|---|---|---|---|
{rows}
"""
PAGE = """# {name}

{made}

{title}. ({severity})

{means}

- **How it is seen**: {seen}
- **What to do**: {fix}
- **`--tags fix`**: {mended}
{beside}"""


def pages() -> dict[str, str]:
    """The text of each page by its file's name."""
    found = {f"{name}.md": page(name, code) for name, code in CODES.items()}
    by_weight = sorted(CODES, key=lambda name: SEVERITIES.index(CODES[name].severity))
    rows = [
        f"| [{name}]({name}.md) | {code.severity} | {code.title} | {'yes' if code.remedies else ''} |"
        for name in by_weight
        for code in [CODES[name]]
    ]
    return {"index.md": INDEX.format(made=MADE, rows="\n".join(rows)), **found}


def page(name: str, code: Code) -> str:
    """The page about one code."""
    deeds = "; ".join(REMEDIES[remedy] for remedy in code.remedies)
    mended = f"{deeds}." if deeds else "leaves this to you."
    links = ", ".join(f"[{other}]({other}.md)" for other in code.explains)
    beside = (
        f"\nIt is the reason of what would otherwise be found too, and is left out beside it: {links}.\n"
        if links
        else ""
    )
    fix = code.fix.format(gateway="NAME", unit="UNIT")
    words = {
        "title": code.title,
        "severity": code.severity,
        "means": code.means,
        "seen": code.seen.format(gateway="NAME"),
    }
    return PAGE.format(name=name, made=MADE, fix=fix, mended=mended, beside=beside, **words)


def write(place: Path = PLACE) -> None:
    """Write all pages, and take away those of codes that there are no more."""
    wanted = pages()
    for former in place.glob("*.md"):
        if former.name not in wanted:
            former.unlink()
    for name, text in wanted.items():
        (place / name).write_text(text)


if __name__ == "__main__":
    write()
