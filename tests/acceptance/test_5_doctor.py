"""The doctor: each fault is made on the machine, is found by exactly its code, and is gone once it was mended.

What `--tags fix` mends it mends here; everything else is undone as its page says, or by taking away what was done. Those of
tunnels are made in the Molecule scenario tunnel, and a gateway that the app does not know in test_5_gateway_alone.py. Three are
made by a stand-in on the machine itself: the words of a stuck gateway are put into its journal, the clock is wrong for the
doctor's process alone, and the reconciler's units are empty. Three are what the play is given: a port where no SSH answers, a
gateway that is not there, and a token of nobody's.
"""

from __future__ import annotations

import json
import os
import shlex
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.claw.fleet.plugins.module_utils._seal import sealed

from .fleet import INVENTORY, Fleet, Play, until
from .sandboxes import CLIENTS, SITE, Sandboxes, executing
from .test_5_bad_machine import another_clock, full
from .test_5_rotation import refuse, sha256

GATEWAY, COACH = "gw-a", "coach-anna"
CONFIG, STATE = f"/etc/claw/{GATEWAY}", f"/var/lib/claw/{GATEWAY}"
UNIT = f"openclaw-gateway@{GATEWAY}.service"
DROP_IN = f"/etc/systemd/system/{UNIT}.d"
CREDENTIALS = f"{STATE}/credentials/{COACH}/.credentials.json"
STORE = f"{STATE}/agents/{COACH}/agent/openclaw-agent.sqlite"
MAIN_STORE = f"{STATE}/state/openclaw.sqlite"
LONG = "slow:200"
FIREWALL = "/etc/claw-machine"
GUARD = "/opt/claw/guard/*/index.mjs"
ASIDE = "/root/doctor"
SET = "import json, sys; path, name, value = sys.argv[1:]; config = json.load(open(path)); *names, last = name.split('.'); inner = config\nfor key in names: inner = inner[key]\ninner.pop(last, None) if value == 'null' else inner.update({last: json.loads(value)}); open(path, 'w').write(json.dumps(config, indent=2))"
NAMES = """
import socket, struct, sys, threading
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.77", 53))
while True:
    question, asker = server.recvfrom(4096)
    end = question.index(b"\\0", 12)
    kind = struct.unpack(">H", question[end + 1:end + 3])[0]
    known = sys.argv[1] != "unknown" and kind == 1
    head = question[:2] + (b"\\x81\\x80" if sys.argv[1] != "unknown" else b"\\x81\\x83")
    answer = head + b"\\0\\1" + (b"\\0\\1" if known else b"\\0\\0") + b"\\0\\0\\0\\0" + question[12:end + 5]
    if known:
        answer += b"\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\1\\0\\4\\x7f\\0\\0\\1"
    if sys.argv[1] == "deaf" and kind != 1:
        continue
    threading.Timer(3 if sys.argv[1] == "slow" else 0, server.sendto, (answer, asker)).start()
"""

# The one that systemd knows has started the gateway itself.
PROCESSES = f"$(systemctl show -P MainPID {UNIT}) $(pgrep -P $(systemctl show -P MainPID {UNIT}))"


@dataclass(frozen=True)
class Fault:
    """How it is made, and how it is undone where the doctor does not mend it; ``extra``, ``hostvars``: what the plays are given."""

    make: Callable[[Fleet], Any] | str
    undo: Callable[[Fleet], Any] | str | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    hostvars: dict[str, Any] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    among: tuple[Path, ...] = (INVENTORY,)
    """Where the doctor finds the hosts."""
    before: str = ""
    """What the mending needs that nobody else would do."""

    def do(self, what: Callable[[Fleet], Any] | str | None, fleet: Fleet) -> None:
        if isinstance(what, str):
            fleet.sh(what)
        elif what:
            what(fleet)


def config(name: str, value: str) -> str:
    """A shell line that sets something in the gateway's config, in place."""
    return f"python3 -c {shlex.quote(SET)} {STATE}/openclaw.json {name} {shlex.quote(value)}"


def stopped(line: str) -> str:
    """Done while the gateway is stopped, which is started then; whatever comes of it."""
    return f"systemctl stop {UNIT} && {line} && systemctl start {UNIT}"


def kept(path: str) -> str:
    """Have a copy of it."""
    return f"mkdir -p {ASIDE} && cp -p {path} {ASIDE}/kept"


