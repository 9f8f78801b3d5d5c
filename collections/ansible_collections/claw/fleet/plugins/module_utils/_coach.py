# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The row of a coach: what it may hold, and what it asks of the fleet.

PRIVATE to claw.fleet: may change at any time.

Rows come from somebody's database, so anything can be in them. A value that passes here is data and harmless
wherever the fleet puts it: ids are safe as file names and in URLs, names are one line of text that can be
encoded, ``vars`` is a small tree of JSON. A row that does not pass gets
``error = {"step": "row", "reason": sentence}``, with its bad values replaced, and nobody else's row is
touched by it. Only a list that makes no sense as a list raises.

Pure: no files, no network, the standard library alone; used on the controller and on machines.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Iterable
from operator import itemgetter
from typing import Any

from ansible_collections.claw.fleet.plugins.module_utils import _columns

Row = dict[str, Any]
"""One coach as a dictionary of FIELDS, and what the steps add: "proposed_gateway", "actions", "error"."""

WANTED = ("running", "paused", "removed")
STATUSES = ("pending", "provisioning", "activating", "active", "paused", "removed", "error")

_SETTLED = {"running": "active", "paused": "paused", "removed": "removed"}
_AGENT_ID = re.compile(r"[a-z0-9_][a-z0-9_-]{0,63}")
_GATEWAY = re.compile(r"[a-z][a-z0-9-]{0,26}")
_PK_TEXT = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
# Cc: control characters. Zl, Zp: line and paragraph separators, which some programs treat as newlines.
# Cs: halves of surrogate pairs, which JSON can carry and UTF-8 cannot.
_NOT_IN_A_LINE = frozenset({"Cc", "Cs", "Zl", "Zp"})
_RESERVED_AGENT_ID = "main"
# The coach list is asked for ?gateway=none to get the coaches that nobody has claimed.
_RESERVED_GATEWAY = "none"
_MAX_NAME = 200
_MAX_INT = 2**63 - 1
_MAX_VARS_DEPTH = 16
_MAX_VARS_CHARACTERS = 65536
_SHOWN = 60
# Rows that are looked at together, before each of them by itself where one of them is not plain.
_AT_ONCE = 500


class CoachListError(Exception):
    """The list itself makes no sense, so nothing may be done with any of it; str() is a plain sentence."""


def shown(value: object) -> str:
    """A value as it may appear in a message: on one line, escaped, at most some 60 characters of it."""
    if isinstance(value, str):
        return repr(str(value[:_SHOWN])) + (f"... ({len(value)} characters)" if len(value) > _SHOWN else "")
    if value is None or isinstance(value, (bool, float)):
        return repr(value)
    if isinstance(value, int):
        return f"a number of {value.bit_length()} bits" if value.bit_length() > 64 else str(value)
    return f"a value of type {type(value).__name__}"


def error(step: str, reason: str) -> dict[str, str]:
    """What goes into a row's "error": the step that failed and a sentence that says what to do."""
    return {"step": step, "reason": reason}


def settled_status(wanted: str) -> str:
    """The status of a coach with whom everything that is wanted has been done."""
    return _SETTLED[wanted]


def gateway_name(value: object) -> str:
    """The name of a gateway, which also is that of a Unix user; ValueError says what is wrong with it."""
    if not isinstance(value, str) or not _GATEWAY.fullmatch(value):
        raise ValueError(
            f"is {shown(value)}; a gateway's name is a letter a-z, then up to 26 of a-z, 0-9 and -"
        )
    if value == _RESERVED_GATEWAY:
        raise ValueError(f"is {shown(value)}, by which Django means no gateway at all; choose another one")
    return value


def is_due(row: Row) -> bool:
    """Whether a checked row asks for anything: a new generation, an unfinished status, another key."""
    if row["generation"] != row["observed_generation"] or row["status"] != settled_status(row["wanted"]):
        return True
    return bool(row["wanted"] != "removed" and row["key_generation"] != row["key_wanted_generation"])


def needs_activation(row: Row) -> bool:
    """Whether a coach's agent has yet to answer its first turn before she can be called active."""
    return row["wanted"] == "running" and row["status"] not in ("active", "paused") and not has_error(row)


def has_error(row: Row) -> bool:
    """Whether an earlier step gave up on this row, so that later steps carry it past."""
    return bool(row.get("error"))


