#!/usr/bin/python
# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: sandbox_image_copy
short_description: Have an image of sandboxes that was built on another machine
version_added: 0.1.0
description:
  - With V(saved) an image is fetched from the machine that built it to the controller, where it is kept until the run of
    Ansible ends. With V(loaded) another machine is sent it from there, and has the very same image, by name and id.
  - Nothing is fetched that the controller has, and nothing sent that the machine has.
author: claw.fleet contributors (@claw-fleet)
extends_documentation_fragment:
  - claw.fleet.attributes
attributes:
  check_mode:
    support: full
    details:
      - With V(saved) nothing is done. An image that has no O(id) yet counts as one that the machine lacks.
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  image:
    description: The image, by name and tag.
    type: str
    required: true
  id:
    description: The engine's id of the image where it was built; empty if it is yet to be built.
    type: str
    default: ''
  state:
    description: Whether it is taken from a machine or given to one.
    type: str
    choices: [saved, loaded]
    required: true
  keep:
    description: With V(loaded), how many former images are kept that nothing uses, to go back to.
    type: int
    default: 1
  docker_host:
    description: The container engine, as a URL.
    type: str
    default: unix:///run/docker.sock
  archive:
    description:
      - The image on the machine, as an archive.
      - It is filled in on the controller and whatever is given here is replaced.
    type: path
"""

EXAMPLES = r"""
- name: The image is on the controller
  claw.fleet.sandbox_image_copy:
    image: claw-sandbox:3f0c9a5be1d27704
    state: saved
  delegate_to: machine1

- name: The machine has the image
  claw.fleet.sandbox_image_copy:
    image: claw-sandbox:3f0c9a5be1d27704
    id: sha256:0b0e7a7b8cfe6d9f0d2a1f52d1d9a3c1c1a3c2ef8b3f3f3c6a0d4b0f2d1e9c77
    state: loaded
"""

RETURN = r"""
present:
  description: Whether the machine has the image.
  returned: success
  type: bool
removed:
  description: The images that were removed, or in check mode would be.
  returned: success
  type: list
  elements: str
  sample: []
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.claw.fleet.plugins.module_utils._engine import SDK_HINT, SDK_MISSING
from ansible_collections.claw.fleet.plugins.module_utils._image import ImageError, Images

ARGUMENT_SPEC: dict[str, Any] = {
    "image": {"type": "str", "required": True},
    "id": {"type": "str", "default": ""},
    "state": {"type": "str", "choices": ["saved", "loaded"], "required": True},
    "keep": {"type": "int", "default": 1},
    "docker_host": {"type": "str", "default": "unix:///run/docker.sock"},
    "archive": {"type": "path"},
}


def reconcile(params: dict[str, Any], check: bool) -> dict[str, Any]:
    """Save it to the archive, or have it of the archive; without an archive, say whether it is there."""
    name, _colon, tag = params["image"].rpartition(":")
    images = Images(name, params["docker_host"])
    archive = Path(params["archive"]) if params["archive"] else None
    if params["state"] == "saved":
        if archive:
            images.save(tag, archive)
        return {"changed": False, "present": images.find(tag) is not None, "removed": []}
    found = images.find(tag)
    present = found is not None and found.id == params["id"]
    loaded = bool(archive) and not present and not check
    if archive and loaded:
        images.load(tag, archive, params["id"])
    removed = []
    if present or loaded or check:
        removed = images.prune(params["keep"], params["id"], check=check)
    return {
        "changed": loaded or bool(removed) or (check and not present),
        "present": present or loaded,
        "removed": removed,
    }


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    if SDK_MISSING:
        module.fail_json(msg=missing_required_lib("docker", reason=SDK_HINT), exception=SDK_MISSING)
    try:
        module.exit_json(**reconcile(module.params, module.check_mode))
    except ImageError as error:
        module.fail_json(msg=f"{module.params['image']}: {error}")


if __name__ == "__main__":
    main()