def back(path: str) -> str:
    return f"cp -p {ASIDE}/kept {path}"


def django(statement: str) -> Callable[[Fleet], Any]:
    """Change the coach's row past everybody."""
    return lambda fleet: fleet.orm(f"CompanionProfile.objects.filter(agent_id={COACH!r}).update({statement})")


def registered(**values: Any) -> Callable[[Fleet], Any]:
    """Tell Django something of the gateway."""

    def tell(fleet: Fleet) -> None:
        with fleet.api() as api:
            api.put(f"/internal/gateways/{GATEWAY}/", json=values).raise_for_status()

    return tell


def ends_with_78(fleet: Fleet) -> None:
    """Have the gateway refuse its config, which stays so until it is mended."""
    fleet.sh(
        f"systemctl stop {UNIT} && {kept(f'{STATE}/openclaw.json')} && {config('colour', json.dumps('red'))}"
    )
    fleet.sh(f"systemctl start {UNIT}")
    until("the gateway to end", lambda: active(fleet) == "failed")


def ends_with_78_for_a_while(fleet: Fleet) -> None:
    ends_with_78(fleet)
    fleet.sh(back(f"{STATE}/openclaw.json"))


def without_entry(fleet: Fleet) -> None:
    """Have a roster without the coach, which the gateway serves."""
    drop = "import json, sys; path = sys.argv[1]; found = json.load(open(path)); found.pop(sys.argv[2]); open(path + '.new', 'w').write(json.dumps(found))"
    fleet.sh(
        f"cd {CONFIG} && cp -p agents.json agents.json.new && python3 -c {shlex.quote(drop)} {CONFIG}/agents.json {COACH}"
    )
    fleet.sh(f"mv {CONFIG}/agents.json.new {CONFIG}/agents.json")

    def served() -> bool:
        told = fleet.config(GATEWAY)
        applied = told["configRevisionHash"] == told["appliedConfigHash"]
        return applied and COACH not in told["sourceConfig"]["agents"]["entries"]

    until("the gateway to serve it", served)


def lost_sight(fleet: Fleet) -> None:
    """Have a gateway that serves the roster without the coach, and does not notice that she is in it again.

    A roster that is as it was when the gateway comes to read it is the last one that it looks at; what it says of its files
    is of what they hold, and that it applied others.
    """
    fleet.sh(kept(f"{CONFIG}/agents.json"))
    without_entry(fleet)

    def unnoticed() -> bool:
        # It reads a file within a second or two; that it will not is told by nothing but time.
        her, without = f"cp -p {ASIDE}/kept again && mv again agents.json", "mv same agents.json"
        fleet.sh(
            f"cd {CONFIG} && cp -p agents.json same && {her} && {without} && sleep 3 && {her} && sleep 8"
        )
        told = fleet.config(GATEWAY)
        if told["configRevisionHash"] != told["appliedConfigHash"]:
            return True
        without_entry(fleet)
        return False

    until("the gateway to lose sight of its roster", unnoticed, 240)


def killed_again_and_again(fleet: Fleet) -> None:
    for _time in range(3):
        pid = fleet.pid(GATEWAY)
        fleet.sh(f"kill -KILL {pid}")
        until("another process", lambda pid=pid: fleet.pid(GATEWAY) not in ("0", pid))  # type: ignore[misc]


def active(fleet: Fleet) -> str:
    return fleet.sh(f"systemctl show -P ActiveState {UNIT}").strip()


def told_to_end_in_a_turn(fleet: Fleet) -> None:
    """Have a gateway that is to stop, and lets a long turn end first."""
    before = fleet.heard_until_now()
    threading.Thread(target=lambda: fleet.turn(GATEWAY, COACH, LONG), daemon=True).start()
    until("the turn to reach the provider", lambda: fleet.heard(LONG, after=before))
    fleet.sh(f"systemctl stop --no-block {UNIT}")
    until("the gateway to let it end", lambda: active(fleet) == "deactivating")


def ended_and_started(fleet: Fleet) -> None:
    until("the gateway to have ended", lambda: active(fleet) == "inactive", 345)
    fleet.sh(f"systemctl start {UNIT}")


def refused_by_the_provider(fleet: Fleet) -> None:
    """Have the provider refuse the key, and somebody who asks all the same."""
    provider = json.loads((fleet.state / "providers.json").read_text())["gateway_providers"]["stand-in"]
    refuse(fleet, sha256(provider["api_key"]))
    assert "401" in fleet.turn(GATEWAY, COACH, "are you there?").body


