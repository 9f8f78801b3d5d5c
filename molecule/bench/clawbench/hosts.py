"""A bench: a network with systemd hosts, reached over SSH like any machine, and the LLM provider's stand-in.

Everything in the engine carries the bench's name and label, so that two benches never meet and `destroy`
finds all of its own. What the controller needs to reach the hosts is in the bench's state directory:

    id_ed25519, id_ed25519.pub   the controller's key
    ssh_config, known_hosts      for `ssh -F <state>/ssh_config machine1`, and Ansible with the same option
    bench.json                   {"name", "image", "network_gateway", "hosts": {name: address}, "provider":
                                  {"url": for the hosts, "control_url": for the controller} or null}
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from clawbench import image
from clawbench.shell import BenchError, docker, run, until, write_private

LABEL = "claw.bench"
CGROUPS = Path("/sys/fs/cgroup")
CGROUP_PARENT = "clawbench"
USER = "operator"
PROVIDER_PORT = 18080
SANDBOXES = ipaddress.IPv4Network("172.29.240.0/22")
"""`egress_subnet` as the role has it by itself."""
PROVIDER = Path(__file__).resolve().parents[1] / "provider" / "provider.py"
# For an engine within a host: it writes to /proc/sys, mounts a /proc of its own, and needs for its layers another file
# system than the host's, which is layers itself. As /proc/sys is the kernel's own then, a host applies none of Debian's
# settings to it; the network's are the host's alone.
_ENGINE_OPTIONS = [
    "--security-opt=systempaths=unconfined",
    "--volume=/var/lib/docker",
    "--volume=/dev/null:/etc/systemd/system/systemd-sysctl.service:ro",
]
# For an engine that is not root: its layers are a file system of FUSE, and its containers' network a program with a tap.
# A machine that has none of them has nothing to give.
ROOTLESS_DEVICES = [Path("/dev/fuse"), Path("/dev/net/tun")]
_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")


@dataclass(frozen=True)
class Bench:
    """One bench by its name, with the state directory that belongs to it."""

    name: str
    state: Path

    @classmethod
    def of(cls, state: Path) -> Bench:
        """The bench of a state directory, named like the directory without leading dots."""
        return cls(state.name.lstrip("."), state)

    def container(self, host: str) -> str:
        """The container that stands for a host."""
        return f"claw-{self.name}-{host}"

    @property
    def network(self) -> str:
        """The Docker network of the bench."""
        return f"claw-{self.name}"

    @property
    def ssh_config(self) -> Path:
        """What `ssh -F` and Ansible take."""
        return self.state / "ssh_config"

    def facts(self) -> dict[str, Any]:
        """What `create` found out (bench.json)."""
        try:
            facts: dict[str, Any] = json.loads((self.state / "bench.json").read_text())
        except FileNotFoundError as missing:
            raise BenchError(
                f"The bench {self.name} is not up: {self.state} holds no bench.json."
            ) from missing
        return facts

    def ssh(self, host: str, *command: str, check: bool = True, timeout: float = 60) -> str:
        """Run a command on a host over SSH and return what it printed."""
        done = run(
            ["ssh", "-F", self.ssh_config, host, *command],
            check=check,
            timeout=timeout,
            why=f"run a command on {host} over SSH",
        )
        return done.stdout.strip()


def create(
    bench: Bench,
    hosts: Sequence[str],
    *,
    debian: str = "12",
    releases: Mapping[str, str] | None = None,
    provider: bool = False,
    engine: bool = False,
    ipv6: bool = False,
) -> bool:
    """Bring the bench up; what already runs stays as it is. Returns whether anything was made or started.

    All hosts are of the Debian given, but for those that `releases` names. With `engine` new hosts can run a container
    engine of their own, which is for the roles or tests to install. With `ipv6` a new network has IPv6 addresses too.
    """
    for name in (bench.name, *hosts):
        if not _NAME.fullmatch(name):
            raise BenchError(
                f"`{name}` cannot name a bench or a host: lower-case letters, digits and dashes only."
            )
    bench.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    _keypair(bench)
    with image.needed():
        tag, _how = image.ensure(debian)
        tags = {host: image.ensure((releases or {}).get(host, debian))[0] for host in hosts}
        changed = _network(bench, ipv6=ipv6)
        with ThreadPoolExecutor(max_workers=4) as pool:
            changed |= any(list(pool.map(lambda host: _host(bench, host, tags[host], engine=engine), hosts)))
        if provider:
            changed |= _provider(bench, tag)
    _write_facts(bench, hosts, tag, provider=provider)
    for host in hosts:
        until(
            partial(_ssh_works, bench, host),
            seconds=30,
            what=f"sshd of {host}",
            hint=f"Look at it with: docker exec {bench.container(host)} journalctl -u ssh",
        )
    return changed


def destroy(bench: Bench) -> bool:
    """Take all of the bench out of the engine; its files stay. Returns whether there was anything.

    These are its containers with their volumes, its network, and what benches share once no other needs it: the
    images and the parent of the hosts' control groups.
    """
    mine = docker("ps", "--all", "--quiet", "--filter", f"label={LABEL}={bench.name}").split()
    if mine:
        docker("rm", "--force", "--volumes", *mine, why=f"remove the hosts of the bench {bench.name}")
    network = docker("network", "ls", "--quiet", "--filter", f"label={LABEL}={bench.name}").split()
    if network:
        docker("network", "rm", *network, why=f"remove the network of the bench {bench.name}")
    image.forget()
    if not docker("ps", "--all", "--quiet", "--filter", f"label={LABEL}"):
        _remove_cgroup_parent()
    (bench.state / "bench.json").unlink(missing_ok=True)
    return bool(mine or network)


def _remove_cgroup_parent() -> None:
    """The engine removes each container's control groups, but leaves their empty parent in every hierarchy."""
    for parent in (CGROUPS / CGROUP_PARENT, *CGROUPS.glob(f"*/{CGROUP_PARENT}")):
        # Not root, gone meanwhile, or a host came up in it meanwhile: the kernel removes only empty ones.
        with suppress(OSError):
            parent.rmdir()


