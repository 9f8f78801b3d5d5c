#!/usr/bin/python
# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: isolation_audit
short_description: Try in agents' real sandboxes everything that must fail
version_added: 0.1.0
description:
  - Tries to get at other workspaces and credentials, the gateway's state and token, the container engine, the metadata
    address, the machine's ports, other sandboxes, private addresses, IPv6, DNS servers and whatever the proxy could lead
    to; to write outside the workspace; to use up processes, memory and disk; to execute something else than the command;
    to follow a link out of the workspace; and to print the key.
  - Each by three ways, so that no control hides that another is missing. By C(tool) a turn of the agent calls the tool. By
    C(line) the container executes what OpenClaw would make of a call of exec, past what refuses the call. By C(shell) it
    executes a program, past what refuses the line.
  - Everything is tried before anything is judged. What got through is told by canaries and keys that came back, files that
    appeared and connections that were made, never by what a model says. What a model did not try is not counted as refused,
    and where nothing is there to be reached that is said too.
  - Behind exec there is nothing that keeps the key from being printed, because the command runs as the sandbox's user
    and has to read it. That is reported as not applicable.
  - Every attempt is bounded by itself. It is tried in the sandbox that the coach's agent uses, so her turns may be slow or
    short of processes and memory for some seconds. Each run leaves one session in the agent's history and nothing else.
  - To be run as root on the gateway's machine.
author: claw.fleet contributors (@claw-fleet)
extends_documentation_fragment:
  - claw.fleet.attributes
  - claw.fleet.gateway
attributes:
  check_mode:
    support: partial
    details:
      - Nothing is tried, which is said in a warning.
  diff_mode:
    support: N/A
    details:
      - What is made for the audit is taken away by it.
  idempotent:
    support: full
options:
  agents:
    description:
      - In whose sandboxes; of all agents that the gateway serves if it is empty.
      - With two or more each has the other's sandbox to be kept from.
    type: list
    elements: str
    default: []
  only:
    description: The kinds of attempts, of all if it is empty. See the return value for their names.
    type: list
    elements: str
    default: []
  layers:
    description: The ways by which something is tried.
    type: list
    elements: str
    choices: [tool, line, shell, engine, proxy]
    default: [tool, line, shell, engine, proxy]
  command:
    description: The one command that exec may execute.
    type: str
    default: journeyloop
  metadata:
    description: Where clouds have their metadata services, as HOST:PORT.
    type: list
    elements: str
    default: ['169.254.169.254:80', '[fd00:ec2::254]:80']
  private_hosts:
    description:
      - What listens in private networks of yours and no sandbox may reach, as HOST:PORT. Nothing that the way out was given
        as allowed.
    type: list
    elements: str
    default: []
  dns_servers:
    description: DNS servers, by address. Those of the machine if it is empty.
    type: list
    elements: str
    default: []
  proxy_port:
    description: The port of the proxy that is the sandboxes' way out.
    type: int
    default: 3128
  timeout:
    description: Seconds that a turn may take.
    type: int
    default: 120
  fail:
    description: Whether the module fails where something got through. The result is the same.
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: Nothing gets out of two coaches' sandboxes
  claw.fleet.isolation_audit:
    gateway: gw-a
    agents: [coach-anna, coach-clara]
    private_hosts: ['10.0.0.5:5432']
"""

RETURN = r"""
attempts:
  description: Each attempt.
  returned: always
  type: list
  elements: dict
  contains:
    agent:
      description: In whose sandbox.
      type: str
    name:
      description:
        - What was tried. One of V(other-workspaces), V(other-credentials), V(gateway-state), V(docker-socket),
          V(metadata), V(machine-ports), V(other-sandboxes), V(private-ranges), V(ipv6), V(dns), V(proxy),
          V(write-outside), V(fork-bomb), V(memory-hog), V(disk-hog), V(scratch-hog), V(privileges), V(processes),
          V(other-program), V(metacharacters), V(exec-parameters), V(other-tools), V(link-out), V(print-key),
          V(network-settings).
      type: str
    layer:
      description:
        - By which way. Beside V(tool), V(line) and V(shell) there is V(engine), the engine's account of the network, since
          the kernel's rules hide whether it holds; and V(proxy), what the proxy's user itself could reach.
      type: str
    control:
      description: What has to hold.
      type: str
    tried:
      description: What was called or executed.
      type: str
    outcome:
      description:
        - V(refused); V(through); V(not tried), where a model did not do it or nothing could be executed; V(unproven), where
          nobody answers the machine itself either; V(not applicable), where there is no control.
      type: str
    detail:
      description: What was said, or got at; without secrets.
      type: str
  sample: []