def taken_by_the_provider(fleet: Fleet) -> None:
    """Have it take the key again, which for the fleet is a new one."""
    refuse(fleet)
    fleet.sh(f"touch {STATE}/provider-stand-in.key")


def job(fleet: Fleet) -> str:
    """A job of the coach's that the provider will refuse; its id."""
    told = fleet.call(
        GATEWAY, "cron.add", name="evening", agentId=COACH, schedule={"kind": "every", "everyMs": 5000},
        sessionTarget="isolated", wakeMode="now", delivery={"mode": "none"},
        payload={"kind": "agentTurn", "message": "status:400"},
    )  # fmt: skip
    assert told["ok"], told
    return str(told["payload"]["id"])


def job_that_fails(fleet: Fleet) -> None:
    job(fleet)
    until("the job to fail", lambda: evening(fleet)["state"].get("lastRunStatus") == "error", 240)


def job_that_failed_ten_times(fleet: Fleet) -> None:
    """Nine of them are told to OpenClaw, which has a job wait ever longer for its next failure."""
    told = fleet.call(GATEWAY, "cron.update", id=job(fleet), patch={"state": {"consecutiveErrors": 9}})
    assert told["ok"], told
    until("OpenClaw to disable the job", lambda: not evening(fleet)["enabled"], 240)


def evening(fleet: Fleet) -> dict[str, Any]:
    """The job, as the gateway has it."""
    (known,) = evenings(fleet)
    return known


def evenings(fleet: Fleet) -> list[dict[str, Any]]:
    found = fleet.call(GATEWAY, "cron.list", includeDisabled=True)["payload"]["jobs"]
    return [dict(one) for one in found if one["name"] == "evening"]


def without_jobs(fleet: Fleet) -> None:
    for one in evenings(fleet):
        assert fleet.call(GATEWAY, "cron.remove", id=one["id"])["ok"]


def nameserver(mode: str) -> Fault:
    """A DNS server with this way of answering, for the machine."""
    serve = f"systemd-run --quiet --collect --unit=names python3 -c {shlex.quote(NAMES)} {mode}"
    return Fault(
        f"{kept('/etc/resolv.conf')} && {serve} && printf 'nameserver 127.0.0.77\\n' >/etc/resolv.conf",
        f"cat {ASIDE}/kept >/etc/resolv.conf; systemctl stop names",
        extra={"doctor_dns_hosts": ["app.example"]},
    )


TIMER = sealed("[Timer]\nOnActiveSec=1d\n[Install]\nWantedBy=timers.target\n")
SERVICE = sealed('[Service]\nType=oneshot\nExecStart=/bin/sh -c "echo the app does not answer; exit 1"\n')
RECONCILER = (
    f"printf %s {shlex.quote(TIMER)} >/etc/systemd/system/claw-reconciler.timer; "
    f"printf %s {shlex.quote(SERVICE)} >/etc/systemd/system/claw-reconciler.service; "
    "systemctl daemon-reload; systemctl enable claw-reconciler.timer; "
)
NO_RECONCILER = (
    "systemctl disable --now claw-reconciler.timer; rm -f /etc/systemd/system/claw-reconciler.*; systemctl daemon-reload; "
    "systemctl reset-failed"
)
EXTRA = "/etc/systemd/system/claw-extra.service"
GREEDY = (
    f'place="$(systemctl show -P ControlGroup {UNIT})"; group="/sys/fs/cgroup/memory$place"; '
    'test -d "$group" || group="/sys/fs/cgroup$place"; export group; '
    '! sh -c \'echo $$ >"$group/cgroup.procs" && echo 1000 >/proc/$$/oom_score_adj && '
    'exec python3 -c "kept = [bytearray(10**8) for _ in range(100)]"\''
)
"""A process among the gateway's that takes more than all of them may have: the kernel ends it."""
SQUATTER = "systemd-run --quiet --collect --unit=squatter --property=User=nobody python3 -m http.server 18789 --bind 127.0.0.1"

AWAY = f"systemctl stop {UNIT} && mount -t tmpfs tmpfs {STATE}"
MOUNTED = f"umount {STATE} && systemctl start {UNIT}"
"""What a gateway knows is out of sight, and there again."""

LOCAL = {"baseUrl": "http://localhost:18099/v1", "api": "openai-completions", "models": []}
"""A provider of models that runs on the machine itself."""

