#!/usr/bin/python
# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: sandbox_image
short_description: Have the image that coaches' sandboxes are made of, with a command line for the app's API
version_added: 0.1.0
description:
  - The image holds Python, an unprivileged user, and one command, which is made of the app's OpenAPI document. Groups of
    that command are the document's tags, verbs its operation ids; each reads the coach's key from a file that her
    sandbox has, so an image holds no secret and is the same for all coaches.
  - What an agent executes (C(sh -lc LINE)) can be that command alone. Its words are taken as they are, without a shell,
    and nothing of the environment that an agent gives reaches them.
  - The command line is made on the controller, which needs the Python package C(openapi-python-client) for it. The image
    is built on the machine, which needs a container engine, the Docker SDK for Python (C(python3-docker)) and, for a base
    of Debian's packages, C(mmdebstrap).
  - An image's tag is the digest of all its inputs. If it is there nothing is made or sent, and a tag never comes to mean
    another image. A build that fails, or whose command does not start, or that executes anything else, leaves everything
    as it was.
  - Former images are removed, but for O(keep) of them and those that a container uses or a gateway names.
author: claw.fleet contributors (@claw-fleet)
extends_documentation_fragment:
  - claw.fleet.attributes
attributes:
  check_mode:
    support: full
    details:
      - The document is fetched and judged; whether a client can be generated of it is only known when it is built.
  diff_mode:
    support: full
    details:
      - The inputs by their digests, of the newest image and of the one that is wanted.
  idempotent:
    support: full
options:
  name:
    description: The name of the images, without a registry and a tag.
    type: str
    default: claw-sandbox
  openapi:
    description: The app's OpenAPI document, 3.0 or 3.1, as a URL or as a file on the controller.
    type: str
    required: true
  openapi_token:
    description: The bearer token for the document, where it is not for everybody.
    type: str
  openapi_timeout:
    description: Seconds to wait for the document.
    type: int
    default: 30
  ca_path:
    description: A file on the controller with the authorities that the document's server is trusted by.
    type: path
  leave_out:
    description:
      - Tags and operation ids that do not become commands.
      - V(ask) is left out because it would have an agent ask itself.
    type: list
    elements: str
    default: [ask]
  command:
    description: The name of the command.
    type: str
    default: journeyloop
  credentials:
    description: Where a sandbox has its coach's credentials.
    type: str
    default: /run/credentials/.credentials.json
  proxy:
    description: The URL of the proxy that the command reaches the API by; none if empty.
    type: str
    default: ''
  base:
    description: What the image begins with.
    type: dict
    default: {}
    suboptions:
      image:
        description:
          - An image with Debian's packages, by its digest, such as C(docker.io/library/debian@sha256:...). What is
            missing in it of O(base.packages) is installed.
          - If empty, a base is made of Debian's packages by C(mmdebstrap), once for each recipe.
        type: str
        default: ''
      suite:
        description: The Debian release that a base is made of.
        type: str
        default: bookworm
      mirror:
        description: Where Debian's packages come from; if empty, where C(mmdebstrap) takes them from by itself.
        type: str
        default: ''
      packages:
        description: The packages that there are beside what every Debian has.
        type: list
        elements: str
        default:
          [busybox-static, ca-certificates, python3-attr, python3-click, python3-dateutil, python3-httpx, python3-tabulate]
      renewed:
        description:
          - Any text, such as a date. With another one a new base is made of Debian's packages as they are then, so with
            the security updates of that day.
        type: str
        default: ''
  keep:
    description: How many former images are kept to go back to, first those that are used, then the newest.
    type: int
    default: 1
  config_root:
    description: Where the machine's gateways have their descriptors. What those name is not removed.
    type: path
    default: /etc/claw
  docker_host:
    description: The container engine, as a URL.
    type: str
    default: unix:///run/docker.sock
  inputs:
    description:
      - The digest of each input.
      - It is filled in on the controller and whatever is given here is replaced.
    type: dict
    default: {}
  stage:
    description:
      - What is made now, so that the controller can tell how far it has come; the base, or all of it.
      - It is filled in on the controller and whatever is given here is replaced.
    type: str
    choices: [base, image]
    default: image
  context:
    description:
      - The build's files on the machine, as an archive.
      - It is filled in on the controller and whatever is given here is replaced.
    type: path
"""

EXAMPLES = r"""
- name: The sandboxes' image is there, with a command line for the app
  claw.fleet.sandbox_image:
    openapi: https://app.example.com/api/companion/v1/schema/
    command: journeyloop
