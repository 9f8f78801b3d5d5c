#!/usr/bin/python
# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: sandbox_image_copy
short_description: Have an image of one container engine in another one of the same machine
version_added: 0.1.0
description:
  - For gateways that each have an engine of their own. The image is made once, in an engine that no gateway reaches
    (M(claw.fleet.sandbox_image)), and is copied from there.
  - An image of that name which is another one than the original is replaced by it.
  - Former images of the name are removed, but for O(keep) of them and those that a container uses.
author: claw.fleet contributors (@claw-fleet)
extends_documentation_fragment:
  - claw.fleet.attributes
attributes:
  check_mode:
    support: full
    details:
      - An engine that is not there yet counts as one that has no image.
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  image:
    description: The image, by name and tag.
    type: str
    required: true
  source:
    description: The container engine that has it, as a URL.
    type: str
    required: true
  docker_host:
    description: The container engine that is to have it, as a URL.
    type: str
    required: true
  keep:
    description: How many former images are kept that nothing uses.
    type: int
    default: 1
"""

EXAMPLES = r"""
- name: The gateway's own engine has the image
  claw.fleet.sandbox_image_copy:
    image: localhost/claw-sandbox:3f0c9a5be1d27704
    source: unix:///run/claw-podman-builder/podman.sock
    docker_host: unix:///run/claw-podman/gw-a/podman.sock
"""

RETURN = r"""
id:
  description: The engine's id of the image; empty in check mode if it would be copied.
  returned: success
  type: str
removed:
  description: The former images that were removed, or in check mode would be.
  returned: success
  type: list
  elements: str
  sample: []
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.claw.fleet.plugins.module_utils._engine import SDK_HINT, SDK_MISSING
from ansible_collections.claw.fleet.plugins.module_utils._image import ImageError, Images


def reconcile(params: dict[str, Any], check: bool) -> dict[str, Any]:
    """Have the image; what was done, or would be."""
    name, _colon, tag = params["image"].rpartition(":")
    try:
        images = Images(name, params["docker_host"])
    except ImageError:
        if not check:
            raise
        return _outcome(params["image"], "", "", [])
    original = Images(name, params["source"]).find(tag)
    if original is None:
        raise ImageError(
            f"the engine at {params['source']} has no image {params['image']} to copy. Run the role "
            "claw.fleet.sandbox, which builds it, or name one that it has kept"
        )
    before = images.find(tag)
    same = before is not None and before.id == original.id
    if not same and not check:
        images.load(original, tag)
    removed = images.prune(params["keep"], original.id, check=check)
    return _outcome(
        params["image"], before.id if before else "", original.id, removed, copied=not same, check=check
    )


def _outcome(
    image: str, before: str, after: str, removed: list[str], *, copied: bool = True, check: bool = True
) -> dict[str, Any]:
    told = [f"{image} {found}\n" if found else "" for found in (before, after)]
    return {
        "changed": copied or bool(removed),
        "id": "" if copied and check else after,
        "removed": removed,
        "diff": {"before": told[0], "after": told[1]},
    }


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "image": {"type": "str", "required": True},
            "source": {"type": "str", "required": True},
            "docker_host": {"type": "str", "required": True},
            "keep": {"type": "int", "default": 1},
        },
        supports_check_mode=True,
    )
    if SDK_MISSING:
        module.fail_json(msg=missing_required_lib("docker", reason=SDK_HINT), exception=SDK_MISSING)
    try:
        module.exit_json(**reconcile(module.params, module.check_mode))
    except ImageError as error:
        module.fail_json(msg=f"{module.params['image']}: {error}")


if __name__ == "__main__":
    main()
