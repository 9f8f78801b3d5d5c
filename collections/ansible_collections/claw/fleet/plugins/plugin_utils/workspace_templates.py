# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of workspaces, rendered for each coach on the controller.

PRIVATE to claw.fleet: may change at any time.

Templates belong to the operator and are trusted; what a coach's row holds is data and never a template. A
fault of the templates themselves stops everything; one that comes from a coach's data is that coach's error.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ansible.errors import AnsibleActionFail, AnsibleError, AnsibleTemplateError, AnsibleTemplateSyntaxError
from ansible.plugins.action import ActionBase
from ansible.template import trust_as_template
from ansible_collections.claw.fleet.plugins.module_utils._coach import (
    FIELDS,
    Row,
    error,
    has_error,
)
from ansible_collections.claw.fleet.plugins.module_utils._workspace import refuse_dest
from jinja2 import Environment, TemplateAssertionError, TemplateNotFound, TemplateSyntaxError, meta, nodes

# As ansible.builtin.template has them.
_OVERRIDES = {"trim_blocks": True}
_PARSER = Environment(
    extensions=["jinja2.ext.do", "jinja2.ext.loopcontrols"], autoescape=True, trim_blocks=True
)
_KEYS_PREFIX = "key_"
_LOOPED = "claw_fleet_coaches"
# What is in a loop what it is alone; of a name, any but the loop's own.
_PLAIN = (nodes.Output, nodes.If, nodes.For, nodes.Expr, nodes.Helper)


class Template(NamedTuple):
    """A template of the operator: the name it goes by, where it was found, where it goes, its text.

    ``has_text``: whether it always gives some text, and so never a bare value, which Ansible has other rules for;
    ``plain``: whether nothing in it can tell a loop from a template of its own.
    """

    src: str
    path: Path
    dest: str
    text: str
    has_text: bool
    plain: bool


class Templates:
    """The templates of a task's ``workspace_files``, found where ``template_paths`` and Ansible look for them."""

    def __init__(self, action: ActionBase, args: dict[str, Any], task_vars: dict[str, Any]) -> None:
        self._action = action
        self._task_vars = task_vars
        _refuse_dests(args["workspace_files"])
        self._paths = [Path(action._loader.path_dwim(path)) for path in args["template_paths"]]
        self._templates = [self._find(file) for file in args["workspace_files"]]

    def render(self, rows: list[Row]) -> dict[str, dict[str, str]]:
        """{agent id: {dest: text}} of those who are to run; puts the error of a coach's data into her row."""
        action, templates, task_vars = self._action, self._templates, self._task_vars
        search = list(_search_path(self._paths, templates, task_vars, action._loader.get_basedir()))
        running = [row for row in rows if row["wanted"] == "running" and not has_error(row)]
        coaches = [
            {name: row[name] for name in FIELDS if not name.startswith(_KEYS_PREFIX)} for row in running
        ]

        def templar(**variables: Any) -> Any:
            return action._templar.copy_with_new_env(
                searchpath=search, available_variables={**task_vars, **variables}
            )

        together = [(template, _render_together(templar, template, coaches)) for template in templates]
        contents: dict[str, dict[str, str]] = {}
        for number, (row, coach) in enumerate(zip(running, coaches, strict=True)):
            try:
                contents[row["agent_id"]] = {
                    template.dest: texts[number] if texts else _render(templar(coach=coach), template)
                    for template, texts in together
                }
            except _CoachDataError as exc:
                row["error"] = error("template", str(exc))
        return contents

    def _find(self, file: dict[str, str]) -> Template:
        """The template of a workspace file; a missing or broken one is a fault of the list."""
        action, paths = self._action, self._paths
        src = file["src"]
        path = next((base / src for base in paths if (base / src).is_file()), None)
        try:
            path = path or Path(action._find_needle("templates", src))
            text = action._loader.get_text_file_contents(str(path))
        except AnsibleError as exc:
            looked = ", ".join(map(str, paths)) or "no template_paths"
            raise AnsibleActionFail(
                f"There is no template {src} for {file['dest']}. It was looked for in {looked}, and where "
                f"Ansible looks for templates. Put it there, or correct workspace_files. {exc}"
            ) from exc
        try:
            parsed = _PARSER.parse(text)
        except TemplateSyntaxError as exc:
            raise AnsibleActionFail(
                f"{path}, line {exc.lineno}: {exc.message}. Correct the template."
            ) from exc
        trusted = trust_as_template(text)
        return Template(src, path, file["dest"], trusted, _has_text(parsed), _is_plain(parsed))


