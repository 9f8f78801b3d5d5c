# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Text that says of itself whether it is as it was written, so that a hand's change shows without knowing what it should be.

PRIVATE to claw.fleet: may change at any time.
"""

from __future__ import annotations

import hashlib

_SEAL = "# SHA-256 of what stands above: "


def sealed(text: str) -> str:
    """The text, whose kind has comments that begin with ``#``, and a last line by which `is_whole` knows it again."""
    text = f"{text.rstrip()}\n"
    return f"{text}{_SEAL}{_digest(text)}\n"


def is_whole(text: str) -> bool:
    """Whether it was sealed, and is as it was then."""
    body, found, digest = text.rpartition(_SEAL)
    return bool(found) and digest == f"{_digest(body)}\n"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
