"""Lines that an agent would have executed: the command's words as they are, or a refusal."""

from __future__ import annotations

import pytest
from coachcli.lines import words_of

NAME = "journeyloop"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("journeyloop", []),
        ("  journeyloop   clients list ", ["clients", "list"]),
        ("journeyloop clients search --q 'Anna Bell'", ["clients", "search", "--q", "Anna Bell"]),
        ('journeyloop x "a; b | c & d > e"', ["x", "a; b | c & d > e"]),
        (r"journeyloop x it\'s", ["x", "it's"]),
        # Nothing is expanded, so these are what they look like.
        ("journeyloop x $HOME ~ * # \\$1 '`id`'", ["x", "$HOME", "~", "*", "#", "$1", "`id`"]),
        (r'journeyloop x "Save \$500, \"or\" \`so\` \n"', ["x", 'Save $500, "or" `so` \\n']),
        ("journeyloop x 'two\n\nparagraphs' \";\" '&&'", ["x", "two\n\nparagraphs", ";", "&&"]),
        ("journeyloop x one\\\n two\n", ["x", "one", "two"]),
        ('journeyloop x --json \'{"a": [1, "ü"]}\'', ["x", "--json", '{"a": [1, "ü"]}']),
        ("journeyloop x ''", ["x", ""]),
    ],
)
def test_words(line: str, words: list[str]) -> None:
    assert words_of(line, NAME) == words


@pytest.mark.parametrize(
    "line",
    [
        "",
        " ",
        "id",
        "/bin/sh -c journeyloop",
        "./journeyloop x",
        "journeyloop2 x",
        "A=1 journeyloop x",
        "exec journeyloop x",
        "journeyloop x; id",
        "journeyloop x;id",
        "journeyloop x && id",
        "journeyloop x & id",
        "journeyloop x | cat",
        "journeyloop x > /workspace/y",
        "journeyloop x < /run/credentials/.credentials.json",
        "journeyloop $(id)",
        "journeyloop `id`",
        'journeyloop x "$(id)"',
        'journeyloop x "`id`"',
        "journeyloop x <(id)",
        "(journeyloop x)",
        "journeyloop x\nid",
        "journeyloop x 'not closed",
        "journeyloop x \\",
    ],
)
def test_anything_else_is_refused(line: str) -> None:
    with pytest.raises(ValueError):
        words_of(line, NAME)
