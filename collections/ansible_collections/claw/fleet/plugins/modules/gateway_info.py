#!/usr/bin/python
# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: gateway_info
short_description: How a gateway is
version_added: 0.1.0
description:
  - Asks systemd and the gateway itself. Returns no secret, changes nothing, and does not make an agent work.
  - A gateway that is not there, or does not run, is a result and not a failure.
author: claw.fleet contributors (@claw-fleet)
extends_documentation_fragment:
  - claw.fleet.attributes
  - claw.fleet.attributes.info_module
options:
  gateway:
    description: Name of the gateway.
    type: str
    required: true
  port:
    description: The port to look at where no gateway of this name exists yet.
    type: int
  wait:
    description:
      - How many seconds to wait at most for one that exists to be ready.
      - One that is stopped, or has failed, is not waited for.
    type: int
    default: 0
"""

EXAMPLES = r"""
- name: Ask the gateway how it is
  claw.fleet.gateway_info:
    gateway: gw-a
  register: gateway_found
"""

RETURN = r"""
exists:
  description: Whether the gateway was ever set up on this machine.
  returned: always
  type: bool
version:
  description: The OpenClaw it is set up with.
  returned: when it exists
  type: str
tree:
  description: Where that OpenClaw is.
  returned: when it exists
  type: str
port:
  description: Its port on the loopback address.
  returned: when it exists
  type: int
state_missing:
  description:
    - Whether it was in force once, and nothing is left in its state directory of what it knew. Mostly that is on a volume of its own,
      which is not mounted.
  returned: when it exists
  type: bool
unit:
  description: Its unit as systemd sees it.
  returned: when it exists
  type: dict
  sample: {"name": "openclaw-gateway@gw-a.service", "active": "active", "sub": "running", "result": "success"}
pid:
  description: Its main process; 0 if it does not run.
  returned: when it exists
  type: int
ready:
  description: Whether it says it is ready.
  returned: when it exists
  type: bool
agents:
  description: The agents it serves, without the placeholder C(main).
  returned: when it is ready
  type: list
  elements: str
serves_its_files:
  description: Whether its files are valid and the running process has applied them.
  returned: when it is ready
  type: bool
issues:
  description: Why its files are not valid.
  returned: when it is ready
  type: list
  elements: str
health:
  description: What it says of its plugins and its event loop.
  returned: when it is ready
  type: dict
endpoints:
  description: The HTTP status each endpoint answers to an empty request, with the token and without.
  returned: when it is ready
  type: dict
  sample: {"/v1/responses": {"with_token": 400, "without_token": 401}}
port_user:
  description: The Unix user who listens on the port; empty if nobody does.
  returned: always
  type: str
port_gateway:
  description: Another gateway of this machine that is set up with this port; empty if there is none.
  returned: always
  type: str
"""

import http.client
from contextlib import suppress
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.claw.fleet.plugins.module_utils import _durable, _processes
from ansible_collections.claw.fleet.plugins.module_utils._gateway import (
    DEFAULT_CONFIG_ROOT,
    Gateway,
    GatewayError,
    other_gateway,
)

_ENDPOINTS = ("/v1/responses", "/v1/chat/completions")


def look(name: str, port: int | None, wait: int = 0) -> dict[str, Any]:
    """What the module returns."""
    found: dict[str, Any] = {"exists": (Path(DEFAULT_CONFIG_ROOT) / name / "gateway.json").exists()}
    if found["exists"]:
        gateway = Gateway.load(name)
        port = gateway.port if port is None else port
        if wait:
            # What it came to is told below.
            with suppress(GatewayError):
                gateway.wait_ready(wait)
        found |= _ask(gateway)
    return found | {
        "port_user": _processes.listener(port),
        "port_gateway": other_gateway(name, port, DEFAULT_CONFIG_ROOT),
    }


def _ask(gateway: Gateway) -> dict[str, Any]:
    state = gateway.unit_state()
    found: dict[str, Any] = {
        "version": gateway.version,
        "tree": gateway.tree,
        "port": gateway.port,
        "state_missing": gateway.state_is_gone,
        "unit": {"name": gateway.unit, "active": state.active, "sub": state.sub, "result": state.result},
        "pid": state.pid,
        "ready": state.active == "active" and gateway.ready(),
    }
    if not found["ready"]:
        return found
    served, health = gateway.served(), gateway.rpc("health")
    bearer = {"authorization": f"Bearer {gateway.token()}"}
    return found | {
        "agents": sorted(agent for agent in served.agents if agent not in ("main", "$include")),
        "serves_its_files": served.valid and served.converged,
        "issues": served.issues,
        "health": {key: health[key] for key in ("ok", "plugins", "eventLoop") if key in health},
        "endpoints": {
            path: {"with_token": _status(gateway, path, bearer), "without_token": _status(gateway, path, {})}
            for path in _ENDPOINTS
        },
    }


def _status(gateway: Gateway, path: str, headers: dict[str, str]) -> int:
    """What the endpoint says to an empty request: it gets past the token, but to no agent."""
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=30)
    try:
        connection.request("POST", path, "{}", {"content-type": "application/json", **headers})
        return connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        raise GatewayError(f"gateway {gateway.name} does not answer at {path}: {error}") from error
    finally:
        connection.close()


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "gateway": {"type": "str", "required": True},
            "port": {"type": "int"},
            "wait": {"type": "int", "default": 0},
        },
        supports_check_mode=True,
    )
    given = module.params
    try:
        module.exit_json(changed=False, **look(given["gateway"], given["port"], given["wait"]))
    except (GatewayError, _durable.DurableError) as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
