"""The bench's commands. Each ends with 0 and a line of JSON, or with 1 and what to do."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from clawbench import engine, hosts, image, tunnel
from clawbench.coachlist import CoachList
from clawbench.inventory import choose_provider, furnish
from clawbench.shell import BenchError


def main(arguments: list[str] | None = None) -> int:
    """Run one command."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except BenchError as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="molecule/bench", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    create = commands.add_parser("create", help="an engine, the image, a network, hosts and SSH to them")
    create.add_argument(
        "hosts",
        nargs="+",
        metavar="HOST[=DEBIAN]",
        help="names of hosts, such as machine1, or machine1=13 where it is to be of another release than the others",
    )
    create.add_argument("--provider", action="store_true", help="with the LLM provider's stand-in")
    create.add_argument("--tunnel", action="store_true", help="with a stand-in for a tunnel's edge")
    create.add_argument("--engine", action="store_true", help="new hosts can run containers of their own")
    create.add_argument("--ipv6", action="store_true", help="a new network has IPv6 addresses too")
    create.set_defaults(run=_create)

    furnished = commands.add_parser(
        "furnish", help="on a bench with machine1: coaches, and what inventories/demo reads"
    )
    furnished.set_defaults(run=_furnish)

    destroy = commands.add_parser("destroy", help="nothing of a bench is left but its directory")
    destroy.set_defaults(run=_destroy)

    for command in (create, furnished, destroy):
        command.add_argument("--state", required=True, type=Path, help="the bench's directory")
        command.add_argument("--name", help="two names never touch each other; default: the directory's name")

    build = commands.add_parser("image", help="the host image alone")
    build.set_defaults(run=_image)

    for command in (create, build):
        command.add_argument("--debian", default="12", choices=sorted(image.SUITES))
    return parser


def _bench(options: argparse.Namespace) -> hosts.Bench:
    state = options.state.resolve()
    return hosts.Bench(options.name, state) if options.name else hosts.Bench.of(state)


def _create(options: argparse.Namespace) -> int:
    bench = _bench(options)
    changed = engine.up(bench.state)
    named = dict(host.partition("=")[::2] for host in options.hosts)
    changed |= hosts.create(
        bench,
        list(named),
        debian=options.debian,
        releases={host: release for host, release in named.items() if release},
        provider=options.provider,
        engine=options.engine,
        ipv6=options.ipv6,
    )
    if options.tunnel:
        changed |= tunnel.up(bench, bench.facts()["image"])
    print(json.dumps({"changed": changed, **bench.facts()}))
    return 0


def _furnish(options: argparse.Namespace) -> int:
    bench = _bench(options)
    choose_provider(bench.state)
    changed = furnish(bench, CoachList(bench.state))
    print(json.dumps({"changed": changed, **bench.facts()}))
    return 0


def _destroy(options: argparse.Namespace) -> int:
    bench = _bench(options)
    changed = CoachList(bench.state).down()
    changed |= engine.answers() and hosts.destroy(bench)
    print(json.dumps({"changed": changed, "engine": engine.down(bench.state)}))
    return 0


def _image(options: argparse.Namespace) -> int:
    name, how = image.ensure(options.debian)
    print(json.dumps({"changed": how != "present", "image": name, "how": how}))
    return 0