FAULTS: dict[str, Fault] = {
    # Which the doctor mends
    "gateway-down": Fault(f"systemctl stop {UNIT}"),
    "gateway-start-timed-out": Fault(ends_with_78_for_a_while),
    "wrong-config-path": Fault(
        f"cp -p {STATE}/openclaw.json {STATE}/other.json && "
        f"sed -i 's,CONFIG_PATH=.*,CONFIG_PATH={STATE}/other.json,' {DROP_IN}/gateway.conf && systemctl daemon-reload && "
        f"systemctl restart {UNIT}"
    ),
    "endpoint-off": Fault(stopped(config("gateway.http.endpoints.responses.enabled", "false"))),
    "endpoint-off: of chat": Fault(
        stopped(config("gateway.http.endpoints.chatCompletions.enabled", "false"))
    ),
    "config-drifted": Fault(config("tools.loopDetection.enabled", "false")),
    "unit-drifted": Fault(f"sed -i 's,MemoryMax=.*,MemoryMax=9G,' {DROP_IN}/gateway.conf && systemctl daemon-reload"),
    "unit-disabled": Fault(f"systemctl disable {UNIT}"),
    "token-mismatch": Fault(registered(token="5a" * 24)),
    "url-stale": Fault(registered(url="https://gone.example.com/gw-a")),
    "secret-missing": Fault(f"rm {STATE}/provider-*.key"),
    "wrong-owner": Fault(f"chmod 0755 {STATE}"),
    "file-missing": Fault(f"rm {STATE}/workspaces/{COACH}/AGENTS.md"),
    "file-missing: all of them": Fault(f"rm {STATE}/workspaces/{COACH}/*.md"),
    "agent-without-workspace": Fault(f"rm -rf {STATE}/workspaces/{COACH}"),
    "agent-without-workspace: agentDir": Fault(f"rm -rf {STATE}/agents/{COACH}/agent"),
    "coach-without-agent": Fault(without_entry),
    "agent-not-served": Fault(lost_sight),
    "coach-waiting": Fault(django("generation=99")),
    "key-missing": Fault(f"rm {CREDENTIALS}"),
    "key-mismatch": Fault(django("key_sha256='0' * 64")),
    "api-url-stale": Fault(f"sed -i 's,http://,http://gone.,' {CREDENTIALS}"),
    "proxy-down": Fault("systemctl stop claw-proxy"),
    "proxy-drifted": Fault(f"echo '# mine' >>/etc/claw-proxy/gateways.d/{GATEWAY}.conf"),
    "proxy-leads-nowhere": Fault(
        'nft "table inet doctor { chain output { type filter hook output priority 0; meta skuid '
        "$(stat -c %u /proc/$(systemctl show -P MainPID claw-proxy)) tcp dport 18789 reject; }; }\"",
        before="nft delete table inet doctor",
    ),
    "firewall-missing": Fault("nft delete table inet claw_machine"),
    "openclaw-missing": Fault(f"mkdir -p {ASIDE} && mv /opt/claw/openclaw {ASIDE}/"),
    "endpoint-open": Fault(stopped(config("gateway.auth.mode", json.dumps("none")))),
    "timer-failed": Fault(f"{RECONCILER} systemctl stop claw-reconciler.timer"),
    "unit-failed": Fault(
        f"printf '[Service]\\nType=oneshot\\nRemainAfterExit=yes\\nExecStart=/usr/bin/test -e {EXTRA}.ok\\n' >{EXTRA}; "
        "systemctl daemon-reload; ! systemctl start claw-extra",
        before=f"touch {EXTRA}.ok",
    ),
    # Which it leaves to people
    "machine-unreachable": Fault("true", "true", arguments=("-e", "ansible_port=1")),
    "machine-refuses": Fault(
        f"{kept('/etc/sudoers.d/operator')} && sed -i 's/NOPASSWD: *//' /etc/sudoers.d/operator", back("/etc/sudoers.d/operator")
    ),
    "check-failed": Fault(
        "mv /usr/bin/journalctl /usr/bin/journalctl.away", "mv /usr/bin/journalctl.away /usr/bin/journalctl"
    ),
    "link-in-the-way": Fault(
        f"mv {STATE}/credentials/{COACH} {STATE}/aside && ln -s ../aside {STATE}/credentials/{COACH}",
        f"rm {STATE}/credentials/{COACH} && mv {STATE}/aside {STATE}/credentials/{COACH}",
    ),
    # Not the workspaces, which sandboxes that run have from the disk below.
    "disk-full": Fault(*full(f"{STATE}/credentials")),
    "inodes-full": Fault(
        "mkdir -p /run/few && mount -t tmpfs -o nr_inodes=4 tmpfs /run/few && touch /run/few/1 /run/few/2 /run/few/3 && "
        "mount --bind /run/few /var/log",
        "umount /var/log && umount /run/few",
    ),
    "clock-wrong": Fault(another_clock(ASIDE, 600), f"rm {ASIDE}/python", hostvars={"ansible_python_interpreter": f"{ASIDE}/python"}),
    "dns-fails": nameserver("unknown"),
    "dns-slow": nameserver("slow"),
    "dns-drops-ipv6": nameserver("deaf"),
    "localhost-is-ipv6": Fault(
        f"{kept('/etc/hosts')} && echo '::1 localhost' >/etc/hosts", f"cat {ASIDE}/kept >/etc/hosts"
    ),
    "localhost-is-ipv6: for who listens elsewhere": Fault(
        "sysctl -q -w net.ipv6.conf.lo.disable_ipv6=0 && "
        "systemd-run --quiet --collect --unit=local python3 -m http.server 18099 --bind 127.0.0.1 && "
        + config("models.providers.local", json.dumps(LOCAL)),
        f"sysctl -q -w net.ipv6.conf.lo.disable_ipv6=1; systemctl stop local; {config('models.providers.local', 'null')}",
    ),
    "reconciler-failed": Fault(
        f"{RECONCILER} systemctl start claw-reconciler.timer; ! systemctl start claw-reconciler.service", NO_RECONCILER
    ),
    "firewall-missing: nothing was ever proven": Fault(
        f"mkdir -p {ASIDE} && mv {FIREWALL}/firewall.nft {ASIDE}/ && nft delete table inet claw_machine",
        f"mv {ASIDE}/firewall.nft {FIREWALL}/ && systemctl reload claw-firewall",
    ),
    "firewall-unproven": Fault(
        f"{kept(f'{FIREWALL}/firewall.wanted.nft')} && echo '# mine' >>{FIREWALL}/firewall.wanted.nft",
        back(f"{FIREWALL}/firewall.wanted.nft"),
    ),
    "gateway-missing": Fault("true", "true", extra={"doctor_gateway": "gw-x"}),
    "state-missing": Fault(AWAY, MOUNTED),
    "gateway-refused-config": Fault(ends_with_78, f"{back(f'{STATE}/openclaw.json')} && systemctl start {UNIT}"),
    "config-broken": Fault(
        f"{kept(f'{STATE}/openclaw.json')} && echo '}}' >>{STATE}/openclaw.json", back(f"{STATE}/openclaw.json")
    ),
    "files-refused": Fault(
        f"{kept(f'{STATE}/openclaw.json')} && {config('colour', json.dumps('red'))} && sleep 5", back(f"{STATE}/openclaw.json")
    ),
    "gateway-not-ready": Fault(
        f"kill -STOP {PROCESSES}",
        f"kill -CONT {PROCESSES}",
        extra={"doctor_ready_timeout": 8},
    ),
    "gateway-ending": Fault(told_to_end_in_a_turn, ended_and_started, extra={"doctor_ready_timeout": 8}),
    "gateway-crash-loop": Fault(killed_again_and_again, f"systemctl restart {UNIT}"),
    "gateway-stuck": Fault(
        f"printf 'MESSAGE=another OpenClaw process owns state-lifecycle\\nOBJECT_SYSTEMD_UNIT={UNIT}\\n' | logger --journald",
        f"systemctl restart {UNIT}",
    ),
    "gateway-out-of-memory": Fault(GREEDY, f"systemctl restart {UNIT}"),
    "provider-refuses-key": Fault(refused_by_the_provider, taken_by_the_provider),
    "job-failing": Fault(job_that_fails, without_jobs),
    "job-given-up": Fault(job_that_failed_ten_times, without_jobs),
    "jobs-off": Fault(stopped(config("cron", json.dumps({"enabled": False}))), stopped(config("cron", "null"))),
    "port-taken: of the proxy": Fault(
        f"systemctl stop claw-proxy && {SQUATTER.replace('18789', '8080')} && sleep 2 && "
        "{ systemctl start claw-proxy || true; }",
        "systemctl stop squatter; systemctl reset-failed claw-proxy; systemctl start claw-proxy",
    ),
    "port-taken": Fault(
        f"systemctl stop {UNIT} && {SQUATTER} && sleep 2 && systemctl start {UNIT}",
        f"systemctl stop squatter && systemctl restart {UNIT}",
    ),
    "unit-overridden": Fault(
        f"printf '[Service]\\nNice=5\\n' >{DROP_IN}/override.conf && systemctl daemon-reload",
        f"rm {DROP_IN}/override.conf && systemctl daemon-reload",
    ),
    "token-not-taken": Fault(
        f"{kept(f'{STATE}/token')} && chmod 0600 {STATE}/token && printf {'7b' * 24} >{STATE}/token && chmod 0400 {STATE}/token",
        back(f"{STATE}/token"),
    ),
    # Without a list of coaches, which would stop Ansible first.
    "app-unreachable": Fault(
        lambda fleet: fleet.coach_list.down(),
        lambda fleet: fleet.coach_list.up(fleet.bench.facts()["network_gateway"]),
        among=(INVENTORY / "hosts.yml",),
    ),
    "service-token-refused": Fault("true", "true", extra={"doctor_api_token": "nobody's"}),
    "roster-broken": Fault(
        f"{kept(f'{CONFIG}/agents.json')} && truncate -s 20 {CONFIG}/agents.json", back(f"{CONFIG}/agents.json")
    ),
    "manifest-broken": Fault(
        f"{kept(f'{CONFIG}/manifest.json')} && truncate -s 20 {CONFIG}/manifest.json", back(f"{CONFIG}/manifest.json")
    ),
    "store-corrupt": Fault(
        stopped(f"{kept(STORE)} && printf 'no database of anybody' | dd of={STORE} conv=notrunc status=none"),
        stopped(back(STORE)),
    ),
    "store-corrupt: the gateway's own": Fault(
        f"systemctl stop {UNIT} && {kept(MAIN_STORE)} && {{ printf 'no database of anybody' | "
        f"dd of={MAIN_STORE} conv=notrunc status=none; systemctl start --no-block {UNIT}; }}",
        f"systemctl stop {UNIT} && {back(MAIN_STORE)} && systemctl start {UNIT}",
    ),
    "key-broken": Fault(f"{kept(CREDENTIALS)} && echo '{{' >{CREDENTIALS}", back(CREDENTIALS)),
    "workspace-without-agent": Fault(
        f"mkdir {STATE}/workspaces/coach-nobody", f"mkdir -p {STATE}/removed && mv {STATE}/workspaces/coach-nobody {STATE}/removed/"
    ),
    "agent-unlisted": Fault(
        django("gateway=None"), django(f"gateway=Gateway.objects.get(name={GATEWAY!r})")
    ),
    "coach-in-error": Fault(
        django("status='error', reason='claim: this gateway is full'"), django("status='active', reason=''")
    ),
    "file-conflict": Fault(
        f"{kept(f'{STATE}/workspaces/{COACH}/AGENTS.md')} && echo mine >>{STATE}/workspaces/{COACH}/AGENTS.md",
        back(f"{STATE}/workspaces/{COACH}/AGENTS.md"),
    ),
}  # fmt: skip

