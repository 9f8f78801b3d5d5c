"""What else a machine is given, and what it refuses to begin with."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from clawbench.shell import ROOT, docker, run
from machines import (
    AUTHORITY,
    BENCH,
    MACHINES,
    NEW,
    OLD,
    SCENARIO,
    addresses,
    applied,
    chapter,
    play,
    sh,
    write,
)

WORST_EXPOSURE = 2.0
UNITS = ("claw-firewall.service", "claw-firewall-trial.service")
COLLECTION = ROOT / "collections" / "ansible_collections" / "claw" / "fleet"
LOCK = "/var/lib/dpkg/lock-frontend"


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("machine", MACHINES)
def test_units_are_hardened_and_say_what_they_leave_out(machine: str, unit: str) -> None:
    told = sh(machine, f"systemd-analyze security --no-pager {unit}")
    score = re.search(r"exposure level for \S+: ([0-9.]+)", told)
    assert score and float(score.group(1)) <= WORST_EXPOSURE, told
    reasons = "\n".join(
        line for line in sh(machine, f"systemctl cat {unit}").splitlines() if line.startswith("#")
    )
    for directive in re.findall(r"^✗ (\w+)=.*[0-9.]+$", told, re.MULTILINE):
        assert directive in reasons, f"{directive} is left out without a word"


@pytest.mark.parametrize("machine", MACHINES)
def test_only_security_is_upgraded_and_nothing_restarts_for_it(machine: str) -> None:
    told = sh(machine, "unattended-upgrade --dry-run --verbose 2>&1")
    (origins,) = re.findall(r"Allowed origins are: (.*)", told)
    suite = sh(machine, ". /etc/os-release; echo $VERSION_CODENAME")
    assert origins == f"origin=Debian,codename={suite}-security,label=Debian-Security"
    assert re.search(r"Initial blacklist: \S*docker\S*io", told), told
    settings = sh(
        machine, "apt-config dump Unattended-Upgrade::Automatic-Reboot; apt-config dump APT::Periodic"
    )
    assert 'Automatic-Reboot "false"' in settings and 'Unattended-Upgrade "1"' in settings
    assert sh(machine, "systemctl is-enabled apt-daily.timer apt-daily-upgrade.timer") == "enabled\nenabled"


@pytest.mark.parametrize("machine", MACHINES)
def test_the_journal_has_bounds_and_an_authority_is_trusted(machine: str) -> None:
    settings = sh(machine, "systemd-analyze cat-config systemd/journald.conf")
    assert "\nSystemMaxUse=64M\n" in settings and "\nMaxRetentionSec=30day" in settings
    # It runs with them: who started before would say so of another limit.
    started = sh(machine, "journalctl -u systemd-journald | grep 'System Journal' | tail -1")
    assert re.search(r"max 64(\.0)?M", started), started
    sh(machine, f"python3 -c '{AUTHORITY}'")


@pytest.mark.parametrize("machine", MACHINES)
def test_the_journal_forgets_what_is_older_than_it_may_be(machine: str) -> None:
    """A file of it has in its name when it began: it is there once more as if from before, and once from just within."""
    place = f"/var/log/journal/{sh(machine, 'cat /etc/machine-id')}"
    sh(machine, "journalctl --rotate")
    last = sh(machine, f"ls {place}/system@*.journal | tail -1")
    *_name, began = last.removesuffix(".journal").split("-")
    # Of a series of its own, as journald sorts those of one by other numbers than their times.
    days = {
        age: f"{place}/system@{age:032x}-{1:016x}-{int(began, 16) - age * 86_400_000_000:016x}.journal"
        for age in (29, 31)
    }
    try:
        for other in days.values():
            sh(machine, f"cp --preserve {last} {other}")
        sh(machine, "journalctl --rotate")
        assert set(sh(machine, f"ls {place}").split()) & {Path(path).name for path in days.values()} == {
            Path(days[29]).name
        }
    finally:
        sh(machine, f"rm -f {' '.join(days.values())}")


@contextmanager
def wrong(machine: str, how: str, cure: str) -> Iterator[None]:
    """Something is wrong with a machine."""
    sh(machine, how)
    try:
        yield
    finally:
        sh(machine, cure)


# How, the cure, what the role is given, and the words.
WRONG: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "no default route": (
        "for way in -4 -6; do ip $way route show default > /root/route$way; ip $way route delete default || true; done",
        "for way in -4 -6; do [ ! -s /root/route$way ] || ip $way route replace $(cat /root/route$way); done",
        {},
        "old has no default route, so it reaches neither Django nor packages nor models",
    ),
    "a localhost that is elsewhere": (
        "cp /etc/hosts /root/hosts; printf '127.0.0.2 localhost\\n' > /etc/hosts",
        "cat /root/hosts > /etc/hosts",
        {},
        "On old localhost is 127.0.0.2, and 127.0.0.2 in /etc/hosts.",
    ),
    "a localhost of IPv6 alone": (
        "cp /etc/hosts /root/hosts; printf '::1 localhost\\n' > /etc/hosts",
        "cat /root/hosts > /etc/hosts",
        {},
        "Have the line '127.0.0.1 localhost' in /etc/hosts",
    ),
    "another distribution": (
        "cp -P /etc/os-release /root/os-release; rm /etc/os-release; "
        'printf \'ID=debian\\nNAME=Debian\\nVERSION_ID="11"\\nVERSION="11 (bullseye)"\\n\' > /etc/os-release; '
        "cp /etc/debian_version /root/debian_version; echo 11.9 > /etc/debian_version",
        "rm /etc/os-release; cp -P /root/os-release /etc/os-release; cat /root/debian_version > /etc/debian_version",
        {},
        "old is Debian 11.9. Use a machine with Debian 12 or 13, or with Ubuntu 24.04",
    ),
    "a name that nobody knows": (
        "true",
        "true",
        {"machine_dns_names": ["app.invalid"]},
        "old does not resolve app.invalid: ",
    ),
    "a clock that is wrong": (
        "true",
        "true",
        {"machine_controller_time": 1000000000},
        "s ahead of the controller's; 30 s are let pass",
    ),
    "a full disk": (
        "true",
        "true",
        {"machine_disk_free": 100000000000},
        "inodes free for /etc, and 100000000000 MB and 50000 inodes are wanted",
    ),
    "packages that somebody is at": (
        f'systemd-run -q --unit=holder python3 -c \'import fcntl, time; lock = open("{LOCK}", "w"); '
        "fcntl.lockf(lock, fcntl.LOCK_EX); time.sleep(600)'; sleep 1",
        "systemctl stop holder",
        {"machine_packages": ["nano"], "machine_packages_wait": 1},
        f"time.sleep(600)) holds {LOCK}, and did for 1 s.",
    ),
    "a port that is none": (
        "true",
        "true",
        {"machine_open_ports": [{"port": 70000}]},
        "A port lies between 1 and 65535",
    ),
    "a protocol that is none": (
        "true",
        "true",
        {"machine_open_ports": [{"port": 8443, "protocol": "sctp"}]},
        "value of protocol must be one of: tcp, udp, got: sctp",
    ),
    "an address that is none": (
        "true",
        "true",
        {"machine_open_ports": [{"port": 8443, "from": ["300.1.1.1"]}]},
        "who may come from is an address or a network",
    ),
    "two certificates of one name": (
        "true",
        "true",
        {"machine_ca_certificates": [str(SCENARIO / "authority.crt")] * 2},
        "machine_ca_certificates has more than one that would become claw-authority.crt",
    ),
    "nobody who may come": (
        "true",
        "true",
        {"machine_open_ports": [{"port": 8443}, {"port": 8444, "from": []}]},
        "machine_open_ports opens 8444/tcp and names nobody who may come",
    ),
    "a network that is none": (
        "true",
        "true",
        {"machine_open_ports": [{"port": 8443, "from": ["192.0.2.1", "10.0.0.0/99"]}]},
        "who may come from is an address or a network",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_told_before_anything_is_changed(what: str) -> None:
    how, cure, variables, words = WRONG[what]
    with wrong(OLD, how, cure):
        sh(OLD, "touch /root/before; sleep 0.1")
        came = play(OLD, **variables)
        assert came.rc != 0 and came.changed == 0, came.output
        assert words in came.words, came.output
        places = "/etc /opt /usr /var/lib/dpkg /var/lib/apt /run/claw-firewall"
        assert sh(OLD, f"find {places} -newer /root/before -not -type d") == ""


def test_no_host_takes_over_from_one_that_failed() -> None:
    came = play(f"{NEW},new-too", machine_dns_names=["app.invalid"], machine_packages=["nano"])
    assert came.rc != 0 and came.changed == 0, came.output
    assert (
        "new failed in what it does for all gateways of new: see above. Nothing was changed for new-too"
        in came.words
    )


def test_a_name_that_is_slow_is_warned_of(tmp_path: Path) -> None:
    came = play(
        OLD, playbook=chapter(tmp_path, "soundness"), machine_dns_slow=-1, machine_dns_names=["localhost"]
    )
    assert came.rc == 0, came.output
    assert re.search(r"WARNING: old took [0-9.]+ s to resolve localhost", came.words)
    assert "(AAAA)" in came.words and "(EDNS0)" in came.words


def test_a_hog_ends_before_what_stands_for_a_gateway() -> None:
    """In a group that has no memory left. A machine of the bench may raise scores and not lower them, so what stands for a
    sandbox is raised by as much as a gateway is lowered; what stands for a gateway is the larger of the two."""
    hold = "import time; held = bytearray({} << 20); held[::4096] = b'x' * len(held[::4096]); print('held', flush=True); time.sleep({})"
    slice_ = "-p Slice=proof.slice -p OOMPolicy=continue -p MemorySwapMax=0 --quiet --collect"

    def survives(raised: int) -> bool:
        sh(
            NEW,
            "systemctl set-property --runtime proof.slice MemoryMax=300M MemorySwapMax=0; "
            f'systemd-run {slice_} --unit=stand-in python3 -c "{hold.format(180, 60)}"; sleep 1.5; '
            f'systemd-run {slice_} --unit=hog -p OOMScoreAdjust={raised} python3 -c "{hold.format(150, 60)}"; sleep 3',
        )
        alive = {
            unit: sh(NEW, f"systemctl is-active {unit} || true") == "active" for unit in ("stand-in", "hog")
        }
        sh(NEW, "systemctl stop stand-in hog", check=False)
        assert sum(alive.values()) == 1, alive
        return alive["stand-in"]

    assert not survives(0), "without it the larger one ends"
    assert survives(500)


def test_a_machine_behind_another_is_reached(tmp_path: Path) -> None:
    """By a jump, and the port that counts is the machine's own."""
    config = tmp_path / "ssh_config"
    config.write_text(
        f"Match originalhost {NEW}\n  ProxyCommand ssh -F {BENCH.ssh_config} -W %h:%p {OLD}\n"
        f"Match all\nInclude {BENCH.ssh_config}\n"
    )
    words = [NEW, "-i", f"{NEW},", "-b", "-m", "claw.fleet.machine_info", "-o"]
    common = {"ansible_ssh_common_args": f"-F {config}", "ansible_control_path_dir": str(tmp_path / "cp")}
    told = run(["ansible", *words, "-e", json.dumps(common)]).stdout
    assert '"ssh_port": 22' in told
    came = sh(NEW, "journalctl -u ssh --no-pager | grep Accepted | tail -1")
    assert addresses(OLD)["IPv4"] in came or addresses(OLD)["IPv6"] in came


