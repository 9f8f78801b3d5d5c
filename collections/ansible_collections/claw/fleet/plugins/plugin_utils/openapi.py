# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An app's OpenAPI document, and the command line that its operations make: groups are tags, verbs operation ids.

PRIVATE to claw.fleet: may change at any time.

Only what a command line needs is looked at here; whether requests can be made of the rest is for the generator of the
client to say. What is not JSON is left out, so that there is one way to send a body.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.claw.fleet.plugins.plugin_utils.openapi_source import DocumentError, parse

_METHODS = ("get", "put", "post", "delete", "patch")
_TYPES = ("string", "integer", "number", "boolean", "array", "object")
_JSON = "application/json"
_DEEP = 32
_PAGED = ("next", "results")


@dataclass(frozen=True)
class Option:
    """What a verb can be given: a parameter of the path or query, or a field of the body."""

    name: str
    type: str
    items: str = ""
    """The type of each, where it is a list."""
    format: str = ""
    required: bool = False
    help: str = ""
    choices: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Verb:
    """One operation. ``body``: the fields that are known of its JSON object; None: it takes no body."""

    group: str
    name: str
    operation_id: str
    tag: str
    method: str
    path: str
    help: str
    more: str
    arguments: tuple[Option, ...]
    options: tuple[Option, ...]
    body: tuple[Option, ...] | None
    body_required: bool
    paged: bool


@dataclass(frozen=True)
class Document:
    """A document that was judged. ``source``: as generators are to be given it."""

    title: str
    prefix: str
    """What all paths begin with, "/" at both ends."""
    groups: Mapping[str, str]
    """What each group is about."""
    verbs: tuple[Verb, ...]
    source: Mapping[str, Any] = field(repr=False)


def judge(data: bytes, leave_out: Iterable[str] = ()) -> Document:
    """The document, without the tags and operation ids that are to be left out.

    Raises:
        DocumentError: no command line can be made of it.
    """
    try:
        return _judged(parse(data), frozenset(leave_out))
    except (AttributeError, TypeError, ValueError) as error:
        # Something is an object, a list or a text where OpenAPI has something else.
        raise DocumentError(
            f"it is no valid OpenAPI document ({error}); have it checked by a validator"
        ) from error


def _judged(source: dict[str, Any], left_out: frozenset[str]) -> Document:
    version = str(source.get("openapi") or source.get("swagger") or "")
    if not re.match(r"3\.[01](\.|$)", version):
        raise DocumentError(
            f"it is of OpenAPI version {version[:20] or 'unknown'}; 3.0 and 3.1 can be used. "
            "Check that the URL is the document's, and what the app's generator is set to."
        )
    source = _without(source, left_out)
    verbs = tuple(_Reader(source).verbs())
    if not verbs:
        raise DocumentError("it has no operation (paths is empty), so there is nothing to command")
    _refuse_collisions(verbs)
    told = {_slug(str(tag.get("name"))): _line(tag.get("description")) for tag in _list(source, "tags")}
    groups = {verb.group: told.get(verb.group, "") for verb in verbs}
    title = _line(_object(source, "info").get("title")) or "An API"
    return Document(title, _prefix([verb.path for verb in verbs]), groups, verbs, source)


def _without(source: dict[str, Any], left_out: frozenset[str]) -> dict[str, Any]:
    """The document with JSON bodies alone, and without what is to be left out."""
    paths: dict[str, Any] = {}
    for path in _object(source, "paths"):
        kept = dict(_resolved(source, source["paths"][path], path))
        for method in _METHODS:
            if kept.get(method) is None:
                kept.pop(method, None)
                continue
            here = f"{method.upper()} {path}"
            operation = _object(kept, method, here)
            if left_out & {*_tags(operation), str(operation.get("operationId"))}:
                del kept[method]
            elif operation.get("requestBody") is not None:
                kept[method] = {
                    **operation,
                    "requestBody": _json_alone(source, operation["requestBody"], here),
                }
        if any(method in kept for method in _METHODS):
            paths[path] = kept
    return {**source, "paths": paths}