IMAGE = f'$(python3 -c \'import json; print(json.load(open("{CONFIG}/sandbox.json"))["image"])\')'


def used_then_another_image(fleet: Fleet) -> None:
    """Have a sandbox, and then another image by the same name, as a build in between leaves it."""
    sandboxes = Sandboxes(fleet)
    sandboxes.clients(COACH)
    fleet.sh(f"docker commit --pause=false {sandboxes.of(COACH).id} {IMAGE}")


def a_tool_that_does_not_come_back(fleet: Fleet) -> None:
    """Have one that is stopped while it waits for the app, until OpenClaw finds that it takes too long."""
    fleet.sh("systemctl kill --signal=STOP claw-egress")
    try:
        line = executing(CLIENTS)
        threading.Thread(target=lambda: fleet.ask(COACH, line, "in-vain"), daemon=True).start()
        until("her tool to run", lambda: fleet.sh(f"pkill -STOP -f {TOOL} && echo found || true"))
    finally:
        fleet.sh("systemctl kill --signal=CONT claw-egress")
    until("OpenClaw to say that it hangs", lambda: hanging(fleet, 60), 300)


def a_tool_that_goes_on(fleet: Fleet) -> None:
    fleet.sh(f"pkill -CONT -f {TOOL} || true")
    # What OpenClaw has said counts for as long as it would say it again.
    until("OpenClaw to say it no more", lambda: not hanging(fleet, 95), 240)


