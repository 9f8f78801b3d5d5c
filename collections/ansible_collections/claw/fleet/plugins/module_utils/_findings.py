# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every fault that the doctor knows by name: the one source of its table, and of the pages about them.

PRIVATE to claw.fleet: may change at any time.

A code is stable: programs and people search for it. ``{gateway}`` and ``{unit}`` in a fix are filled in.
"""

from __future__ import annotations

from ansible_collections.claw.fleet.plugins.module_utils._findings_code import (
    AWAY,
    COACHES,
    ENABLE,
    ERROR,
    GATEWAY,
    NOTE,
    PROVISION,
    REGISTER,
    RESTART,
    SITE,
    START,
    START_IT,
    WARNING,
    Code,
)
from ansible_collections.claw.fleet.plugins.module_utils._findings_ways import CODES_OF_WAYS

CODES: dict[str, Code] = {
    # The machine
    "machine-unreachable": Code(
        ERROR, "The machine cannot be reached",
        "Ansible does not reach the machine, so nothing is known of what is on it. Coaches may be served all the same.",
        "SSH fails.", "Try `ssh` to it as Ansible does; look at its power, its network and its keys."),
    "machine-refuses": Code(
        ERROR, "The machine does not let the doctor become root",
        "Ansible reaches it, and nothing is known of what is on it. No other play works either.",
        "`sudo` wants another password than it is given, or one at all, or does not let Ansible's user do it.",
        "Give the password (`-K`, or `ansible_become_password`), or the user the right in `/etc/sudoers.d`."),
    "check-failed": Code(
        WARNING, "Something could not be looked at",
        "One of the doctor's looks did not come to an end, so what it would have found is not known. The others did.",
        "It was refused, or something is as no part of the fleet leaves it.",
        "Read the evidence. The doctor has to become root; if it does, this is worth a bug report."),
    "disk-full": Code(
        ERROR, "A disk is nearly full",
        "At 100 % nothing can be written: agents lose what they are told, and a start may fail.",
        "More than 90 % of a file system that the fleet writes to are used, counted as `df` does.",
        "Find what is large (`du -xh --max-depth=3 PLACE | sort -h | tail`). What lies below `/var/lib/claw/*/removed` may be "
        "deleted, former images of sandboxes too (`docker image ls claw-sandbox`). Sessions are the coaches' history."),
    "inodes-full": Code(
        ERROR, "A file system has hardly any inodes left",
        "Without inodes no file can be made, although there is space.",
        "More than 90 % of the inodes of a file system that the fleet writes to are used, counted as `df -i` does.",
        "Find where the files are (`du --inodes -x --max-depth=3 PLACE | sort -n | tail`) and take away what is nobody's."),
    "clock-wrong": Code(
        ERROR, "The machine's clock is wrong",
        "Certificates seem to be expired or not yet good, tokens of limited time are refused, and logs cannot be compared.",
        "It is more than 30 seconds from the controller's, beside what asking takes.",
        "`timedatectl` says whether it follows a time server. If all machines have this, it is the controller's clock."),
    "dns-fails": Code(
        ERROR, "A host's name is not found",
        "Agents, or the gateway, do not reach the app or the provider of models.",
        "The machine looks up the hosts of the gateway's providers (where it leaves by a proxy, that one's), of the coach API and of "
        "`doctor_dns_hosts`; one has no address.",
        "`getent ahosts HOST` and `resolvectl query HOST` on the machine; correct `/etc/resolv.conf`, or the name."),
    "dns-slow": Code(
        WARNING, "Looking up a name takes long",
        "Each connection waits for it first.", "To look up a host takes more than 2 seconds on the machine.",
        "Ask each server of `/etc/resolv.conf` by itself (`dig @SERVER HOST AAAA`); take out what does not answer."),
    "dns-drops-ipv6": Code(
        WARNING, "A DNS server drops questions for IPv6 addresses",
        "Programs that ask for both kinds of addresses, those in Go for example, wait for 5 to 10 seconds each time.",
        "A server of `/etc/resolv.conf` answers a question for A and, within 2 seconds, none for AAAA with EDNS0.",
        "Use another server in `/etc/resolv.conf`; a router that does this needs other firmware.",
        explains=("dns-slow", "dns-fails")),
    "localhost-is-ipv6": Code(
        WARNING, "localhost leads to ::1, where nobody listens",
        "Whoever is told to ask `localhost` asks ::1, and what listens on 127.0.0.1 alone seems to be away.",
        "`localhost` has no address 127.0.0.1 on the machine; or something in the gateway's config or credentials is asked at "
        "`localhost`, ::1 comes first, and only 127.0.0.1 answers there.",
        "Have `127.0.0.1 localhost` in `/etc/hosts`, and write 127.0.0.1 instead of localhost into URLs."),
    "unit-failed": Code(
        WARNING, "A unit of the fleet has failed",
        "Something that belongs to the fleet ended badly and is not started again.",
        "systemd lists a unit `claw-*` as failed that no other code is about.", START_IT, (START,)),
    "timer-failed": Code(
        ERROR, "The reconciler's timer does not run",
        "Nobody provisions by itself: what people click in the app stays undone until a play is run.",
        "`claw-reconciler.timer`, or the path unit beside it, is there and is not active.",
        "`systemctl reset-failed {unit}; systemctl start {unit}`. Somebody may have stopped it for a while on purpose.", (START,)),
    "reconciler-failed": Code(
        WARNING, "The reconciler's last pass failed",
        "A coach is in error, a gateway does not run, or the app does not answer. It tries again by itself.",
        "`claw-reconciler.service` is failed.",
        "`journalctl -u claw-reconciler` says which; the doctor's other findings may be the reason."),
    # The gateway
    "gateway-missing": Code(
        ERROR, "The gateway was never set up on this machine", "The inventory has it, and the machine does not.",
        "There is no `/etc/claw/{gateway}/gateway.json`, or it cannot be read.",
        f"{SITE}; if the gateway has moved, correct `ansible_host`."),
    "state-missing": Code(
        ERROR, "What the gateway knows is not there",
        "Its coaches are not answered. All that its agents remember is out of sight, or lost.",
        "The fleet has put a config into force, and in `/var/lib/claw/{gateway}` is neither that nor the token nor a workspace. Mostly "
        "that is on a volume of its own, which is not mounted.",
        "If it is on a volume of its own, mount that and start {unit}; if it is lost, restore a backup. If there is none, remove "
        f"`/etc/claw/{{gateway}}/config.applied.json` and run {SITE} and {PROVISION}, which make all of it anew. Until then they refuse: "
        "there would be two of each agent's memory.",
        explains=(*AWAY, "gateway-refused-config", "gateway-start-timed-out", "config-drifted", "secret-missing", "wrong-owner",
                  "agent-without-workspace", "key-missing", "sandbox-stale")),
    "openclaw-missing": Code(
        ERROR, "OpenClaw's files are not where the gateway has them",
        "The process that runs goes on; the next one does not start.",
        "Node or OpenClaw's entry, as the gateway's descriptor names them, are not there.",
        f"{SITE} brings the tree of the lock file back.", (GATEWAY,), ("gateway-down", "gateway-crash-loop", "proxy-leads-nowhere")),
    "gateway-down": Code(
        ERROR, "The gateway does not run", "Its coaches are not answered.", "Its unit is inactive or failed, and not by exit 78.",
        START_IT, (START,), ("proxy-leads-nowhere",)),
    "gateway-ending": Code(
        NOTE, "The gateway lets its turns end before it stops or starts anew",
        "Who asked before is answered; who asks now is not.",
        "systemd has told its process to end, and it has not yet: it has 330 seconds for that.",
        "Somebody stops it, or a play starts it anew: look again in some minutes.", explains=AWAY),
    "gateway-refused-config": Code(
        ERROR, "The gateway is down: it refuses its config",
        "OpenClaw ended with 78 and systemd leaves it at that. Starting it again does not help.",
        "The unit is failed with exit 78, and OpenClaw's own validation, on a copy, has something against the files.",
        "The evidence has OpenClaw's words. Take out of `/var/lib/claw/{gateway}/openclaw.json` what is named, or move the file "
        "away, and run " + SITE + ". If it is about the roster: `cp -p /etc/claw/{gateway}/agents.json.previous "
        "/etc/claw/{gateway}/agents.json`, then start {unit}.", explains=(*AWAY, "config-drifted", "endpoint-off")),
    "gateway-start-timed-out": Code(
        ERROR, "The gateway is down by 78, and its config is good",
        "On a machine that was very busy OpenClaw did not start in its own time, or its files were written while it started.",
        "The unit is failed with exit 78, and OpenClaw's own validation has nothing against the files.",
        "`systemctl reset-failed {unit}; systemctl start {unit}`.", (START,), AWAY),
    "gateway-crash-loop": Code(
        ERROR, "The gateway ends again and again", "Its coaches are answered now and then, or not at all.",
        "systemd is about to start it again, or has done so three times and more, the last time within ten minutes.",
        "`journalctl -u {unit}` and `/var/lib/claw/{gateway}/logs/gateway.log` say why it ends.",
        explains=("gateway-down", "gateway-not-ready", "proxy-leads-nowhere")),
    "gateway-not-ready": Code(
        ERROR, "The gateway runs and does not get ready", "It is not answered, or only after a long time.",
        "The process is there, and /readyz does not say 200 for a minute.",
        "It may be starting with many agents, or be very busy: wait, and look again. Then `systemctl restart {unit}`.",
        explains=("proxy-leads-nowhere",)),
    "gateway-stuck": Code(
        ERROR, "The gateway's own lock is left taken",
        "OpenClaw says \"another OpenClaw process owns state-lifecycle\" without another; turns fail, /readyz says that all is well.",
        "The journal of the process that runs has these words within the last hour; about work in the background alone, in three minutes.",
        "`systemctl restart {unit}` at a quiet time: turns that are under way end with it."),
    "gateway-out-of-memory": Code(
        WARNING, "The kernel has ended processes of the gateway for want of memory",
        "What ran in them was lost; it will come again with the same load.",
        "The control group of its unit counts them.", "Raise `gateway_memory_max`, or give the gateway fewer coaches, and run " + SITE + "."),
    "provider-refuses-key": Code(
        ERROR, "A provider of models refuses the gateway's key",
        "No question is answered. The key was revoked or has expired, its account has no credit, or it is another provider's.",
        "The gateway said so within the last hour, and since its key was written.", "Have a key that is good in "
        "`gateway_providers`, and run `ansible-playbook -i inventory/ claw.fleet.rotate_provider_key`.", explains=("job-failing",)),
    "job-failing": Code(
        WARNING, "A scheduled job fails", "What an agent is to do by herself does not happen.",
        "Its last run ended with an error, as the gateway tells.",
        "`openclaw cron runs` as the gateway's user, in the environment of {unit}, has the error. A job of an agent who is gone or "
        "paused is to be removed or disabled."),
    "job-given-up": Code(
        ERROR, "A scheduled job was given up",
        "What an agent is to do by herself does not happen any more: OpenClaw disables a job that has failed ten times in a row, one "
        "for one time that has failed for good, and one of which it cannot work out when it is to run.",
        "The job is disabled, and its last run failed at its one time; or OpenClaw itself has marked it as disabled. One that a person "
        "had disabled before is none of this.",
        "`openclaw cron list --all --json` as the gateway's user, in the environment of {unit}, has the last error, and `openclaw cron "
        "runs` those of its runs. Once that is mended, `openclaw cron enable` has the job run again; one that nobody needs is removed "
        "by `openclaw cron rm`, as to disable it once more leaves it marked."),
    "jobs-off": Code(
        ERROR, "Nothing that is scheduled happens on the gateway",
        "No job and no heartbeat of any of its agents runs.",
        "The running gateway says that its scheduler is off, and the config that the fleet applied last does not say so.",
        f"Take `cron.enabled` out of the config, or `OPENCLAW_SKIP_CRON` out of what {{unit}} is started with (`systemctl cat`), and "
        f"restart the unit at a quiet time. If it is meant to be so, say it in `gateway_config_extra` and run {SITE}."),
    "session-stalled": Code(
        WARNING, "A conversation has not gone on for minutes",
        "Who asked there waits, and so does what is asked there next; her agent's other conversations go on. OpenClaw itself ends a "
        "call that does not come back, mostly after five minutes or more.",
        "Within the last 90 seconds OpenClaw has said of a session that it is stalled or stuck, and has not ended what is in the way. "
        "A tool that takes long, or waits for a person, looks the same.",
        "`journalctl -u {unit} --grep 'stalled session|stuck session'` says on what it waits: with `activeWorkKind=model_call` look at "
        "the provider, with `activeTool=` at what the tool does. If it does not end by itself, `systemctl restart {unit}` at a quiet "
        "time ends it; the question is to be asked again."),
    "port-taken": Code(
        ERROR, "Somebody else has the port", "The gateway, or the proxy, cannot listen there, so it cannot start.",
        "A process of another user listens on it, or another gateway of the machine is set up with it.",
        "`ss -ltnp` says which program. End it, or give another `gateway_port` (`proxy_port`) and run " + SITE + ".",
        explains=(*AWAY, "proxy-down")),
    "wrong-config-path": Code(
        ERROR, "The gateway runs with another config than the fleet's",
        "Nothing the fleet writes takes effect: the endpoints, the token and the agents are those of another file, or defaults.",
        "The environment of the running process names another config, state directory or include root than the descriptor.",
        f"{SITE} puts the unit right; then `systemctl restart {{unit}}`. An extra file in the unit's directory has to be removed.",
        (GATEWAY, RESTART),
        ("unit-drifted", "unit-overridden", "agent-not-served", "token-not-taken", "endpoint-off", "files-refused", "guard-missing")),
    "endpoint-off": Code(
        ERROR, "An endpoint that the app asks is switched off",
        "The app's questions are answered 404 or 405.",
        "`/v1/responses` or `/v1/chat/completions` answers the gateway's token 403, 404 or 405.",
        f"{SITE} puts the config right.", (GATEWAY,), ("config-drifted",)),
    "endpoint-open": Code(
        ERROR, "The gateway answers without a token",
        "Whoever reaches its port speaks with every agent.",
        "An endpoint does not answer 401 to a request without a token.",
        f"{SITE} puts the config right.", (GATEWAY,), ("config-drifted",)),
    "config-drifted": Code(
        ERROR, "The gateway's config is not as the fleet left it",
        "Somebody, or the gateway itself, changed what the fleet had set. What others added is not counted.",
        "A merge of what was applied last into the file would change it.",
        f"{SITE} --check --diff shows it; without --check it is put right. The gateway restarts.", (GATEWAY,), ("files-refused",)),
    "config-broken": Code(
        ERROR, "The gateway's config is no JSON",
        "The process that runs goes on with what it has read; the next one ends with 78.",
        "`openclaw.json` cannot be read as an object.",
        "Mend it; or move it away and run " + SITE + ", which makes it anew. `openclaw.json.last-good` beside it is what worked.",
        explains=(*AWAY, "gateway-refused-config", "files-refused", "config-drifted")),
    "files-refused": Code(
        ERROR, "The gateway would not start again",
        "It runs with what it has read before, and finds the files of now not valid. Its next start ends with 78.",
        "The running gateway says so of its config and roster.",
        "The evidence has its words: mend the file that is named. The roster before the last change is "
        "`/etc/claw/{gateway}/agents.json.previous`."),
    "unit-drifted": Code(
        ERROR, "The gateway's unit is not what it was started with",
        "Limits, paths or hardening are others than the fleet's, or will be after the next start.",
        "The unit's files have another hash than the ones the fleet started the process with, or systemd has not read them.",
        f"{SITE} puts them right; then `systemctl restart {{unit}}`.", (GATEWAY, RESTART)),
    "unit-outdated": Code(
        WARNING, "A unit runs with other files than it has now",
        "What it is allowed and told will be otherwise after its next start, or was to be since its last.",
        "One of its files is newer than its start, or systemd has not read it.",
        f"{SITE} writes what should be there; then `systemctl daemon-reload; systemctl restart {{unit}}`."),
    "unit-edited": Code(
        WARNING, "Somebody changed a unit of the fleet", "Limits, paths or hardening are others than the fleet's.",
        "The last line of one of its files is not the SHA-256 of those above it. Those of the gateway and of the proxy have codes of "
        "their own.",
        "`ansible-playbook -i inventory/ claw.fleet.site` (of the reconciler's units `claw.fleet.reconciler`) with --check --diff shows "
        "what is otherwise. Without them it is put right, and what runs of it is started anew. Files that an earlier version of the "
        "fleet wrote have no such line, and get it so too.",
        explains=("unit-outdated",)),
    "unit-overridden": Code(
        WARNING, "Somebody added to a unit of the fleet", "What stands there counts more than what the fleet wrote.",
        "systemd reads files for the unit that are not the fleet's.",
        "`systemctl cat {unit}` shows them. Remove them, or have them as variables of its role; then restart the unit."),
    "unit-disabled": Code(
        WARNING, "A unit does not come up with the machine", "After the next start of the machine it is away.", "A unit of the fleet that runs is not enabled.",
        "`systemctl enable {unit}`.", (ENABLE,)),
    "token-not-taken": Code(
        ERROR, "The gateway does not take the token that is in its file",
        "The fleet cannot ask it anything. The app can for as long as it has the one before.",
        "It answers 401 to the token of its file, and to the former one.",
        "The file was changed by hand, past `claw.fleet.rotate_gateway_token`. `systemctl restart {unit}` at a quiet time has it read "
        "the file; then " + PROVISION + " tells the app.",
        explains=("token-mismatch", "agent-not-served", "endpoint-off", "endpoint-open", "guard-missing", "files-refused")),
    "token-mismatch": Code(
        ERROR, "The app has another token than the gateway", "The app's questions are answered 401.",
        "The hash of the token's file is neither that of the app's token nor of the one it is about to have.",
        f"{PROVISION} tells the app the token of its one home.", (REGISTER,),
        beside_app=True),
    "gateway-unknown": Code(
        ERROR, "The app does not know the gateway",
        "No coach can be claimed for it, and nobody on it is asked.", "The app answers 404 where its gateways are.",
        f"{PROVISION} registers it.", (REGISTER,),
        beside_app=True),
    "url-stale": Code(
        ERROR, "The app has another address of the gateway",
        "Its questions go where nobody is, or to somebody else.",
        "The app's URL is not `coaches_gateway_url`; with a tunnel, not the name that cloudflared has now.",
        f"{PROVISION} tells the app. With a tunnel: `systemctl status claw-tunnel-watch` says why that did not.", (REGISTER,),
        beside_app=True),
    "app-unreachable": Code(
        ERROR, "The app does not answer the fleet",
        "What is wanted is not known, and nothing can be written back. What depends on it was not looked at.",
        "The app's internal API does not answer the controller, or not as it should.",
        "The evidence says what came back. Look whether the app runs, and at `coaches_api_url`."),
    "service-token-refused": Code(
        ERROR, "The app refuses the fleet's service token", "Nothing can be read or written there.", "The app's internal API answers 401 or 403.",
        "Put a token that is good into `coaches_api_token`; *Service tokens* in the admin lists them."),
    "secret-missing": Code(
        ERROR, "A file of the gateway's secrets is missing",
        "The process that runs has read it; the next one ends with 1, \"required secrets are unavailable\".",
        "A file that its config refers to is not there, or is empty.",
        f"{SITE} writes it from the variables; a token that is lost becomes another one, so then run " + PROVISION + ".",
        (GATEWAY, REGISTER), (*AWAY, "token-not-taken", "token-mismatch")),
    "wrong-owner": Code(
        ERROR, "Something is somebody else's, or too open",
        "The gateway cannot write what is its own, or others can read it.",
        "Owner or mode of a directory or file are not those that the fleet gives it.",
        f"{SITE} puts the gateway's own places right, {PROVISION} its agents'.", (GATEWAY, COACHES),
        ("gateway-down", "gateway-crash-loop", "proxy-leads-nowhere")),
    "link-in-the-way": Code(
        ERROR, "A link lies where the fleet has a file or a directory",
        "The fleet follows no links there, so it neither reads nor writes what is behind it.",
        "One of the gateway's or its agents' places is a symbolic link, has hard links, or is nothing that is read.",
        "Move it away, put the real thing in its place, and look again.", explains=("wrong-owner", "check-failed")),
    "guard-missing": Code(
        ERROR, "The gateway runs without its guard",
        "Nothing but the sandbox itself keeps its agents' tools in bounds, so nobody new is given any.",
        "Its agents have sandboxes, and the plugin claw-fleet-guard is not among those that it has loaded.",
        f"{SITE}; `journalctl -u {{unit}}` says why it was not loaded.", (GATEWAY,)),
    # Its agents
    "roster-broken": Code(
        ERROR, "The roster is gone or cut off",
        "The gateway goes on with the agents it has read. Nothing is provisioned, and its next start ends with 78.",
        "`agents.json` is not there although there was one, or holds no roster.",
        "`cp -p /etc/claw/{gateway}/agents.json.previous /etc/claw/{gateway}/agents.json; systemctl restart {unit}`, then " + PROVISION + ".",
        explains=(*AWAY, "gateway-refused-config", "gateway-start-timed-out", "files-refused", "coach-without-agent",
                  "workspace-without-agent", "agent-not-served")),
    "manifest-broken": Code(
        ERROR, "What the fleet remembers of its agents is cut off",
        "Nothing is provisioned on this gateway.", "`manifest.json` holds no object.",
        "Restore `/etc/claw/{gateway}/manifest.json` from a backup; or remove it: then files that differ from their templates count as "
        "changed by somebody."),
    "store-corrupt": Code(
        ERROR, "A database of OpenClaw's is damaged",
        "An agent has lost what she was told, or the gateway what it keeps of all of them.",
        "A file is no database any more, or SQLite finds the gateway's own (quick_check) or the head of an agent's damaged.",
        "Stop {unit}, restore the file from a backup, start it. Without one move it away: what was in it is lost.",
        explains=(*AWAY, "gateway-start-timed-out", "gateway-refused-config")),
    "agent-without-workspace": Code(
        ERROR, "An agent has no directory",
        "She forgets what she knew, or does not answer.",
        "The roster names a workspace or an agent's directory that is not there.",
        f"Restore it from a backup if there is one; {PROVISION} makes it anew from the templates.", (COACHES,)),
    "workspace-without-agent": Code(
        WARNING, "A directory is nobody's",
        "Somebody's memory or key lies there without use.",
        "Below workspaces, agents or credentials is a directory of an id that neither the roster nor the app's list has.",
        "Look whose it was. `mkdir -p /var/lib/claw/{gateway}/removed` and move it there; what lies there may be deleted.",
        beside_app=True),
    "agent-not-served": Code(
        ERROR, "The gateway does not serve what is in its roster",
        "A coach is answered 400, or by an agent of yesterday.",
        "What the running gateway says that it serves differs from the file.",
        f"{PROVISION} makes the gateway look again, and proves it.", (COACHES,)),
    "agent-unlisted": Code(
        WARNING, "An agent's coach is not in the app's list",
        "She goes on being served, although nobody knows for whom. The fleet never removes anybody for being absent.",
        "The roster has an agent for whom the app lists no coach on this gateway.",
        "If she is to go, set her removed in the app, or run with `coaches_purge`; otherwise mend the list.",
        beside_app=True),
    "coach-without-agent": Code(
        ERROR, "A coach is active in the app, and has no agent",
        "Her questions are answered 400.",
        "The app has her as active on this gateway, and the roster does not have her.",
        f"{PROVISION} gives her the agent again.", (COACHES,),
        beside_app=True),
    "coach-in-error": Code(
        ERROR, "The fleet could not do what is wanted of a coach",
        "She has no agent, or not the one that is wanted. Each run tries again.",
        "Her status in the app is error; the evidence has the reason that stands there.",
        "`row:` correct her data in the app. `claim:` another gateway holds her, or this one is full. `key:`, `agent:`, "
        "`activation:` name what failed on the machine. Then " + PROVISION + "."),
    "coach-waiting": Code(
        NOTE, "Something is wanted of a coach that has not been done yet",
        "Somebody has clicked, and no run has come by since.", "Her row in the app is due.",
        f"{PROVISION}; with the reconciler it happens within two minutes.", (COACHES,)),
    "key-missing": Code(
        ERROR, "A coach's key is not in its place",
        "Her agent cannot ask the app anything.", "The roster has her, and there is no credentials file.",
        f"{PROVISION} makes another key and registers it.", (COACHES,)),
    "key-mismatch": Code(
        ERROR, "The app has the hash of another key",
        "What her agent asks of the app is answered 401.",
        "The hash of the key in her credentials file is not the one in her row.",
        f"{PROVISION} registers the key that is in its one home. If somebody may have put it there, *Rotate key* in the app.", (COACHES,),
        beside_app=True),
    "key-broken": Code(
        ERROR, "A coach's credentials file does not hold her credentials",
        "Her agent cannot ask the app anything.", "The file cannot be read as hers.",
        "Move it away and run " + PROVISION + ", which makes another key."),
    "api-url-stale": Code(
        ERROR, "An agent asks the app at another address",
        "Her command line reaches nobody.", "The URL in her credentials is not `coaches_coach_api_url`.",
        f"{PROVISION} writes it anew.", (COACHES,)),
    "file-missing": Code(
        ERROR, "A file that is the fleet's is gone from a workspace",
        "Her agent does not know what she is to do, or for whom. Where all of them are gone she has lost her soul and her memory too.",
        "AGENTS.md, IDENTITY.md or USER.md is not there, although the fleet has written it.",
        f"Restore her workspace from a backup if more is gone, and there is one. {PROVISION} writes it anew; where none of her files is "
        "left, SOUL.md and MEMORY.md too.", (COACHES,)),
    "file-conflict": Code(
        WARNING, "Somebody changed a file that is the fleet's",
        "It is left as it is, and no longer follows its template.",
        "The hash of AGENTS.md, IDENTITY.md or USER.md is none that the fleet has written.",
        "Move the change into a template, remove the file, and run " + PROVISION + "."),
    **CODES_OF_WAYS,
}  # fmt: skip