def _json_alone(source: Mapping[str, Any], body: Any, here: str) -> dict[str, Any]:
    found = _resolved(source, body, here)
    content = _object(found, "content", f"{here}: content of the body")
    if _JSON not in content:
        raise DocumentError(
            f"{here} takes a body, but none of {_JSON}: {', '.join(content) or 'nothing is said'}"
        )
    return {**found, "content": {_JSON: content[_JSON]}}


class _Reader:
    """Makes verbs of a document's operations."""

    def __init__(self, source: Mapping[str, Any]) -> None:
        self.source = source

    def verbs(self) -> Iterator[Verb]:
        """All, in the order of the document."""
        for path, item in self.source["paths"].items():
            for method in _METHODS:
                if method in item:
                    yield self._verb(str(path), method, item[method], _list(item, "parameters", path))

    def _verb(self, path: str, method: str, operation: Mapping[str, Any], shared: list[Any]) -> Verb:
        here = f"{method.upper()} {path}"
        operation_id = str(operation.get("operationId") or "")
        if not operation_id:
            raise DocumentError(f"{here} has no operationId; give it one, it becomes the verb")
        tag = _tags(operation)[0]
        group, whole = _slug(tag), _slug(operation_id)
        name = whole.removeprefix(f"{group}-") or whole
        if not group or not name:
            raise DocumentError(
                f"{here}: of tag {tag!r} and operationId {operation_id!r} no command can be named; "
                "letters and digits are needed in both"
            )
        given: dict[tuple[str, str], tuple[str, Option]] = {}
        for parameter in (*shared, *_list(operation, "parameters", here)):
            found = _resolved(self.source, parameter, here)
            where = str(found.get("in"))
            if where in ("path", "query"):
                option = self._option(
                    str(found.get("name")),
                    found.get("schema") or {},
                    required=where == "path" or bool(found.get("required")),
                    told=found.get("description"),
                    here=here,
                )
                if where == "query" and option.type == "object":
                    raise DocumentError(
                        f"{here}: the query parameter {option.name!r} is an object, which no command can give; "
                        f"leave {operation_id!r} out"
                    )
                given[where, option.name] = (where, option)
            elif found.get("required"):
                raise DocumentError(
                    f"{here} needs the {where} parameter {found.get('name')!r}, which no command can give"
                )
        body, needed = self._body(operation, here)
        return Verb(
            group=group,
            name=name,
            operation_id=operation_id,
            tag=tag,
            method=method,
            path=path,
            help=_line(operation.get("summary")) or _line(operation.get("description")),
            more=_line(operation.get("description")) if operation.get("summary") else "",
            arguments=tuple(option for where, option in given.values() if where == "path"),
            options=tuple(option for where, option in given.values() if where == "query"),
            body=body,
            body_required=needed,
            paged=self._paged(operation, here),
        )

    def _option(self, name: str, schema: Any, *, required: bool, told: Any = None, here: str) -> Option:
        found = self._schema(schema, here)
        kind = _kind(found)
        each = self._schema(found.get("items") or {}, here) if kind == "array" else found
        choices = [value for value in _list(found, "enum", here) if value not in (None, "")]
        help_ = _line(told if told is not None else found.get("description"))
        return Option(
            name=name,
            type=kind,
            items=_kind(each) if kind == "array" else "",
            format=str(each.get("format") or ""),
            required=required,
            # Of a choice drf-spectacular says once more what can be chosen.
            help="" if choices and help_.startswith("* `") else help_,
            choices=tuple(choices),
        )

    def _schema(self, schema: Any, here: str, depth: int = 0) -> dict[str, Any]:
        """The schema with what it refers to: all of `allOf`, and of alternatives the first that is not null."""
        if depth > _DEEP:
            raise DocumentError(f"{here}: a schema goes in circles")
        found = dict(_resolved(self.source, schema, here))
        parts = [*_list(found, "allOf", here)]
        for word in ("oneOf", "anyOf"):
            parts += [part for part in _list(found, word, here) if not _is_null(part)][:1]
        for word in ("allOf", "oneOf", "anyOf"):
            found.pop(word, None)
        for part in parts:
            more = self._schema(part, here, depth + 1)
            properties = {**_object(more, "properties", here), **_object(found, "properties", here)}
            required = [*_list(found, "required", here), *_list(more, "required", here)]
            found = {**more, **found, "properties": properties, "required": required}
        return found

    def _body(self, operation: Mapping[str, Any], here: str) -> tuple[tuple[Option, ...] | None, bool]:
        if "requestBody" not in operation:
            return None, False
        body = operation["requestBody"]
        schema = self._schema(_object(body["content"], _JSON, here).get("schema") or {}, here)
        if _kind(schema) not in ("object", "any"):
            raise DocumentError(
                f"{here} takes a body that is no JSON object but of type {_kind(schema)}; wrap it in one, or leave "
                f"{operation['operationId']!r} out"
            )
        wanted = set(_list(schema, "required", here))
        fields = tuple(
            self._option(str(name), of, required=name in wanted, here=here)
            for name, of in _object(schema, "properties", here).items()
            if not (isinstance(of, Mapping) and of.get("readOnly"))
        )
        return fields, bool(body.get("required"))

    def _paged(self, operation: Mapping[str, Any], here: str) -> bool:
        for status, answer in _object(operation, "responses", here).items():
            if str(status).startswith("2"):
                found = _object(_resolved(self.source, answer, here), "content", here)
                schema = _object(found, _JSON, here).get("schema")
                if schema and set(_PAGED) <= set(_object(self._schema(schema, here), "properties", here)):
                    return True
        return False


