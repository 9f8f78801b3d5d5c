#!/usr/bin/python
# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: subordinate_ids
short_description: Have the ids that a user's rootless containers need
version_added: 0.1.0
description:
  - Gives a user a range of subordinate user and group ids of its own in C(/etc/subuid) and C(/etc/subgid), which Debian
    gives to people but not to system users, and without which a rootless engine has no users but its own.
  - A user who has a range that is large enough keeps it. No two users get ids in common.
author: claw.fleet contributors (@claw-fleet)
extends_documentation_fragment:
  - claw.fleet.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  user:
    description: The user's name. In check mode it need not be there yet.
    type: str
    required: true
  count:
    description: How many ids.
    type: int
    default: 65536
"""

EXAMPLES = r"""
- name: The gateway's user can have containers
  claw.fleet.subordinate_ids:
    user: claw-gw-a
"""

RETURN = r"""
files:
  description: The files in which a range was given, or in check mode would be.
  returned: success
  type: list
  elements: str
  sample: [/etc/subuid, /etc/subgid]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.claw.fleet.plugins.module_utils._durable import DurableError
from ansible_collections.claw.fleet.plugins.module_utils._subordinate_ids import SubordinateIdsError, ensure


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "user": {"type": "str", "required": True},
            "count": {"type": "int", "default": 65536},
        },
        supports_check_mode=True,
    )
    user, count = module.params["user"], module.params["count"]
    try:
        files = ensure(user, count, check=module.check_mode)
    except (SubordinateIdsError, DurableError) as error:
        module.fail_json(msg=str(error))
    after = "".join(f"{file}: {count} ids for {user}\n" for file in files)
    module.exit_json(changed=bool(files), files=files, diff={"before": "", "after": after})


if __name__ == "__main__":
    main()
