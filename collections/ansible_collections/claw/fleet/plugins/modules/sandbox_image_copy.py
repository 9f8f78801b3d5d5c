#!/usr/bin/python
# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: sandbox_image_copy
short_description: Have an image of sandboxes that was built elsewhere
version_added: 0.1.0
description:
  - With V(saved) an image is fetched from the machine that built it to the controller, where it is kept until the run of
    Ansible ends. With V(loaded) another machine is sent it from there, and has the very same image, by name and id.
  - With O(source) it is taken from another engine of the same machine, for gateways that each have one of their own.
  - Nothing is fetched that the controller has, and nothing sent that the machine has.
author: claw.fleet contributors (@claw-fleet)
extends_documentation_fragment:
  - claw.fleet.attributes
attributes:
  check_mode:
    support: full
    details:
      - With V(saved) nothing is done. An image that has no O(id) yet, or is not in O(source) yet, counts as one that the
        machine lacks, and an engine that is not there yet as one that has no image.
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
    description:
      - The engine's id of the image where it was built; empty if it is yet to be built.
      - With O(source) it is what that engine says.
    type: str
    default: ''
  state:
    description: Whether it is taken from a machine or given to one.
    type: str
    choices: [saved, loaded]
    required: true
  keep:
    description: With V(loaded), how many former images are kept to go back to, first those that are used, then the newest.
    type: int
    default: 1
  source:
    description: With V(loaded), another container engine of the machine that has the image, as a URL.
    type: str
    default: ''
  config_root:
    description: Where the machine's gateways have their descriptors. What those name is not removed.
    type: path
    default: /etc/claw
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

- name: The gateway's own engine has the image
  claw.fleet.sandbox_image_copy:
    image: localhost/claw-sandbox:3f0c9a5be1d27704
    state: loaded
    source: unix:///run/claw-podman-builder/podman.sock
    docker_host: unix:///run/claw-podman/gw-a/podman.sock
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

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.claw.fleet.plugins.module_utils._engine import end_with
from ansible_collections.claw.fleet.plugins.module_utils._gateway import DEFAULT_CONFIG_ROOT
from ansible_collections.claw.fleet.plugins.module_utils._image import ImageError, Images

ARGUMENT_SPEC: dict[str, Any] = {
    "image": {"type": "str", "required": True},
    "id": {"type": "str", "default": ""},
    "state": {"type": "str", "choices": ["saved", "loaded"], "required": True},
    "keep": {"type": "int", "default": 1},
    "source": {"type": "str", "default": ""},
    "config_root": {"type": "path", "default": DEFAULT_CONFIG_ROOT},
    "docker_host": {"type": "str", "default": "unix:///run/docker.sock"},
    "archive": {"type": "path"},
}


def reconcile(params: dict[str, Any], check: bool) -> dict[str, Any]:
    """Save it to the archive, or have it of the archive or the other engine; without either, say whether it is there."""
    name, _colon, tag = params["image"].rpartition(":")
    archive = Path(params["archive"]) if params["archive"] else None
    try:
        images = Images(name, params["docker_host"])
    except ImageError:
        if check and params["source"]:
            return {"changed": True, "present": False, "removed": []}
        raise
    if params["state"] == "saved":
        if archive:
            images.save(tag, archive)
        return {"changed": False, "present": images.find(tag) is not None, "removed": []}
    original = Images(name, params["source"]) if params["source"] else None
    wanted = _id(original, tag, check) if original else params["id"]
    found = images.find(tag)
    present = found is not None and found.id == wanted
    loaded = bool(archive or original) and not present and not check
    if loaded and original:
        images.load(tag, original.pieces(tag), wanted)
    elif loaded and archive:
        with archive.open("rb") as file:
            images.load(tag, file, wanted)
    removed = (
        images.prune(params["keep"], tag, params["config_root"], check=check)
        if present or loaded or check
        else []
    )
    return {
        "changed": loaded or bool(removed) or (check and not present),
        "present": present or loaded,
        "removed": removed,
    }


def _id(original: Images, tag: str, check: bool) -> str:
    """The id of the image where it was built; in check mode empty if it is yet to be."""
    if not check:
        return str(original.known(tag).id)
    image = original.find(tag)
    return str(image.id) if image else ""


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    end_with(module, module.params["image"], ImageError, lambda: reconcile(module.params, module.check_mode))


if __name__ == "__main__":
    main()