def _resolved(source: Mapping[str, Any], found: Any, here: str) -> Mapping[str, Any]:
    """What a reference refers to, in the end."""
    for _depth in range(_DEEP):
        if not isinstance(found, Mapping):
            break
        reference = found.get("$ref")
        if reference is None:
            return found
        if not str(reference).startswith("#/"):
            raise DocumentError(
                f"{here} refers to {reference}, which is another document; bundle them into one"
            )
        found = source
        for part in str(reference)[2:].split("/"):
            found = (
                found.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(found, Mapping) else None
            )
        if found is None:
            raise DocumentError(f"{here} refers to {reference}, which is not there")
    raise DocumentError(f"{here}: an object is missing, or a reference goes in circles")


def _refuse_collisions(verbs: Iterable[Verb]) -> None:
    known: dict[tuple[str, str], Verb] = {}
    for verb in verbs:
        other = known.setdefault((verb.group, verb.name), verb)
        if other is not verb:
            raise DocumentError(
                f"the operation ids {other.operation_id!r} and {verb.operation_id!r} both make the command "
                f"`{verb.group} {verb.name}`; rename one of them in the app"
            )


def _prefix(paths: list[str]) -> str:
    """The whole parts of the path that all begin with, none of them a parameter."""
    common = []
    for parts in zip(*(path.split("/")[:-1] for path in paths), strict=False):
        if len(set(parts)) > 1 or "{" in parts[0]:
            break
        common.append(parts[0])
    return "/".join(common).rstrip("/") + "/"


def _tags(operation: Mapping[str, Any]) -> list[str]:
    return [str(tag) for tag in _list(operation, "tags")] or ["default"]


def _kind(schema: Mapping[str, Any]) -> str:
    """The type of a value, "any" where it is not said."""
    kind = schema.get("type")
    if isinstance(kind, list):
        # 3.1 says with a list of types that null is one of them.
        kind = next((one for one in kind if one != "null"), None)
    if kind is None and schema.get("properties"):
        return "object"
    return kind if kind in _TYPES else "any"


def _object(within: Mapping[str, Any], key: str, here: str = "") -> Mapping[str, Any]:
    """An object that may be absent."""
    found = within.get(key)
    if found is None:
        return {}
    if not isinstance(found, Mapping):
        raise DocumentError(f"{here}: {key} is not an object" if here else f"{key} is not an object")
    return found


def _list(within: Mapping[str, Any], key: str, here: str = "") -> list[Any]:
    """A list that may be absent."""
    found = within.get(key)
    if found is None:
        return []
    if not isinstance(found, list):
        raise DocumentError(f"{here}: {key} is not a list" if here else f"{key} is not a list")
    return found


def _is_null(schema: Any) -> bool:
    return isinstance(schema, Mapping) and (schema.get("type") == "null" or schema.get("enum") == [""])


def _slug(name: str) -> str:
    """kebab-case, of letters and digits alone."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name)
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")


def _line(text: Any) -> str:
    return " ".join(str(text or "").split())