def check_rows(rows: object) -> list[Row]:
    """Return ``rows`` with every field present and of its type; bad rows carry "error" and harmless values.

    Other keys than FIELDS are kept as they are, and so is the "error" of a row that already has one. Raises
    CoachListError when ``rows`` is no list of dictionaries, when a row has neither a usable pk nor an
    agent_id to name it by, or when a pk appears twice: then it cannot be known whose row is whose.
    """
    if not isinstance(rows, list):
        raise CoachListError(f"The list of coaches must be a list of rows, not {shown(rows)}.")
    checked: list[Row] = []
    for at in range(0, len(rows), _AT_ONCE):
        some = rows[at : at + _AT_ONCE]
        if _are_plain(some):
            checked += map(dict, some)
        else:
            checked += [_check_row(row, number) for number, row in enumerate(some, start=at + 1)]
    _refuse_equal_pks(checked)
    _mark_equal_ids(checked)
    return checked


def _are_plain(rows: list[Any]) -> bool:
    """Whether each of these rows is as a check of it would leave it. Of some that are, it may say that they are not."""
    if set(map(type, rows)) != {dict}:
        return False
    try:
        columns = zip(*map(_VALUES, rows), strict=True)
        return all(look(column) for look, column in zip(_LOOKS.values(), columns, strict=True))
    except KeyError:
        return False


def _check_row(row: object, number: int) -> Row:
    if not isinstance(row, dict):
        raise CoachListError(f"Row {number} of the list of coaches must be a dictionary, not {shown(row)}.")
    problems: list[str] = []
    result: Row = dict(row)
    for field, check in _CHECKS.items():
        try:
            result[field] = check(row.get(field))
        except ValueError as exc:
            problems.append(f"{field} {exc}")
            result[field] = _stand_in(field, row.get(field))
    if result["pk"] is None and not result["agent_id"]:
        raise CoachListError(
            f"Row {number} of the list of coaches has neither a usable pk (it is {shown(row.get('pk'))}) "
            f"nor an agent_id (it is {shown(row.get('agent_id'))}), so nobody can say whose it is. Check "
            "that the list comes from the coach list's own path, and the map of field names."
        )
    if problems and not has_error(row):
        result["error"] = error("row", "; ".join(problems) + ". Correct this coach in Django.")
    return result


def _refuse_equal_pks(rows: list[Row]) -> None:
    seen: set[int | str] = set()
    for row in rows:
        if row["pk"] is not None and row["pk"] in seen:
            raise CoachListError(
                f"pk {shown(row['pk'])} appears twice in the list of coaches, so it was not read whole. "
                "Check the order and the paging of the list in Django."
            )
        seen.add(row["pk"])


def _mark_equal_ids(rows: list[Row]) -> None:
    ids = [row["agent_id"] for row in rows if row["agent_id"]]
    if len(set(ids)) == len(ids):
        return
    holders: dict[str, list[Row]] = {}
    for row in rows:
        if row["agent_id"]:
            holders.setdefault(row["agent_id"], []).append(row)
    for agent_id, same in holders.items():
        if len(same) < 2:
            continue
        for row in same:
            others = ", ".join(shown(other["pk"]) for other in same if other is not row)
            if not has_error(row):
                row["error"] = error(
                    "row",
                    f"agent_id {shown(agent_id)} is also that of the coach with pk {others}. "
                    "An id belongs to one coach: give the others another one in Django.",
                )


def _pk(value: object) -> int | str:
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _MAX_INT:
        return value
    if isinstance(value, str) and _PK_TEXT.fullmatch(value):
        return value
    raise ValueError(f"is {shown(value)}; it must be the row's primary key, a number above 0 or a UUID")


def check_agent_id(value: object) -> str:
    """The id, if a gateway can have an agent of that id beside its own.

    Raises ValueError, whose str() is the rest of a sentence that begins with the field's name.
    """
    if not isinstance(value, str) or not _AGENT_ID.fullmatch(value):
        raise ValueError(
            f"is {shown(value)}; it must be 1 to 64 of the characters a-z, 0-9, _ and -, and not begin with -"
        )
    if value == _RESERVED_AGENT_ID:
        raise ValueError(f"is {shown(value)}, which the gateway keeps for itself; choose another one")
    return value


def _name(value: object) -> str:
    if not isinstance(value, str) or not value.strip() or len(value) > _MAX_NAME:
        raise ValueError(f"is {shown(value)}; it must be text of 1 to {_MAX_NAME} characters")
    if not value.isprintable() and not _NOT_IN_A_LINE.isdisjoint(map(unicodedata.category, value)):
        raise ValueError(f"is {shown(value)}; it must be one line without control characters")
    return value


def _one_of(choices: Iterable[str]) -> Callable[[object], str]:
    allowed = frozenset(choices)
    listed = ", ".join(choices)

    def check(value: object) -> str:
        if isinstance(value, str) and value in allowed:
            return value
        raise ValueError(f"is {shown(value)}; it must be one of {listed}")

    return check