@pytest.mark.parametrize("machine", MACHINES)
def test_who_does_not_come_by_ssh_knows_its_ports(machine: str) -> None:
    """As a run on the machine itself does not."""
    other = "/etc/ssh/sshd_config.d/test-port.conf"
    ask = (
        COLLECTION / "plugins/module_utils/_machine.py"
    ).read_text() + "\nprint(ssh_connection(), ssh_ports())\n"

    def told() -> str:
        return docker("exec", "--interactive", BENCH.container(machine), "python3", "-", stdin=ask)

    assert told() == "None [22]"
    again = "systemctl restart ssh; sleep 1"
    with wrong(machine, f"printf 'Port 22\\nPort 2222\\n' > {other}; {again}", f"rm {other}; {again}"):
        assert told() == "None [22, 2222]"
    # The older one says it only where it could start, for which systemd makes it a directory.
    with wrong(machine, "systemctl stop ssh; mkdir -p /run/sshd", "systemctl start ssh"):
        assert told() == "None [22]"


def test_who_waits_for_packets_of_udp_is_told_though_no_process_has_the_port(tmp_path: Path) -> None:
    """As WireGuard's port is; the bench's kernel may have none, and a VXLAN's is of the same kind."""
    made = "ip link add vx0 type vxlan id 7 dstport 51821"
    if not sh(NEW, f"{made} && ip link delete vx0 && echo known || true"):
        pytest.skip("the kernel of this machine has no VXLAN")
    with wrong(NEW, f"{made} && ip link set vx0 up", "ip link delete vx0"):
        words = [NEW, "-i", f"{NEW},", "-b", "-m", "claw.fleet.machine_info", "-o"]
        common = {
            "ansible_ssh_common_args": f"-F {BENCH.ssh_config}",
            "ansible_control_path_dir": str(tmp_path / "cp"),
        }
        told = run(["ansible", *words, "-e", json.dumps(common)]).stdout
    # Behind it may be the end of a colour.
    answer, _end = json.JSONDecoder().raw_decode(told.partition("=> ")[2])
    assert 51821 in answer["listening_udp"]


