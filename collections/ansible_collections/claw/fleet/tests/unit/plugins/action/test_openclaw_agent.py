# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rendering on the controller: operators' templates, coaches' data, and whose fault it is."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.claw.fleet.plugins.action.openclaw_agent import ActionModule
from ansible_collections.claw.fleet.tests.unit.plugins.coach_list import row
from hypothesis import given, settings
from hypothesis import strategies as st

SOUL = {"src": "SOUL.md.j2", "dest": "SOUL.md", "owner": "agent"}


@pytest.fixture
def templates(tmp_path: Path) -> Path:
    directory = tmp_path / "templates"
    directory.mkdir()
    (directory / "SOUL.md.j2").write_text("I am {{ coach.name }}'s {{ coach.agent_id }} at {{ company }}.\n")
    return directory


def render(
    templates: Path, *rows: dict[str, Any], variables: dict[str, Any] | None = None, **args: Any
) -> dict[str, Any]:
    """What the module on the machine would be given."""
    loader = DataLoader()
    loader.set_basedir(str(templates.parent))
    options = {
        "gateway": "gw-a",
        "agents": list(rows),
        "workspace_files": [SOUL],
        "template_paths": [str(templates)],
        **args,
    }
    task = SimpleNamespace(
        args=options, check_mode=False, async_val=0, action="claw.fleet.openclaw_agent", get_search_path=list
    )
    connection = SimpleNamespace(_shell=SimpleNamespace(tmpdir="unused"))
    action = ActionModule(task, connection, None, loader, Templar(loader=loader), None)
    sent: dict[str, Any] = {}

    def execute(module_name: str, module_args: dict[str, Any], task_vars: Any) -> dict[str, Any]:
        sent.update(module_args)
        return {"changed": False}

    action._execute_module = execute
    action.run(None, {"company": "Acme", "secret": "s3cret", **(variables or {})})
    return sent


def test_each_running_coach_gets_her_files(templates: Path) -> None:
    sent = render(templates, row(1, name="Anna"), row(2, wanted="paused"), row(3, wanted="removed"))
    assert sent["contents"] == {"coach-1": {"SOUL.md": "I am Anna's coach-1 at Acme.\n"}}


@pytest.mark.parametrize(
    "text", ["{{ 7*7 }}", "{{ secret }}", "{% raw %}", "{{", "{# x #}", "{{ lookup('pipe', 'id') }}"]
)
def test_what_a_coach_wrote_is_never_a_template(templates: Path, text: str) -> None:
    (templates / "SOUL.md.j2").write_text(
        "{{ coach.name }} {{ coach.vars.deep[0].x }} {{ coach.vars | to_json }}"
    )
    sent = render(templates, row(1, name=text, vars={"deep": [{"x": text}], text: "key"}))
    assert sent["contents"]["coach-1"]["SOUL.md"].startswith(f"{text} {text} ")
    assert sent["agents"][0]["name"] == text


@pytest.mark.parametrize(
    "text",
    [
        "I am {{ coach.name }}.",
        "I am {{ coach.name }}.\n",
        "\n{{ coach.name }}\n\n",
        "{% set name = coach.name %}\n{{ name }} {{ company }}\n{% if coach.vars.tone %}\n{{ coach.vars.tone }}\n{% endif %}\n",
        "{% macro say(what) %}I say {{ what }}{% endmacro %}{{ say(coach.name) }}{% for part in [1, 2] %}{{ part }}{% endfor %}",
        "{%- if coach.vars.tone -%}\n  {{ coach.vars.tone }}\n{%- endif -%}\n",
        "{# Nobody is named. #}\nThe same for all.\n",
        "#jinja2: trim_blocks: False\n{% if coach.name %}\n{{ coach.name }}\n{% endif %}\n",
        "{% block name %}{{ coach.name }}{% endblock %}\n",
        "{% include 'other.j2' %}\n",
        "{% set seen = namespace(names='') %}{% set seen.names = seen.names ~ coach.name %}{{ seen.names }}",
        "{{ coach.vars.missing | default('none') }} {{ coach.vars | to_json }}",
        "",
    ],
)
def test_many_are_rendered_as_each_by_herself(templates: Path, text: str) -> None:
    (templates / "SOUL.md.j2").write_text(text)
    (templates / "other.j2").write_text("{{ coach.name }} included")
    rows = [
        row(1, name="Anna", vars={"tone": "warm"}),
        row(2, name='Bert"{{', vars={"tone": ""}),
        row(3, name="Cleo"),
    ]
    rows[2]["vars"] = {"tone": "dry", "missing": "here"}
    each: dict[str, Any] = {}
    for one in rows:
        each |= render(templates, one)["contents"]
    assert render(templates, *rows)["contents"] == each


PIECES = [
    "a",
    " ",
    "\n",
    "\n\n",
    "{{ coach.name }}",
    "{{- coach.name -}}",
    "{{ coach.name -}}",
    "{{ coach.vars.tone }}",
    "{{ coach.vars.more }}",
    "{#- Nothing. -#}",
    "{# Nothing. #}",
    "{% if coach.vars.tone %}\nb\n{% endif %}",
    "{%- if coach.vars.tone -%} b {%- endif -%}",
    "{% for part in [1, 2] %}{{ part }}{{ loop.index }}{% endfor %}\n",
    "{% for part in [1, 2] -%} {{ part }} {% endfor %}",
]


