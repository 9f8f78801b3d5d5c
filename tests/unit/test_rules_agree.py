"""The collection and Django call the same ids and names good: what a form takes, the fleet can run.

Neither may import the other, so each has the rules written down for itself.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

import pytest
from ansible_collections.claw.fleet.plugins.module_utils._coach import check_rows, gateway_name
from django.core.exceptions import ValidationError
from hypothesis import example, given
from hypothesis import strategies as st

from claw_fleet.coachlist import rules

# With the characters that matter often enough to meet each other, and any other at all, surrogates included.
CHARACTERS = st.sampled_from(
    "abz09-_AZ é\n\t\x00\x1f\x7f\x85\u00a0\u00ad\u200b\u2028\u2029\u202e\ud800\udfff"
) | (st.characters(codec=None, exclude_categories=()))
LONG = st.builds(
    lambda text, count: text * count, st.text(CHARACTERS, min_size=1, max_size=2), st.integers(1, 202)
)
NAMES = st.text(CHARACTERS, max_size=12) | LONG
IDS = st.from_regex(r"[a-z0-9_-]{0,66}", fullmatch=True) | st.sampled_from(["main", "none", "mains"]) | NAMES


def django_takes(rule: Callable[[str], None], value: str) -> bool:
    """Whether a form would."""
    try:
        rule(value)
    except ValidationError:
        return False
    return True


def fleet_takes(field: str, value: str) -> bool:
    """Whether a row that is good but for this field would be worked on."""
    row = {"pk": 1, "agent_id": "coach-anna", "name": "Anna", "wanted": "running", "generation": 1}
    (checked,) = check_rows([{**row, "status": "pending", field: value}])
    return "error" not in checked


@given(IDS)
@example("a" * 64)
@example("a" * 65)
@example("a\n")
@example("main")
def test_agent_ids(value: str) -> None:
    assert fleet_takes("agent_id", value) == django_takes(rules.validate_agent_id, value)


@given(NAMES)
@example("x" * 200)
@example("x" * 201)
@example("\u00a0")
def test_names(value: str) -> None:
    assert fleet_takes("name", value) == django_takes(rules.validate_name, value)


def test_every_kind_of_character_in_a_name() -> None:
    kinds = {(unicodedata.category(c), c.isprintable(), c.isspace()): c for c in map(chr, range(0x110000))}
    for character in kinds.values():
        name = f"An{character}na"
        assert fleet_takes("name", name) == django_takes(rules.validate_name, name), ascii(name)


@pytest.mark.parametrize("character", ["\n", "\x00", "\x85", "\u2028", "\u2029", "\ud800", "\udfff"])
def test_what_is_not_one_line_of_text(character: str) -> None:
    name = f"An{character}na"
    assert not fleet_takes("name", name) and not django_takes(rules.validate_name, name)


@given(IDS)
@example("a" * 27)
@example("a" * 28)
@example("a\n")
@example("none")
def test_gateway_names(value: str) -> None:
    try:
        taken = gateway_name(value) == value
    except ValueError:
        taken = False
    assert taken == django_takes(rules.validate_gateway_name, value)


def test_the_name_that_means_no_gateway() -> None:
    with pytest.raises(
        ValueError, match="is 'none', by which Django means no gateway at all; choose another one"
    ):
        gateway_name("none")
