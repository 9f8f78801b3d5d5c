# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command, called with a line as a shell would get it, where there is no shell."""

from __future__ import annotations

import shlex
import sys

import click

from coachcli.commands import command, description

# What OpenClaw puts before a line where it has a PATH of its own for it; of no use where nothing is looked for.
_BEFORE = 'export PATH="${OPENCLAW_PREPEND_PATH}:$PATH"; unset OPENCLAW_PREPEND_PATH; '
_OPERATORS = frozenset("();<>|&")
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
    if "\n" in line.strip():
        raise ValueError("this is more than one line")
    lexer = shlex.shlex(line, posix=True, punctuation_chars="".join(_OPERATORS))
    lexer.whitespace_split = True
    lexer.commenters = ""
    words = list(lexer)
    operator = next((word for word in words if word and _OPERATORS.issuperset(word)), None)
    if operator:
        raise ValueError(f"{operator} means nothing here; write it within a longer text in quotes")
    if not words or words[0] != name:
        raise ValueError(f"this begins with {words[0]!r}" if words else "this is empty")
    return words[1:]