counts:
  description: How many attempts came to each outcome.
  returned: always
  type: dict
  sample: {refused: 204, through: 0, not_tried: 0, unproven: 1, not_applicable: 2}
table:
  description: The attempts for people, in lines.
  returned: always
  type: list
  elements: str
through:
  description: What got through, each in a sentence that names what should have held.
  returned: always
  type: list
  elements: str
  sample: []
unknown:
  description:
    - What could not be tried although it needs no model, and agents none of whose tools was called, each in a sentence.
    - That a model would not make one call among others is told in RV(attempts) alone.
  returned: always
  type: list
  elements: str
  sample: []
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.claw.fleet.plugins.module_utils import _audit, _durable
from ansible_collections.claw.fleet.plugins.module_utils._audit_run import AuditError, audit
from ansible_collections.claw.fleet.plugins.module_utils._audit_scene import Given, target
from ansible_collections.claw.fleet.plugins.module_utils._containers import ContainersError
from ansible_collections.claw.fleet.plugins.module_utils._gateway import (
    DEFAULT_CONFIG_ROOT,
    Gateway,
    GatewayError,
)

LAYERS = ["tool", "line", "shell", "engine", "proxy"]
ARGUMENT_SPEC: dict[str, Any] = {
    "gateway": {"type": "str", "required": True},
    "config_root": {"type": "path", "default": DEFAULT_CONFIG_ROOT},
    "agents": {"type": "list", "elements": "str", "default": []},
    "only": {"type": "list", "elements": "str", "default": []},
    "layers": {"type": "list", "elements": "str", "choices": LAYERS, "default": LAYERS},
    "command": {"type": "str", "default": "journeyloop"},
    "metadata": {
        "type": "list",
        "elements": "str",
        "default": ["169.254.169.254:80", "[fd00:ec2::254]:80"],
    },
    "private_hosts": {"type": "list", "elements": "str", "default": []},
    "dns_servers": {"type": "list", "elements": "str", "default": []},
    "proxy_port": {"type": "int", "default": 3128},
    "timeout": {"type": "int", "default": 120},
    "fail": {"type": "bool", "default": True},
}


def run(params: dict[str, Any]) -> list[_audit.Result]:
    """Try what is asked for. Raises ValueError for what cannot be meant."""
    if unknown := sorted(set(params["only"]) - set(_audit.NAMES)):
        raise ValueError(f"only has {', '.join(unknown)}; there are {', '.join(_audit.NAMES)}")
    given = Given(
        command=params["command"],
        metadata=[target(text) for text in params["metadata"]],
        private=[target(text) for text in params["private_hosts"]],
        dns=params["dns_servers"],
        proxy_port=params["proxy_port"],
    )
    gateway = Gateway.load(params["gateway"], params["config_root"])

    def wanted(name: str, layer: str) -> bool:
        return layer in params["layers"] and (not params["only"] or name in params["only"])

    return audit(gateway, params["config_root"], params["agents"], given, wanted, params["timeout"])


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    results: list[_audit.Result] = []
    if module.check_mode:
        module.warn("In check mode nothing is tried, so this says nothing of the sandboxes. Run it without.")
    else:
        try:
            results = run(module.params)
        except (AuditError, ContainersError, GatewayError, _durable.DurableError, ValueError) as error:
            module.fail_json(msg=str(error))
    through, unknown = _audit.sentences(results), _audit.unknown(results)
    counts = _audit.counted(results)
    if counts["not_tried"]:
        module.warn(
            f"{counts['not_tried']} attempts were not tried, and are not known to be refused: look at the table for why."
        )
    told: dict[str, Any] = {
        "changed": False,
        "attempts": [result._asdict() for result in results],
        "counts": counts,
        "table": _audit.table(results),
        "through": through,
        "unknown": unknown,
    }
    if (through or unknown) and module.params["fail"]:
        said = " | ".join([*through, *unknown])
        module.fail_json(
            msg=f"{len(through)} attempts got through, {len(unknown)} are not known. {said}", **told
        )
    module.exit_json(**told)


if __name__ == "__main__":
    main()
