"""A tunnel's surroundings: a stand-in for Cloudflare's edge, names that lead to it, and a cloudflared to be shipped.

In the bench's state directory:

    edge-ca.pem   who signed the edge's certificate, for whoever is to trust it
    hosts         the controller's /etc/hosts with the edge's names, for the coach list's processes alone
    inventory/group_vars/gateways/tunnel.json   what the role claw.fleet.tunnel is given, for inventories after the demo's

What the stand-ins do not prove stands in molecule/bench/tunnel/. With CLAW_CLOUDFLARED, the path of a real cloudflared, and
CLAW_CLOUDFLARED_VERSION, that one is shipped, and neither edge nor names are made: it asks Cloudflare's own.
"""

from __future__ import annotations

import datetime
import hashlib
import itertools
import json
import os
import urllib.request
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from clawbench.hosts import LABEL, Bench, address_of
from clawbench.shell import BenchError, docker, until, write_private

PARTS = Path(__file__).resolve().parents[1] / "tunnel"
DOMAIN = "tunnel.test"
NAMES = [
    f"{first}-{second}.{DOMAIN}"
    for first, second in itertools.product(
        ("amber", "brisk", "calm", "dusty", "early", "faint", "gentle", "hollow"),
        ("acre", "birch", "cove", "delta", "ember", "fjord", "grove", "heath"),
    )
]
NAMED = [f"gw-a.{DOMAIN}", f"gw-b.{DOMAIN}", f"gateways.{DOMAIN}"]
"""What a tunnel of one's own may be called."""
VERSION = "2026.9.3"


def up(bench: Bench, tag: str) -> bool:
    """Have all that, on a bench with hosts; whether anything was made."""
    real = os.environ.get("CLAW_CLOUDFLARED", "")
    program = Path(real) if real else PARTS / "cloudflared"
    made = False if real else _edge(bench, tag)
    digest = hashlib.sha256(program.read_bytes()).hexdigest()
    given: dict[str, Any] = {
        "tunnel_kind": "quick",
        "tunnel_cloudflared_file": str(program),
        "tunnel_cloudflared_version": os.environ.get("CLAW_CLOUDFLARED_VERSION", VERSION),
        "tunnel_cloudflared_checksums": {"amd64": digest, "arm64": digest},
        "coaches_gateway_url": "",
    }
    if not real:
        given["tunnel_ca_file"] = str(bench.state / "edge-ca.pem")
    variables = bench.state / "inventory" / "group_vars" / "gateways" / "tunnel.json"
    variables.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_private(variables, json.dumps(given, indent=2) + "\n")
    return made


def ask(
    bench: Bench, method: str = "GET", path: str = "/", body: dict[str, Any] | None = None
) -> dict[str, Any]:
    """What the edge knows, or is told: see its own page."""
    request = urllib.request.Request(
        f"http://{address_of(bench, 'edge')}:8081{path}",
        None if body is None else json.dumps(body).encode(),
        method=method,
    )
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as answer:
        told: dict[str, Any] = json.load(answer)
    return told


def _edge(bench: Bench, tag: str) -> bool:
    container = bench.container("edge")
    if docker("ps", "--quiet", "--filter", f"name=^{container}$"):
        return False
    docker("rm", "--force", container, check=False)
    _certificate(bench.state)
    docker(
        "create",
        f"--name={container}",
        "--hostname=edge",
        f"--network={bench.network}",
        *(f"--network-alias={name}" for name in ("edge", DOMAIN, *NAMES, *NAMED)),
        f"--label={LABEL}={bench.name}",
        tag,
        *("python3", "/opt/edge.py", *NAMES),
        why="create the edge's stand-in",
    )
    docker("cp", PARTS / "edge.py", f"{container}:/opt/edge.py", why="bring the edge's program to it")
    docker("cp", bench.state / "edge", f"{container}:/etc/edge", why="bring the edge's certificate to it")
    docker("start", container, why="start the edge's stand-in")
    until(
        lambda: _answers(bench),
        seconds=20,
        what="an answer of the edge's stand-in",
        hint=f"Look at it with: docker logs {container}",
    )
    lines = [f"{address_of(bench, 'edge')} {name}\n" for name in (*NAMES, *NAMED)]
    write_private(bench.state / "hosts", Path("/etc/hosts").read_text() + "".join(lines))
    (bench.state / "hosts").chmod(0o644)
    return True


def _answers(bench: Bench) -> bool:
    try:
        return "registered" in ask(bench)
    except (OSError, BenchError):
        return False


_SIGNS_CERTIFICATES = x509.KeyUsage(
    key_cert_sign=True, crl_sign=True, digital_signature=False, content_commitment=False, key_encipherment=False,
    data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
)  # fmt: skip


def _certificate(state: Path) -> None:
    """An authority, and by it the edge's certificate with its key, in <state>/edge/certificate.pem.

    With all that RFC 5280 demands, as Python does from 3.13 on.
    """
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "claw.fleet bench")])
    begin = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    certificate = (
        x509.CertificateBuilder()
        .issuer_name(authority)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False
        )
        .not_valid_before(begin)
        .not_valid_after(begin + datetime.timedelta(days=30))
    )
    root = (
        certificate.subject_name(authority)
        .public_key(authority_key.public_key())
        .serial_number(x509.random_serial_number())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key()), critical=False)
        .add_extension(_SIGNS_CERTIFICATES, critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    leaf = (
        certificate.subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, DOMAIN)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(f"*.{DOMAIN}")]), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (state / "edge").mkdir(mode=0o700, exist_ok=True)
    write_private(state / "edge" / "certificate.pem", (private + leaf.public_bytes(pem)).decode())
    write_private(state / "edge-ca.pem", root.public_bytes(pem).decode())