def _keypair(bench: Bench) -> None:
    key = bench.state / "id_ed25519"
    if not key.is_file():
        command: list[str | Path] = [
            "ssh-keygen",
            "-q",
            "-t",
            "ed25519",
            "-N",
            "",
            "-C",
            f"claw-bench-{bench.name}",
            "-f",
            key,
        ]
        run(command, why="generate the bench's SSH key")


def _network(bench: Bench, *, ipv6: bool) -> bool:
    if docker("network", "ls", "--quiet", "--filter", f"name=^{bench.network}$"):
        return False
    _create_network(bench, bench.network, ipv6=ipv6)
    if _is_among_sandboxes(bench.network):
        # While another network has that place, or the one after it, the engine gives a third one.
        aside = f"{bench.network}-aside"
        docker("network", "rm", bench.network, why="remove a network where sandboxes are")
        _create_network(bench, aside, ipv6=False)
        _create_network(bench, bench.network, ipv6=ipv6)
        docker("network", "rm", aside, why="remove a network that was in the way")
    return True


def _create_network(bench: Bench, name: str, *, ipv6: bool) -> None:
    # Unique local addresses, of the bench's own.
    prefix = int.from_bytes(b"\xfd" + hashlib.sha256(bench.name.encode()).digest()[:7], "big") << 64
    docker(
        "network",
        "create",
        "--label",
        f"{LABEL}={bench.name}",
        *(["--ipv6", f"--subnet={ipaddress.IPv6Network((prefix, 64))}"] if ipv6 else []),
        name,
        why="create the bench's network",
    )