def hanging(fleet: Fleet, seconds: int) -> bool:
    """Whether OpenClaw has said within so many seconds that a conversation hangs."""
    words = fleet.sh(f"journalctl --unit={UNIT} --since=-{seconds}s --output=cat --no-pager")
    return "stalled session" in words


TOOL = "'[j]ourneyloop clients list'"

# With sandboxes for tools
SANDBOX_FAULTS: dict[str, Fault] = {
    "sandbox-image-missing": Fault(f"docker image rm --force {IMAGE}"),
    "sandbox-stale": Fault(used_then_another_image),
    "session-stalled": Fault(a_tool_that_does_not_come_back, a_tool_that_goes_on),
    "sandbox-watch-down": Fault("systemctl stop claw-sandbox-workspaces"),
    "egress-down": Fault("systemctl stop claw-egress"),
    "unit-outdated": Fault(
        "sleep 1; touch /etc/systemd/system/claw-egress-watch.service && systemctl daemon-reload",
        "systemctl restart claw-egress-watch",
    ),
    "unit-edited": Fault(
        "sed -i 's/MemoryMax=.*/MemoryMax=9G/' /etc/systemd/system/claw-egress-watch.service && systemctl daemon-reload && "
        "systemctl restart claw-egress-watch",
        lambda fleet: fleet.done(SITE, "--limit", GATEWAY),
    ),
    "egress-cut-off": Fault(
        "nft 'add table inet extra; add chain inet extra input { type filter hook input priority 0; }; "
        'add rule inet extra input iifname "clw0" drop\'',
        "nft delete table inet extra",
    ),
    "egress-rules-missing": Fault(
        "systemctl kill --signal=STOP claw-egress-watch && nft delete table inet claw_sandbox",
        before="systemctl kill --signal=CONT claw-egress-watch",
    ),
    "guard-missing": Fault(stopped(f"{kept(GUARD)} && echo 'throw new Error(\"damaged\")' | tee {GUARD}")),
    "sandbox-without-engine: no client": Fault(
        f"mkdir -p {ASIDE} && mv /usr/bin/docker {ASIDE}/", f"mv {ASIDE}/docker /usr/bin/"
    ),
    "sandbox-without-engine: not for the gateway": Fault(
        "chmod 0600 /run/docker.sock", "chmod 0660 /run/docker.sock"
    ),
    "sandbox-without-engine": Fault(
        "systemctl stop docker.socket docker.service",
        "systemctl start docker.socket docker.service",
    ),
}
AT_ONCE = ("proxy-down", "key-missing", "file-missing", "disk-full")
"""Which every run of the tests tries."""
if os.environ.get("CLAW_DEMO_ENGINE") != "none":
    FAULTS |= SANDBOX_FAULTS


