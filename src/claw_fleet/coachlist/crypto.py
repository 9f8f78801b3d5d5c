# SPDX-License-Identifier: GPL-3.0-or-later
"""Hashes and encryption at rest."""

from __future__ import annotations

import functools
import hashlib

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from claw_fleet.coachlist import conf


class Undecryptable(Exception):
    """A stored secret was encrypted with a key that is no longer configured."""


def sha256_hex(secret: str) -> str:
    """The SHA-256 of a secret, in lower-case hexadecimal."""
    return hashlib.sha256(secret.encode()).hexdigest()


@functools.lru_cache(maxsize=8)
def _fernet(keys: tuple[str, ...]) -> MultiFernet:
    return MultiFernet([Fernet(key) for key in keys])


def encrypt(secret: str) -> str:
    """Encrypt with the first of COACHLIST_ENCRYPTION_KEYS."""
    return _fernet(conf.encryption_keys()).encrypt(secret.encode()).decode()


def decrypt(stored: str) -> str:
    """Decrypt with any of COACHLIST_ENCRYPTION_KEYS; raise Undecryptable if none fits."""
    try:
        return _fernet(conf.encryption_keys()).decrypt(stored).decode()
    except InvalidToken as exc:
        raise Undecryptable from exc


def rotate(stored: str) -> str:
    """Encrypt anew with the first key what any of the keys can read; raise Undecryptable if none fits."""
    try:
        return _fernet(conf.encryption_keys()).rotate(stored).decode()
    except InvalidToken as exc:
        raise Undecryptable from exc