def test_what_another_variable_says_of_a_coach_is_said_of_each(templates: Path) -> None:
    (templates / "SOUL.md.j2").write_text("Hello {{ greeting }}.")
    rows = [row(1, name="Anna"), row(2, name="Bert")]
    greeting = trust_as_template("{{ coach.name | default('you') }}")
    sent = render(templates, *rows, variables={"greeting": greeting})
    assert sent["contents"] == {
        f"coach-{pk}": {"SOUL.md": f"Hello {name}."} for pk, name in ((1, "Anna"), (2, "Bert"))
    }


@pytest.mark.slow
def test_many_are_rendered_as_each_by_herself_whatever_stands_beside_what(templates: Path) -> None:
    rows = [
        row(1, name="Anna", vars={"tone": "warm", "more": "on"}),
        row(2, name="Bert", vars={"tone": "", "more": None}),
        row(3, name="Cleo", vars={"tone": "dry\n", "more": 3}),
        row(4, name="Dora", vars={"tone": "\n", "more": ["a", {"b": True}]}),
    ]

    @settings(max_examples=200)
    @given(pieces=st.lists(st.sampled_from(PIECES), max_size=5))
    def holds(pieces: list[str]) -> None:
        (templates / "SOUL.md.j2").write_text("".join(pieces))
        each: dict[str, Any] = {}
        for one in rows:
            each |= render(templates, one)["contents"]
        assert render(templates, *rows)["contents"] == each

    holds()


def test_a_value_that_a_coach_lacks_is_her_error(templates: Path) -> None:
    (templates / "SOUL.md.j2").write_text("{{ coach.vars.motto }}")
    sent = render(templates, row(1), row(2, vars={"motto": "on"}))
    assert sent["contents"] == {"coach-2": {"SOUL.md": "on"}}
    reason = sent["agents"][0]["error"]["reason"]
    assert sent["agents"][0]["error"]["step"] == "template"
    assert "SOUL.md.j2" in reason
    assert "motto" in reason


def test_a_value_of_the_wrong_kind_is_her_error(templates: Path) -> None:
    (templates / "SOUL.md.j2").write_text("{{ coach.vars.number + 1 }}")
    sent = render(templates, row(1, vars={"number": "x"}), row(2, vars={"number": 1}))
    assert "SOUL.md.j2" in sent["agents"][0]["error"]["reason"]
    assert sent["contents"] == {"coach-2": {"SOUL.md": "2"}}


def test_bad_rows_and_rows_in_error_are_not_rendered(templates: Path) -> None:
    sent = render(templates, row(1, name="a\nb"), row(2, error={"step": "key", "reason": "because"}))
    assert sent["contents"] == {}
    assert [item["error"]["step"] for item in sent["agents"]] == ["row", "key"]


def test_the_first_path_wins_also_for_included_templates(templates: Path, tmp_path: Path) -> None:
    first = tmp_path / "first"
    first.mkdir()
    (templates / "SOUL.md.j2").write_text("{% include 'part.j2' %}")
    (templates / "part.j2").write_text("second")
    assert render(templates, row(1))["contents"]["coach-1"]["SOUL.md"] == "second"
    (first / "part.j2").write_text("first {{ coach.name }}")
    paths = [str(first), str(templates)]
    sent = render(templates, row(1), template_paths=paths)
    assert sent["contents"]["coach-1"]["SOUL.md"] == "first Coach 1"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "There is no template SOUL.md.j2"),
        ("{% if %}", "line 1"),
        ("{{ coach.name ", "line 1"),
        ("{% include 'nowhere.j2' %}", "nowhere.j2"),
        ("{% include 'broken.j2' %}", "cannot be rendered"),
    ],
)
def test_a_fault_of_the_templates_stops_everything(templates: Path, text: str | None, reason: str) -> None:
    (templates / "broken.j2").write_text("{% if %}")
    if text is None:
        (templates / "SOUL.md.j2").unlink()
    else:
        (templates / "SOUL.md.j2").write_text(text)
    with pytest.raises(AnsibleActionFail, match=reason):
        render(templates, row(1))


def test_a_broken_template_is_found_also_when_nobody_needs_it(templates: Path) -> None:
    (templates / "SOUL.md.j2").write_text("{% if %}")
    with pytest.raises(AnsibleActionFail, match="Correct the template"):
        render(templates, row(1, wanted="removed"))


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ({**SOUL, "dest": "../SOUL.md"}, "entry 2: the dest '../SOUL.md' must be relative"),
        ({**SOUL, "dest": "TOOLS.md"}, "include that template in the one for AGENTS.md"),
        ({**SOUL, "dest": "MEMORY.md", "owner": "fleet"}, "belongs to the agent"),
        (SOUL, "is there twice"),
    ],
)
def test_a_bad_dest_stops_everything(templates: Path, file: dict[str, str], reason: str) -> None:
    with pytest.raises(AnsibleActionFail, match=reason):
        render(templates, row(1), workspace_files=[SOUL, file])


def test_what_was_given_as_contents_is_replaced(templates: Path) -> None:
    sent = render(templates, row(1), contents={"coach-1": {"SOUL.md": "planted"}})
    assert sent["contents"]["coach-1"]["SOUL.md"].startswith("I am")


def test_templates_get_no_keys(templates: Path) -> None:
    (templates / "SOUL.md.j2").write_text("{{ coach | to_json }}")
    sent = render(templates, row(1, key_sha256="a" * 64))
    assert "key_" not in sent["contents"]["coach-1"]["SOUL.md"]