_PROXY = """
import http.server
class Proxy(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        with open("/root/asked-of-the-proxy", "a") as told:
            print(self.path, file=told)
        self.send_error(404)
http.server.HTTPServer(("0.0.0.0", 8443), Proxy).serve_forever()
"""


def test_packages_come_by_the_proxy_that_is_named() -> None:
    fetch = "/usr/lib/apt/apt-helper download-file http://{}/there /tmp/there || true"

    def asked() -> list[str]:
        """What was asked of the proxy since the last time."""
        for host in ("packages.invalid", "direct.invalid"):
            sh(NEW, fetch.format(host))
        return sh(
            OLD, "cat /root/asked-of-the-proxy 2>/dev/null || true; rm -f /root/asked-of-the-proxy"
        ).split()

    write(OLD, "/root/proxy.py", _PROXY)
    sh(OLD, "systemd-run --quiet --unit=packages-proxy python3 /root/proxy.py")
    given: dict[str, Any] = {
        "machine_http_proxy": f"http://{addresses(OLD)['IPv4']}:8443",
        "machine_no_proxy": ["direct.invalid"],
    }
    try:
        assert asked() == []
        assert applied(NEW, "--check", **given).changed == applied(NEW, **given).changed == 1
        assert asked() == ["http://packages.invalid/there"]
        assert applied(NEW, **given).changed == 0
        assert applied(NEW).changed == 1
        assert asked() == []
    finally:
        sh(OLD, "systemctl stop packages-proxy")
        applied(NEW)


