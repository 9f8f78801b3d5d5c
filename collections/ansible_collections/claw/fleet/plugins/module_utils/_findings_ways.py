# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The faults of sandboxes, and of the ways in and out.

PRIVATE to claw.fleet: may change at any time.
"""

from __future__ import annotations

from ansible_collections.claw.fleet.plugins.module_utils._findings_code import (
    ERROR,
    PROXY,
    REBUILD,
    RELOAD,
    SANDBOX,
    SITE,
    START,
    START_IT,
    WARNING,
    Code,
)

PROVE = (
    "`ansible-playbook -i inventory/ claw.fleet.site` tries it, and keeps it once a new connection came through it. Where one does not, "
    "its words say what to look at."
)

CODES_OF_WAYS: dict[str, Code] = {
    # Sandboxes
    "sandbox-without-engine": Code(
        ERROR, "Agents have sandboxes, and no engine answers",
        "A turn that needs a tool fails; without the engine's client the process itself ends (`spawn docker ENOENT`).",
        "The engine's socket does not answer, the gateway's user may not reach it, or its client is not on the gateway's PATH.",
        f"`systemctl status docker` (`claw-podman@{{gateway}}`); {SITE} installs what is missing.",
        explains=("sandbox-image-missing", "sandbox-stale", "sandbox-watch-down")),
    "sandbox-image-missing": Code(
        ERROR, "The image of sandboxes is not there",
        "A sandbox that has to be made anew cannot be.",
        "The engine does not know the image that the gateway's descriptor names.",
        f"{REBUILD} builds it, or brings it from where it was built.", (SANDBOX,), ("sandbox-stale",)),
    "sandbox-stale": Code(
        WARNING, "A sandbox is of a former image, limits or workspace",
        "Her command line does not know the app's API of now; in a workspace that was made anew or restored nothing can be executed.",
        "Its image, or the mark of what it was made of, is another than the gateway's descriptor has, or the roster names it; or the "
        "directory that it has for a workspace is not the one that is there.",
        f"{REBUILD} replaces it while its agent is idle.", (SANDBOX,)),
    "sandbox-watch-down": Code(
        WARNING, "Nobody looks at full workspaces", "A sandbox may fill the disk.",
        "The unit claw-sandbox-workspaces is there and does not run.", START_IT, (START,)),
    "egress-down": Code(
        ERROR, "The sandboxes' way out is closed", "Agents do not reach the app.", "A unit of claw-egress is there and does not run.", START_IT, (START,)),
    "egress-cut-off": Code(
        ERROR, "Sandboxes do not reach their proxy", "Agents do not reach the app.",
        "`python3 /opt/claw/egress/way_out.py` asks from the network of sandboxes and is not answered.",
        "Mostly a firewall of the machine's that is not the fleet's drops what comes from `clw0`. Let it through, with the address and "
        "the port of the evidence: `ufw allow in on clw0 to ADDRESS port PORT proto tcp`; or `firewall-cmd --permanent --zone=trusted "
        "--add-interface=clw0` and `firewall-cmd --reload`. What else sandboxes try the fleet's own rules go on to refuse."),
    "egress-rules-missing": Code(
        ERROR, "The kernel does not have the rules on what sandboxes may reach",
        "Sandboxes may reach each other, the machine and private networks.",
        "`/opt/claw/egress/rules check` says so.",
        "`systemctl reload {unit}`; `journalctl -u claw-egress-watch` says who took them away.", (RELOAD,)),
    # The way in
    "firewall-missing": Code(
        ERROR, "The kernel does not have the machine's firewall",
        "What listens on the machine, and what its containers publish, can be reached from outside.",
        "claw-firewall does not run, or `/opt/claw/machine/firewall holds` says that the kernel has not what was proven, or that nothing "
        "ever was: a run of the play was ended, or did not get in, before it kept any.",
        "`systemctl reload-or-restart {unit}` loads what was proven. Mostly somebody ran `nft flush ruleset`, or restarted "
        "`nftables.service`. Where nothing was ever proven, " + PROVE, (RELOAD,)),
    "firewall-unproven": Code(
        WARNING, "What is wanted of the firewall was never proven",
        "The one before is in force: what was to be opened or closed since is not.",
        "`/opt/claw/machine/firewall holds` is content and `check` is not: what the play has written last is not what it has kept, and no "
        "trial is under way.",
        PROVE),
    "proxy-down": Code(
        ERROR, "The proxy does not run", "Nobody reaches the machine's gateways from outside.",
        "claw-proxy is not active.", START_IT, (START,), ("proxy-leads-nowhere",)),
    "proxy-drifted": Code(
        ERROR, "The proxy's files are not as the fleet writes them",
        "The way in may be wider or narrower than it should be.",
        "They differ from what the role proxy would write, or are newer than what the proxy has read.",
        f"{SITE} puts them right.", (PROXY,), ("proxy-leads-nowhere",)),
    "proxy-leads-nowhere": Code(
        ERROR, "The proxy does not lead to the gateway",
        "The app's questions are answered 404 or 502, although the gateway is ready.",
        "The gateway's /healthz does not answer 200 through the proxy.",
        f"{SITE}; `journalctl -u claw-proxy` says why.", (PROXY,)),
    "tunnel-down": Code(
        ERROR, "The tunnel, or its watcher, does not run",
        "Nobody reaches the gateways from outside, or the app is not told where they are.",
        "claw-tunnel or claw-tunnel-watch is there and does not run.", START_IT, (START,), ("url-stale", "tunnel-unregistered")),
    "url-untold": Code(
        ERROR, "The app is not told where the gateway is",
        "It keeps the address that it had, behind which the gateway may be no more.",
        "The tunnel's watcher says so itself, for longer than a change takes.",
        "The evidence says why, and what to do: mostly the way in demands something (`tunnel_access`), or leads to somebody else, "
        "or the app takes this machine's token no more. " + SITE + " makes another token.", explains=("url-stale",)),
    "tunnel-unregistered": Code(
        ERROR, "The tunnel leads nowhere", "Nobody reaches the gateways from outside.",
        "cloudflared has no name or no connection to the edge, as it says itself.",
        "`journalctl -u claw-tunnel` has cloudflared's words. Mostly it is the machine's own way out."),
}  # fmt: skip
