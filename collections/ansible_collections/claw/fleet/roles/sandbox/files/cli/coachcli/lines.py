# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command, called with a line as a shell would get it, where there is no shell."""

from __future__ import annotations

import sys

import click

from coachcli.commands import command, description

# What OpenClaw puts before a line where it has a PATH of its own for it; of no use where nothing is looked for.
_BEFORE = 'export PATH="${OPENCLAW_PREPEND_PATH}:$PATH"; unset OPENCLAW_PREPEND_PATH; '
_OPERATORS = frozenset("();<>|&\n\r")
_ESCAPED = frozenset('$`"\\\n')
"""What a backslash takes its meaning from within double quotes."""
_REFUSED = 126


def main(line: str) -> None:
    """Run the line, or end with status 126."""
    described = description()
    name = described["name"]
    try:
        words = words_of(line.removeprefix(_BEFORE), name)
    except ValueError as error:
        click.echo(f"Only `{name}` can be executed here, one command at a time: {error}.", err=True)
        sys.exit(_REFUSED)
    command(described)(args=words, prog_name=name)


def words_of(line: str, name: str) -> list[str]:
    """The words after the command's name. Raises ValueError where the line is anything else."""
    words = _split(line.strip())
    if not words or words[0] != name:
        raise ValueError(f"this begins with {words[0]!r}" if words else "this is empty")
    return words[1:]


def _split(line: str) -> list[str]:
    """The words of a line by a shell's rules for quotes; what a shell would do more than that is refused.

    shlex is of no use here: it keeps a backslash before $ in double quotes, and does not tell what was quoted.
    """
    words: list[str] = []
    word: str | None = None
    quote = ""
    characters = iter(zip(line, [*line[1:], ""], strict=True))
    for character, following in characters:
        if quote == "'":
            quote, word = ("", word) if character == quote else (quote, f"{word}{character}")
        elif character == "\\" and (not quote or following in _ESCAPED):
            if not following:
                raise ValueError("it ends with a backslash")
            next(characters)
            word = (word or "") + ("" if following == "\n" else following)
        elif character == "`" or character + following == "$(":
            raise ValueError(f"{character} runs nothing here; to mean it as text, put it in single quotes")
        elif quote:
            quote, word = ("", word) if character == quote else (quote, f"{word}{character}")
        elif character in _OPERATORS:
            raise ValueError(
                f"{character.strip() or 'a second line'} means nothing here; to mean it as text, quote it"
            )
        elif character.isspace():
            words += [] if word is None else [word]
            word = None
        elif character in "\"'":
            quote, word = character, word or ""
        else:
            word = (word or "") + character
    if quote:
        raise ValueError(f"the quote {quote} is not closed")
    return [*words, *([] if word is None else [word])]
