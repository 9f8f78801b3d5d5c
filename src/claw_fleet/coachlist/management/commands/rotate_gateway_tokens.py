# SPDX-License-Identifier: GPL-3.0-or-later
"""manage.py rotate_gateway_tokens"""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from claw_fleet.coachlist import crypto
from claw_fleet.coachlist.models import Gateway


class Command(BaseCommand):
    """Encrypts every stored gateway token anew with the first encryption key."""

    help = (
        "Encrypt all stored gateway tokens anew with the first of COACHLIST_ENCRYPTION_KEYS. "
        "To replace a key: put the new one first, restart, run this, then drop the old key and restart. "
        "The tokens stay the same."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        """Do it, and say how many; fail if a token cannot be read."""
        done, overtaken, unreadable = 0, 0, []
        for column in ("token_encrypted", "next_token_encrypted"):
            for gateway in Gateway.objects.exclude(**{column: ""}):
                stored = getattr(gateway, column)
                try:
                    anew = crypto.rotate(stored)
                except crypto.Undecryptable:
                    unreadable.append(gateway.name)
                    continue
                # Only over what was read: a token that came in meanwhile is already under the first key.
                written = Gateway.objects.filter(pk=gateway.pk, **{column: stored}).update(**{column: anew})
                done += written
                overtaken += 1 - written
        self.stdout.write(f"Encrypted anew: {done}. Replaced meanwhile by a newer token: {overtaken}.")
        if unreadable:
            raise CommandError(
                f"No configured key decrypts the token of: {', '.join(unreadable)}. Add the key it was "
                "encrypted with to COACHLIST_ENCRYPTION_KEYS, or register these gateways again. "
                "Drop no key before that."
            )