"""

RETURN = r"""
image:
  description: The image, by name and tag.
  returned: success
  type: str
  sample: claw-sandbox:3f0c9a5be1d27704
id:
  description: The engine's id of the image; empty in check mode if it would be built.
  returned: success
  type: str
base_present:
  description: Whether the base is there that the image begins with.
  returned: success
  type: bool
present:
  description: Whether the image is there.
  returned: success
  type: bool
differs:
  description: The inputs that are not those of the newest image, if the wanted one is not there.
  returned: success
  type: list
  elements: str
  sample: [document]
proxy:
  description: The URL of the proxy that the command reaches the API by; none if empty.
  returned: success
  type: str
  sample: http://172.29.240.1:3128
removed:
  description: The images that were removed, or in check mode would be.
  returned: success
  type: list
  elements: str
  sample: []
"""

import json
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.claw.fleet.plugins.module_utils._engine import end_with
from ansible_collections.claw.fleet.plugins.module_utils._gateway import DEFAULT_CONFIG_ROOT
from ansible_collections.claw.fleet.plugins.module_utils._image import (
    INPUTS,
    Base,
    ImageError,
    Images,
    tag_of,
)

ARGUMENT_SPEC: dict[str, Any] = {
    "name": {"type": "str", "default": "claw-sandbox"},
    "openapi": {"type": "str", "required": True},
    "openapi_token": {"type": "str", "no_log": True},
    "openapi_timeout": {"type": "int", "default": 30},
    "ca_path": {"type": "path"},
    "leave_out": {"type": "list", "elements": "str", "default": ["ask"]},
    "command": {"type": "str", "default": "journeyloop"},
    "credentials": {"type": "str", "default": "/run/credentials/.credentials.json"},
    "proxy": {"type": "str", "default": ""},
    "base": {
        "type": "dict",
        "default": {},
        "apply_defaults": True,
        "options": {
            "image": {"type": "str", "default": ""},
            "suite": {"type": "str", "default": "bookworm"},
            "mirror": {"type": "str", "default": ""},
            "packages": {
                "type": "list",
                "elements": "str",
                "default": [
                    "busybox-static",
                    "ca-certificates",
                    "python3-attr",
                    "python3-click",
                    "python3-dateutil",
                    "python3-httpx",
                    "python3-tabulate",
                ],
            },
            "renewed": {"type": "str", "default": ""},
        },
    },
    "keep": {"type": "int", "default": 1},
    "config_root": {"type": "path", "default": DEFAULT_CONFIG_ROOT},
    "docker_host": {"type": "str", "default": "unix:///run/docker.sock"},
    "inputs": {"type": "dict", "default": {}},
    "stage": {"type": "str", "choices": ["base", "image"], "default": "image"},
    "context": {"type": "path"},
}


def reconcile(params: dict[str, Any], check: bool) -> dict[str, Any]:
    """Have the image, if the context is there or it needs none; what was done, or would be."""
    inputs: dict[str, str] = params["inputs"]
    images, tag = Images(params["name"], params["docker_host"]), tag_of(params["inputs"])
    image, newest = images.find(tag), images.newest()
    known = json.loads(newest.labels[INPUTS]) if newest else {}
    differs = [] if image else sorted(name for name in inputs if known.get(name) != inputs[name])
    base = Base(**params["base"])
    changed = False
    if params["stage"] == "base" and not check:
        images.make_base(base)
    elif image is None and params["context"] and not check:
        image = images.build(Path(params["context"]), inputs, base, params["command"])
        changed = True
    # What is not there yet will come before those that are.
    removed = images.prune(params["keep"], tag, params["config_root"], check=check) if image or check else []
    return {
        "changed": changed or bool(removed) or (check and image is None),
        "image": f"{params['name']}:{tag}",
        "id": image.id if image else "",
        "base_present": images.has_base(base),
        "present": image is not None,
        "differs": differs,
        "removed": removed,
        "proxy": params["proxy"],
        "diff": {"before": _lines(inputs if image and not changed else known), "after": _lines(inputs)},
    }


def _lines(inputs: dict[str, str]) -> str:
    return "".join(f"{name} {value[:12]}\n" for name, value in sorted(inputs.items()))


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    end_with(module, module.params["name"], ImageError, lambda: reconcile(module.params, module.check_mode))


if __name__ == "__main__":
    main()
