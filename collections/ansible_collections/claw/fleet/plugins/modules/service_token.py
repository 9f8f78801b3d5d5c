#!/usr/bin/python
# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: service_token
short_description: Replace the token by which the fleet is known to Django
version_added: 0.1.0
description:
  - The new token is made on the controller, into a file beside O(path); Django gets its SHA-256 by the present token;
    it is proven to be taken; it takes the place of the present one in O(path); the one before is revoked, and proven to
    be refused.
  - What an interrupted run has left is carried to its end by the next one. A retry never makes another token.
  - A token that stands in Django's settings can be revoked by taking it out of them alone. Then everything else is
    done, and the task fails with a message that says so, until it is no longer accepted.
author: claw.fleet contributors (@claw-fleet)
extends_documentation_fragment:
  - claw.fleet.django
  - claw.fleet.attributes
  - claw.fleet.attributes.controller
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details:
      - Of the token before, the first characters of its SHA-256 are shown.
  idempotent:
    support: partial
    details:
      - Without O(max_age_days) each run makes a new token.
options:
  path:
    description:
      - The file on the controller that holds the token, and nothing else. It is where O(api_token) is read from in other
        tasks; here O(api_token) is not used.
    type: path
    required: true
  name:
    description: What Django's admin shows the token as, for example the controller's name.
    type: str
    default: controller
  max_age_days:
    description: How many days old the file has to be for its token to be replaced. V(0) replaces any.
    type: int
    default: 0
  api_token:
    description: Not used; the token is read from O(path).
    type: str
    required: false
"""

EXAMPLES = r"""
- name: The fleet is known by a token that is younger than a month
  claw.fleet.service_token:
    api_url: https://app.example.com/api/companion/v1/
    path: /etc/claw-controller/service-token
    max_age_days: 30
"""

RETURN = r"""
token_sha256:
  description: The hash of the token in the file. In check mode, of the one that is there until then.
  returned: success
  type: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.claw.fleet.plugins.module_utils._coach_api import DJANGO_ARGUMENT_SPEC

ARGUMENT_SPEC: dict[str, Any] = {
    **DJANGO_ARGUMENT_SPEC,
    "api_token": {"type": "str", "no_log": True},
    "path": {"type": "path", "required": True},
    "name": {"type": "str", "default": "controller"},
    "max_age_days": {"type": "int", "default": 0},
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    module.fail_json(
        msg="claw.fleet.service_token runs on the controller, by its action plugin of the same name."
    )


if __name__ == "__main__":
    main()