def test_the_time_is_kept_by_what_keeps_it(tmp_path: Path) -> None:
    """A machine of the bench may not set the clock: what stands for chrony is there and does nothing."""
    keeper = "/etc/systemd/system/chrony.service"
    write(
        NEW, keeper, "[Service]\nExecStart=/usr/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n"
    )
    sh(NEW, "systemctl daemon-reload")
    clock = chapter(tmp_path, "clock")
    given: dict[str, Any] = {"machine_found": {"may_set_clock": True}}
    try:
        assert play(NEW, playbook=clock, machine_found={"may_set_clock": False}).changed == 0
        assert play(NEW, "--check", playbook=clock, **given).changed == 1
        came = play(NEW, playbook=clock, **given)
        assert (came.rc, came.changed) == (0, 1), came.output
        assert sh(NEW, "systemctl is-active chrony; systemctl is-enabled chrony").split() == [
            "active",
            "enabled",
        ]
        assert play(NEW, playbook=clock, **given).changed == 0
    finally:
        sh(NEW, f"systemctl disable --now --quiet chrony; rm {keeper}; systemctl daemon-reload")


FINGERPRINT = re.compile(r"^fpr:+([0-9A-F]{40}):", re.MULTILINE)
_REPOSITORY = """
import hashlib, pathlib, subprocess, textwrap
root = pathlib.Path("/srv/engine")
root.mkdir(parents=True, exist_ok=True)
entries = []
for name, version in [("docker-ce", "5:28.5.1-1~debian.13~trixie"), ("docker-ce", "5:29.0.0-1~debian.13~trixie"),
                      ("docker-ce-cli", "5:28.5.1-1~debian.13~trixie"), ("containerd.io", "1.7.28-1~debian.13~trixie"),
                      ("nano", "99.0-1")]:
    tree = root / "tree"
    (tree / "DEBIAN").mkdir(parents=True, exist_ok=True)
    control = f"Package: {name}\\nVersion: {version}\\nArchitecture: all\\nMaintainer: Nobody <nobody@example.com>\\nDescription: none\\n"
    (tree / "DEBIAN" / "control").write_text(control)
    file = root / f"{name}_{version.replace(':', '%3a')}_all.deb"
    subprocess.run(["dpkg-deb", "--build", tree, file], check=True, capture_output=True)
    data = file.read_bytes()
    entries.append(control + f"Filename: ./{file.name}\\nSize: {len(data)}\\nSHA256: {hashlib.sha256(data).hexdigest()}\\n")
packages = "\\n".join(entries).encode()
(root / "Packages").write_bytes(packages)
release = f"Origin: Engine\\nDate: Thu, 01 Jan 2026 00:00:00 UTC\\nSHA256:\\n {hashlib.sha256(packages).hexdigest()} {len(packages)} Packages\\n"
(root / "Release").write_text(release)
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What stands for Docker's own repository, on the machine itself, signed by a key whose fingerprint is known."""
    home = tmp_path_factory.mktemp("gnupg")
    home.chmod(0o700)
    gpg = ["gpg", "--homedir", str(home), "--batch", "--quiet"]
    run(
        [
            *gpg,
            "--passphrase",
            "",
            "--quick-generate-key",
            "Engine <engine@example.com>",
            "rsa3072",
            "sign",
            "never",
        ]
    )
    (fingerprint,) = FINGERPRINT.findall(run([*gpg, "--with-colons", "--list-keys"]).stdout)
    key = home / "engine.asc"
    key.write_text(run([*gpg, "--armor", "--export"]).stdout)
    docker("exec", "--interactive", BENCH.container(NEW), "python3", "-", stdin=_REPOSITORY)
    release = sh(NEW, "cat /srv/engine/Release") + "\n"
    write(NEW, "/srv/engine/InRelease", run([*gpg, "--clearsign"], stdin=release).stdout)
    run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False)
    return {"key": str(key), "fingerprint": fingerprint}