def _is_among_sandboxes(name: str) -> bool:
    """Whether the hosts would reach each other where the fleet has its sandboxes, which the role egress refuses."""
    subnets = docker("network", "inspect", "--format", "{{range .IPAM.Config}}{{.Subnet}} {{end}}", name)
    networks = [ipaddress.ip_network(subnet) for subnet in subnets.split()]
    return any(network.version == SANDBOXES.version and network.overlaps(SANDBOXES) for network in networks)


def _state_of(container: str) -> str:
    """running, exited, created, ... or the empty string where there is none."""
    return docker("ps", "--all", "--filter", f"name=^{container}$", "--format", "{{.State}}")


def host_options(cgroups: int, driver: str, *, engine: bool = False) -> list[str]:
    """What the engine must grant so that systemd, with hardened and limited units, runs in a container.

    Args:
        cgroups: the version of control groups that the engine works with, 1 or 2.
        driver: who makes its groups, "cgroupfs" or "systemd".
        engine: whether the host is to run containers of its own.
    """
    # SYS_ADMIN: the mounts of hardened units. SYS_PTRACE: their user namespaces. NET_ADMIN: their firewall. DAC_READ_SEARCH: one
    # that looks how much workspaces hold.
    options = [f"--cap-add={name}" for name in ("SYS_ADMIN", "SYS_PTRACE", "NET_ADMIN", "DAC_READ_SEARCH")]
    options += ["--security-opt=seccomp=unconfined", "--security-opt=apparmor=unconfined"]
    # Limits of units are enforced only in the real hierarchy. The parent's name keeps the engine's out of it.
    options += ["--cgroupns=host", "--volume=/sys/fs/cgroup:/sys/fs/cgroup:rw"]
    in_systemd = cgroups == 2 and driver == "systemd"
    options.append("--cgroup-parent=" + (f"{CGROUP_PARENT}.slice" if in_systemd else f"/{CGROUP_PARENT}"))
    options += ["--tmpfs=/run", "--tmpfs=/run/lock", "--tmpfs=/tmp:exec,mode=1777"]
    if engine:
        options += _ENGINE_OPTIONS
        options += [f"--device={device}" for device in ROOTLESS_DEVICES if device.exists()]
    return options


def _host(bench: Bench, host: str, tag: str, *, engine: bool) -> bool:
    container = bench.container(host)
    state = _state_of(container)
    if state == "running":
        _bring_key(bench, host)
        return False
    settled = {"running"}
    if state:
        docker("start", container, why=f"start {host} again")
        # What was installed on it since may have its own reasons not to come up.
        settled.add("degraded")
    else:
        cgroups, driver = docker("info", "--format", "{{.CgroupVersion}} {{.CgroupDriver}}").split()
        docker(
            "run",
            "--detach",
            f"--name={container}",
            f"--hostname={host}",
            f"--network={bench.network}",
            f"--network-alias={host}",
            f"--label={LABEL}={bench.name}",
            *host_options(int(cgroups), driver, engine=engine),
            tag,
            why=f"start {host}",
        )
    until(
        lambda: _systemd_says(container) in settled,
        seconds=60,
        what=f"systemd of {host}",
        hint=f"Look at it with: docker exec {container} systemctl --failed",
        evidence=lambda: f"It says: {_systemd_says(container)}. {_failed_units(container)}",
    )
    _bring_key(bench, host)
    return True


def _bring_key(bench: Bench, host: str) -> None:
    """Let the controller's key in; also when it is another one because the state directory was lost."""
    public_key = (bench.state / "id_ed25519.pub").read_text()
    script = (
        f"umask 077; mkdir -p ~{USER}/.ssh; cat > ~{USER}/.ssh/authorized_keys; chown -R {USER}: ~{USER}/.ssh"
    )
    command = ["exec", "--interactive", bench.container(host), "sh", "-c", script]
    docker(*command, stdin=public_key, why=f"bring the key to {host}")


def _systemd_says(container: str) -> str:
    return docker("exec", container, "systemctl", "is-system-running", "--wait", check=False, timeout=60)