def _count(default: int | None) -> Callable[[object], int]:
    def check(value: object) -> int:
        if value is None and default is not None:
            return default
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_INT:
            return value
        raise ValueError(f"is {shown(value)}; it must be a whole number, 0 or more")

    return check


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, str) and _encodable(value):
        return value
    raise ValueError(f"is {shown(value)}; it must be text")


def _sha256(value: object) -> str:
    if value in (None, ""):
        return ""
    if isinstance(value, str) and _SHA256.fullmatch(value):
        return value
    raise ValueError(f"is {shown(value)}; it must be empty or 64 hexadecimal digits in lower case")


def _holder(value: object) -> str | None:
    return None if value in (None, "") else gateway_name(value)


def _vars(value: object) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError(f"is {shown(value)}; it must be an object of names and values")
    if value and _weigh(value, _MAX_VARS_DEPTH) > _MAX_VARS_CHARACTERS:
        raise ValueError(f"holds more than {_MAX_VARS_CHARACTERS} characters; keep documents elsewhere")
    return value


def _weigh(value: object, depth: int) -> int:
    """The rough size of a JSON tree in characters; ValueError where it is not a harmless one.

    Every row of a list passes here, and this is most of what it costs: hence plain loops.
    """
    if isinstance(value, str):
        if not value.isascii() and not _encodable(value):
            raise ValueError(f"holds {shown(value)}, which is half a character that cannot be stored")
        return len(value) + 2
    if value is None or isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return 8
    if depth == 0:
        raise ValueError(f"is nested more than {_MAX_VARS_DEPTH} deep; make it flatter")
    total = 2
    if isinstance(value, list):
        for item in value:
            total += _weigh(item, depth - 1)
        return total
    if isinstance(value, dict):
        for key, item in value.items():
            # Ansible reads keys of this form as instructions when it passes values on.
            if not isinstance(key, str) or key.startswith("__ansible"):
                raise ValueError(f"has a key {shown(key)}; it must be text and not begin with __ansible")
            total += len(key) + 2 if key.isascii() else _weigh(key, 0)
            total += _weigh(item, depth - 1)
        return total
    raise ValueError(f"holds {shown(value)}; it may hold text, numbers, true, false, null, lists and objects")


def _encodable(value: str) -> bool:
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _stand_in(field: str, value: object) -> Any:
    """What a row in error holds instead of a bad value, so that nothing which shows or stores it chokes."""
    if field == "agent_id" and isinstance(value, str):
        return repr(str(value[:64]))[1:-1]
    return _STAND_INS.get(field)


_CHECKS: dict[str, Callable[[object], Any]] = {
    "pk": _pk,
    "agent_id": check_agent_id,
    "name": _name,
    "vars": _vars,
    "wanted": _one_of(WANTED),
    "generation": _count(None),
    "status": _one_of(STATUSES),
    "observed_generation": _count(0),
    "reason": _text,
    "gateway": _holder,
    "key_id": _text,
    "key_sha256": _sha256,
    "key_generation": _count(0),
    "key_wanted_generation": _count(1),
}
FIELDS = tuple(_CHECKS)
"""The fields of a row, in the order in which people read them."""
_VALUES = itemgetter(*FIELDS)

_COUNTS = _columns.whole_numbers(0, _MAX_INT)
# The same, for all rows at once.
_LOOKS: dict[str, _columns.Look] = {
    "pk": _columns.whole_numbers(1, _MAX_INT),
    "agent_id": _columns.matching(_AGENT_ID, _RESERVED_AGENT_ID),
    "name": _columns.lines(_MAX_NAME),
    "vars": _columns.each(_vars),
    "wanted": _columns.few(_CHECKS["wanted"]),
    "generation": _COUNTS,
    "status": _columns.few(_CHECKS["status"]),
    "observed_generation": _COUNTS,
    "reason": _columns.few(_text),
    "gateway": _columns.few(_holder),
    "key_id": _columns.texts,
    "key_sha256": _columns.matching(re.compile(f"(?:{_SHA256.pattern})?")),
    "key_generation": _COUNTS,
    "key_wanted_generation": _COUNTS,
}

_STAND_INS: dict[str, Any] = {
    "agent_id": "",
    "name": "",
    "vars": {},
    "wanted": "running",
    "generation": 0,
    "status": "pending",
    "observed_generation": 0,
    "reason": "",
    "key_id": "",
    "key_sha256": "",
    "key_generation": 0,
    "key_wanted_generation": 1,
}
