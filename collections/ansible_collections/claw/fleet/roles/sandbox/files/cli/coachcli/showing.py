# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An answer as JSON, or as a table for people."""

from __future__ import annotations

import json
from typing import Any

import click
from tabulate import tabulate

FORMS = ("json", "table")


def show(found: Any, form: str) -> None:
    """Print it; nothing for nothing, and text as it is."""
    if found is None:
        return
    if isinstance(found, str):
        click.echo(found)
    elif form == "json":
        click.echo(json.dumps(found, ensure_ascii=False, indent=2))
    else:
        click.echo(_table(found))


def _table(found: Any) -> str:
    rows = found["results"] if isinstance(found, dict) and isinstance(found.get("results"), list) else found
    if isinstance(rows, dict):
        return _lines([[name, _cell(value)] for name, value in rows.items()])
    if not isinstance(rows, list):
        return _cell(rows)
    if not rows:
        return "(none)"
    if not all(isinstance(row, dict) for row in rows):
        return _lines([[_cell(row)] for row in rows])
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return _lines([[_cell(row.get(name)) for name in columns] for row in rows], columns)


def _lines(rows: list[list[str]], columns: list[str] | None = None) -> str:
    form = "simple" if columns else "plain"
    return str(tabulate(rows, columns or (), tablefmt=form, disable_numparse=True))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