def _failed_units(container: str) -> str:
    return docker("exec", container, "systemctl", "--failed", "--plain", "--no-legend", check=False)


def _provider(bench: Bench, tag: str) -> bool:
    container = bench.container("provider")
    program = f"{LABEL}.provider={hashlib.sha256(PROVIDER.read_bytes()).hexdigest()[:12]}"
    running = docker("ps", "--quiet", "--filter", f"name=^{container}$", "--filter", f"label={program}")
    if not running:
        # Stopped, or of another program: what it remembers is lost either way.
        docker("rm", "--force", container, check=False)
        docker(
            "create",
            f"--name={container}",
            "--hostname=provider",
            f"--network={bench.network}",
            "--network-alias=provider",
            f"--label={LABEL}={bench.name}",
            f"--label={program}",
            "--stop-signal=SIGTERM",
            tag,
            *("python3", "/opt/provider.py", "--bind", "0.0.0.0", "--port", str(PROVIDER_PORT)),
            why="create the provider's stand-in",
        )
        docker("cp", PROVIDER, f"{container}:/opt/provider.py", why="bring the provider's program to it")
        docker("start", container, why="start the provider's stand-in")
    url = f"http://{address_of(bench, 'provider')}:{PROVIDER_PORT}/_requests?limit=0"
    until(
        lambda: _answers(url),
        seconds=20,
        what="an answer of the provider's stand-in",
        hint=f"Look at it with: docker logs {container}",
    )
    return not running


def _answers(url: str) -> bool:
    # The bench's own addresses are never behind a proxy.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def address_of(bench: Bench, host: str) -> str:
    """Where something of the bench is on its network."""
    form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    address = docker("inspect", "--format", form, bench.container(host), why=f"find the address of {host}")
    return str(ipaddress.ip_address(address))


def _write_facts(bench: Bench, hosts: Sequence[str], tag: str, *, provider: bool) -> None:
    """Write down how to reach everything: bench.json for programs, ssh_config and known_hosts for SSH."""
    addresses = {host: address_of(bench, host) for host in hosts}
    known, blocks = [], []
    for host, address in addresses.items():
        # Over the engine, not the network: the first contact is already verified.
        key = docker("exec", bench.container(host), "cat", "/etc/ssh/ssh_host_ed25519_key.pub")
        known.append(f"{host} {' '.join(key.split()[:2])}\n")
        blocks.append(
            f"Host {host}\n"
            f"  HostName {address}\n"
            f"  HostKeyAlias {host}\n"
            f"  User {USER}\n"
            f'  IdentityFile "{bench.state / "id_ed25519"}"\n'
            f'  UserKnownHostsFile "{bench.state / "known_hosts"}"\n'
            "  IdentitiesOnly yes\n"
            "  StrictHostKeyChecking yes\n"
            "  HostKeyAlgorithms ssh-ed25519\n"
            "  LogLevel ERROR\n"
        )
    write_private(bench.state / "known_hosts", "".join(known))
    write_private(bench.ssh_config, "\n".join(blocks))
    form = "{{range .IPAM.Config}}{{.Gateway}}{{end}}"
    facts = {
        "name": bench.name,
        "image": tag,
        "network_gateway": docker("network", "inspect", "--format", form, bench.network),
        "hosts": addresses,
        "provider": {
            "url": f"http://provider:{PROVIDER_PORT}",
            "control_url": f"http://{address_of(bench, 'provider')}:{PROVIDER_PORT}",
        }
        if provider
        else None,
    }
    write_private(bench.state / "bench.json", json.dumps(facts, indent=2) + "\n")


def _ssh_works(bench: Bench, host: str) -> bool:
    command = [
        "ssh",
        "-F",
        str(bench.ssh_config),
        "-o",
        "ConnectTimeout=5",
        "-o",
        "BatchMode=yes",
        host,
        "true",
    ]
    return run(command, check=False, timeout=20).returncode == 0