def look(
    fleet: Fleet,
    place: Path,
    *arguments: str,
    gateway: str = GATEWAY,
    among: Sequence[Path] = (INVENTORY,),
    hostvars: dict[str, Any] | None = None,
    **extra: Any,
) -> tuple[Play, list[dict[str, Any]]]:
    """The play for a gateway, and its findings as programs read them."""
    report = place / "report.json"
    report.unlink(missing_ok=True)
    # The machine may be as busy as it likes.
    given = {"doctor_report": str(report), "doctor_fail_on": "note", "doctor_ready_timeout": 240, **extra}
    inventory = [*among]
    if hostvars:
        inventory.append(place / "hosts.yml")
        inventory[-1].write_text(json.dumps({"gateways": {"hosts": {gateway: hostvars}}}))
    play = fleet.play(
        "playbooks/fleet-doctor.yml", "--limit", gateway, *arguments, inventory=inventory, **given
    )
    assert report.exists(), play.output
    found: list[dict[str, Any]] = json.loads(report.read_text())["findings"]
    return play, found


def codes(findings: list[dict[str, Any]]) -> list[str]:
    return sorted({finding["code"] for finding in findings})


@pytest.fixture(autouse=True)
def whole(fleet: Fleet) -> Iterator[None]:
    """Nothing of a fault stays behind, also where its test failed."""
    yield
    fleet.sh(
        f"{NO_RECONCILER}; rm -f {EXTRA} {EXTRA}.ok; rm -rf {ASIDE} {STATE}/other.json; systemctl daemon-reload"
    )
    fleet.sh("systemctl stop claw-extra || true; systemctl reset-failed || true")