def test_docker_comes_from_its_own_repository_by_the_key_that_was_named(repository: dict[str, str]) -> None:
    wanted: dict[str, Any] = {
        "sandbox_engine": "docker",
        "machine_docker_from": "docker",
        "machine_docker_url": "file:/srv/engine",
        "machine_docker_suite": "./",
        "machine_docker_key": repository["key"],
        "machine_docker_key_fingerprint": repository["fingerprint"],
    }
    came = play(NEW, **{**wanted, "machine_docker_key_fingerprint": "0" * 40})
    assert came.rc != 0
    assert (
        f"engine.asc holds {repository['fingerprint']}, and machine_docker_key_fingerprint is {'0' * 40}"
        in came.words
    )
    assert sh(NEW, "ls /etc/apt/keyrings /etc/apt/sources.list.d | grep claw || true") == ""
    assert applied(NEW, **wanted).changed > 0
    there = sh(NEW, "dpkg-query --show docker-ce docker-ce-cli containerd.io")
    assert [line.split("\t")[1].partition("-")[0] for line in there.splitlines()] == [
        "1.7.28",
        "5:28.5.1",
        "5:28.5.1",
    ]
    # Another package of it is never taken, although it is newer there.
    assert "99.0" not in sh(NEW, "apt-cache policy nano | grep Candidate")
    assert applied(NEW, **wanted).changed == 0


def test_hardening_is_a_collections_that_is_there_or_named(tmp_path: Path) -> None:
    hardening = chapter(tmp_path, "hardening")
    came = play(OLD, playbook=hardening)
    assert came.rc != 0
    assert "ansible-galaxy collection install devsec.hardening" in came.words
    for role in ("os_hardening", "ssh_hardening"):
        tasks = (
            tmp_path / "ansible_collections" / "devsec" / "hardening" / "roles" / role / "tasks" / "main.yml"
        )
        tasks.parent.mkdir(parents=True)
        tasks.write_text(json.dumps([{"ansible.builtin.debug": {"msg": f"This is {role}."}}]))
    paths = f"{tmp_path}:{ROOT / 'collections'}"
    came = play(OLD, playbook=hardening, environment={"ANSIBLE_COLLECTIONS_PATH": paths})
    assert came.rc == 0, came.output
    assert re.search("This is os_hardening.*This is ssh_hardening", came.words)