class _CoachDataError(Exception):
    """A template that cannot be rendered for one coach; str() is a plain sentence."""


def _refuse_dests(files: list[dict[str, str]]) -> None:
    seen: set[str] = set()
    for number, file in enumerate(files, start=1):
        dest = file["dest"]
        reason = refuse_dest(dest, file["owner"]) or ("is there twice" if dest in seen else None)
        if reason:
            raise AnsibleActionFail(f"workspace_files, entry {number}: the dest {dest!r} {reason}.")
        seen.add(dest)


def _search_path(
    paths: list[Path], templates: list[Template], task_vars: dict[str, Any], basedir: str
) -> Iterator[str]:
    """Where included templates are looked for: as the templates themselves."""
    yield from map(str, paths)
    beside = [str(template.path.parent) for template in templates]
    for path in [*task_vars.get("ansible_search_path", []), basedir, *dict.fromkeys(beside)]:
        yield str(Path(path) / "templates")
        yield str(path)


def _render_together(templar: Callable[..., Any], template: Template, coaches: list[Row]) -> list[str] | None:
    """The text of each coach by one loop, or None where they must be rendered one by one.

    To compile a template takes four times as long as to render it, and Ansible keeps none that it has compiled.
    A template with settings of its own cannot stand in a loop, and one that may give a bare value is no text there. Whatever
    else may be different, where a template is not plain, shows in the first coach's text, or fails and is told of by the
    slow way. As Jinja does, the loop leaves out the last newline; as Ansible does, it is put back where it is missing.
    """
    if len(coaches) < 2 or template.text.startswith("#jinja2:") or not template.has_text:
        return None
    mark = secrets.token_hex(16)
    body = template.text.removesuffix("\n")
    loop = f"{{% for coach in {_LOOPED} %}}{mark}{body}{{% endfor %}}"
    try:
        looped = _render(templar(**{_LOOPED: coaches}), template._replace(text=trust_as_template(loop)))
        first = None if template.plain else _render(templar(coach=coaches[0]), template)
    except (AnsibleActionFail, _CoachDataError):
        return None
    texts = [_ended_like(template.text, text) for text in looped.split(mark)[1:]]
    return texts if len(texts) == len(coaches) and first in (None, texts[0]) else None


def _has_text(parsed: nodes.Template) -> bool:
    outputs = (node for node in parsed.body if isinstance(node, nodes.Output))
    return any(isinstance(part, nodes.TemplateData) and part.data for node in outputs for part in node.nodes)


def _is_plain(parsed: nodes.Template) -> bool:
    try:
        # What another variable holds may speak of the coach, and does not see that of a loop.
        others = meta.find_undeclared_variables(parsed) - {"coach"}
    except TemplateAssertionError:
        # Of the filters only Ansible has nobody knows here.
        return False
    return not others and all(
        isinstance(node, _PLAIN) and not (isinstance(node, nodes.Name) and node.name == "loop")
        for node in parsed.find_all(nodes.Node)
    )


def _ended_like(source: str, text: str) -> str:
    """With as many newlines at its end as the template has, at least."""
    return text + "\n" * (_newlines(source) - _newlines(text))


def _newlines(text: str) -> int:
    return len(text) - len(text.rstrip("\n"))


def _render(templar: Any, template: Template) -> str:
    try:
        text = templar.template(template.text, escape_backslashes=False, overrides=_OVERRIDES)
    except AnsibleTemplateError as exc:
        if isinstance(exc, AnsibleTemplateSyntaxError) or _has_cause(
            exc, (TemplateNotFound, TemplateSyntaxError)
        ):
            raise AnsibleActionFail(f"{template.path} cannot be rendered: {exc}") from exc
        raise _CoachDataError(
            f"{template.src} cannot be rendered for this coach: {exc}. "
            "Give her that value in Django, or give it a default in the template."
        ) from exc
    return "" if text is None else str(text)


def _has_cause(exc: BaseException, kinds: tuple[type[BaseException], ...]) -> bool:
    found: BaseException | None = exc
    while found is not None:
        if isinstance(found, kinds):
            return True
        found = found.__cause__ or found.__context__
    return False
