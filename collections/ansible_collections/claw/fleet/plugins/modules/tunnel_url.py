#!/usr/bin/python
# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: tunnel_url
short_description: Tell the app where a gateway is reached through its machine's tunnel
version_added: 0.1.0
description:
  - Asks cloudflared on the machine itself where it leads from, and waits until that is registered at the edge.
  - Proves from outside that this name leads to the machine, by a file of the moment that only its proxy shows, and only
    then that the gateway answers there, by a request with the gateway's token that asks no agent.
  - Then tells the app, with the machine's own token, which is good for nothing else.
  - What the role P(claw.fleet.tunnel#role) runs on the machine does the same by itself, whenever the name changes. A play needs
    this module where it cannot go on before the app knows.
author: claw.fleet contributors (@claw-fleet)
extends_documentation_fragment:
  - claw.fleet.gateway
  - claw.fleet.attributes
attributes:
  check_mode:
    support: full
    details:
      - Says what the app would be told, without the proof from outside.
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  tunnel_dir:
    description: Where the role P(claw.fleet.tunnel#role) has put what it knows.
    type: path
    default: /etc/claw-tunnel
  wait:
    description: How many seconds the tunnel may take to be registered and to lead here.
    type: int
    default: 60
"""

EXAMPLES = r"""
- name: The app knows the way to the gateway
  claw.fleet.tunnel_url:
    gateway: gw-a
"""

RETURN = r"""
url:
  description: The gateway's URL. Empty in check mode where there is no tunnel yet.
  returned: success
  type: str
former_url:
  description: The one that the app knew before.
  returned: success
  type: str
"""

import time
from collections.abc import Callable
from typing import Any, TypeVar

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.claw.fleet.plugins.module_utils._gateway import Gateway, GatewayError
from ansible_collections.claw.fleet.plugins.module_utils._tunnel import (
    App,
    Cloudflared,
    Settings,
    Way,
    secrets_in,
)
from ansible_collections.claw.fleet.plugins.module_utils._tunnel_client import NotYet, TunnelError

_POLL_SECONDS = 1.0
_T = TypeVar("_T")


def bring_home(params: dict[str, Any], check: bool) -> dict[str, Any]:
    """Have the app know where the gateway is, or say what it would be told."""
    name = params["gateway"]
    settings = Settings.load(params["tunnel_dir"])
    if name not in settings.hostnames:
        raise TunnelError(
            f"gateway {name} has no way through the tunnel. Run the role claw.fleet.tunnel for it"
        )
    given = secrets_in(params["tunnel_dir"], lambda of: Gateway.load(of, params["config_root"]).token())
    tunnel, way, app = Cloudflared(settings.metrics), Way(settings, given), App(settings, given)
    deadline = time.monotonic() + (0 if check else params["wait"])

    def told() -> dict[str, Any]:
        # All of it anew at each attempt: while the app was down the tunnel may have got another name.
        hostname = tunnel.hostname(settings.hostnames[name])
        url = f"https://{hostname}/{name}" if check else way.prove(hostname, name)
        known = app.known(name)
        before = str(known.get("url") or "")
        differs = before != url
        if not check and (differs or known.get("probe_error") or not known.get("probed_at")):
            app.tell(name, url)
        return {"changed": differs, "url": url, "former_url": before}

    return _patiently(told, deadline)


def _patiently(attempt: Callable[[], _T], deadline: float) -> _T:
    """Its result; what may pass is tried again until the deadline."""
    while True:
        try:
            return attempt()
        except NotYet:
            if time.monotonic() >= deadline:
                raise
        time.sleep(_POLL_SECONDS)


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "gateway": {"type": "str", "required": True},
            "config_root": {"type": "path", "default": "/etc/claw"},
            "tunnel_dir": {"type": "path", "default": "/etc/claw-tunnel"},
            "wait": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    name = module.params["gateway"]
    try:
        told = bring_home(module.params, module.check_mode)
    except (TunnelError, GatewayError) as error:
        if not module.check_mode:
            module.fail_json(msg=f"The app cannot be told where gateway {name} is: {error}.")
        module.warn(f"Where gateway {name} will be is not known yet: {error}.")
        told = {"changed": True, "url": "", "former_url": ""}
    lines = {
        when: f"{told[url]}\n" if told[url] else ""
        for when, url in (("before", "former_url"), ("after", "url"))
    }
    module.exit_json(
        **told,
        diff={
            **lines,
            "before_header": f"gateway {name} in the app",
            "after_header": f"gateway {name} in the app",
        },
    )


if __name__ == "__main__":
    main()