def test_a_healthy_fleet_has_no_finding(fleet: Fleet, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    files = fleet.files()
    play = fleet.play("playbooks/fleet-doctor.yml", doctor_report=str(report), doctor_fail_on="note")
    assert play.rc == 0, play.output
    assert json.loads(report.read_text()) == {"counts": {"error": 0, "warning": 0, "note": 0}, "findings": []}
    assert "Nothing is wrong." in play.output
    assert fleet.files() == files


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in AT_ONCE else pytest.mark.fire) for name in FAULTS]
)
def test_it_is_named_and_mended(fleet: Fleet, tmp_path: Path, name: str) -> None:
    fault, code = FAULTS[name], name.partition(":")[0]
    mended = False
    # Some faults take them away.
    secrets = fleet.secrets()
    try:
        fault.do(fault.make, fleet)
        files = fleet.files()
        given = {"among": fault.among, "hostvars": fault.hostvars, **fault.extra}
        play, found = look(fleet, tmp_path, *fault.arguments, **given)
        assert codes(found) == [code], play.output
        assert play.rc != 0 and code in play.output
        assert fleet.seen(json.dumps(found) + play.output, secrets) == []
        assert fleet.files() == files, "it changed something"
        safe = bool(found[0]["remedies"])
        assert safe == (fault.undo is None)
        if safe:
            fleet.sh(fault.before or "true")
            play, found = look(fleet, tmp_path, "--tags", "fix", **fault.extra)
            mended = (codes(found), play.rc) == ([], 0)
            assert mended, play.output
            return
        fault.do(fault.undo, fleet)
        mended = True
        play, found = look(fleet, tmp_path)
        assert (codes(found), play.rc) == ([], 0), play.output
    finally:
        # The next one is to find its own fault alone.
        if not mended and fault.undo:
            fault.do(fault.undo, fleet)
        elif not mended:
            look(fleet, tmp_path, "--tags", "fix")


@pytest.mark.fire
def test_what_is_found_is_not_mended_in_check_mode(fleet: Fleet, tmp_path: Path) -> None:
    fleet.sh("systemctl stop claw-proxy")
    play, found = look(fleet, tmp_path, "--tags", "fix", "--check")
    assert codes(found) == ["proxy-down"] and play.rc != 0
    assert fleet.sh("systemctl is-active claw-proxy || true").strip() == "inactive"
    play, found = look(fleet, tmp_path, "--tags", "fix")
    assert (codes(found), play.rc) == ([], 0), play.output


@pytest.mark.fire
def test_nothing_is_made_anew_where_it_is_only_out_of_sight(fleet: Fleet, tmp_path: Path) -> None:
    fleet.sh(AWAY)
    try:
        play, found = look(fleet, tmp_path, "--tags", "fix")
        assert codes(found) == ["state-missing"] and play.rc != 0
        for playbook, words in (
            (SITE, f"knows is not in {STATE}"),
            ("playbooks/rotate-provider-key.yml", f"knows is not in {STATE}"),
            # With somebody to provision the machine is asked for the token first.
            ("playbooks/provision-coach.yml", STATE),
        ):
            play = fleet.play(playbook, "--limit", GATEWAY)
            assert play.rc != 0 and words in " ".join(play.output.split()), play.output
        assert fleet.sh(f"ls -A {STATE}") == ""
    finally:
        fleet.sh(MOUNTED)
    until(
        "the gateway to be ready",
        lambda: fleet.play("playbooks/fleet-doctor.yml", "--limit", GATEWAY).rc == 0,
    )


@pytest.mark.fire
def test_the_exit_follows_the_severity(fleet: Fleet, tmp_path: Path) -> None:
    fleet.sh(f"mkdir {STATE}/workspaces/coach-nobody")
    try:
        for fail_on, bad in (("error", False), ("warning", True), ("never", False)):
            play = fleet.play("playbooks/fleet-doctor.yml", "--limit", GATEWAY, doctor_fail_on=fail_on)
            assert (play.rc != 0) is bad, play.output
            assert "workspace-without-agent" in play.output
    finally:
        fleet.sh(f"rmdir {STATE}/workspaces/coach-nobody")
