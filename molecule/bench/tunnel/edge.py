"""A stand-in for Cloudflare's edge, for the stand-in of cloudflared beside this file: edge.py NAME...

The names given are those of quick tunnels, each new one getting another; the bench leads them all here. By port:

    443   visitors, by TLS: what is sent to a name goes to its tunnel as it is, and what comes back comes back as it comes.
          A name without a tunnel is answered by 530 and Cloudflare's error 1033.
    7844  tunnels: a line of JSON, then as it says. A registration lasts as long as its connection.
    8081  tests: GET / for what is registered and since when, PUT / for what shall go wrong, PUT /tunnels for named ones,
          and of Cloudflare's API /client/v4/zones/ZONE/dns_records.

What can go wrong: {"registers": "never"}; {"name": TEXT}, which a new tunnel is given for a name; {"pages": "stranger"};
{"access": {HEADER: VALUE, ...}}, without which nobody gets through, as with Cloudflare Access; {"dns": "refused"}.

It proves nothing of Cloudflare's own network: no names that take their time to be known, no caching, no limits, no HTTP/2.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import ssl
import sys
import time
from http import HTTPStatus
from typing import Any

CERTIFICATE = "/etc/edge/certificate.pem"
GONE = b"HTTP/1.1 530 \r\nContent-Type: text/plain\r\nContent-Length: 16\r\nConnection: close\r\n\r\nerror code: 1033"
STRANGER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 7\r\nConnection: close\r\n\r\nWelcome"
)
ONE_OF_A_NAME = ("A", "AAAA", "CNAME")
"""Records of which a name that has one gets no other, as far as the tests go."""
NOBODY = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
PATIENCE_SECONDS = 5


class Edge:
    """All tunnels."""

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self.given: list[str] = []
        self.registered: dict[str, dict[str, Any]] = {}
        self.idle: dict[str, asyncio.Queue[Any]] = {}
        self.faults: dict[str, Any] = {}
        self.named: dict[str, str] = {}
        self.records: dict[str, dict[str, Any]] = {}

    async def tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A connection of a tunnel."""
        with contextlib.suppress(OSError, ValueError, KeyError):
            hello = json.loads(await reader.readline())
            if hello["do"] == "serve":
                await self.idle[hello["ticket"]].put((reader, writer))
                return
            if hello["do"] == "name":
                name = self.faults.get("name") or self.names[len(self.given) % len(self.names)]
                self.given.append(name)
                await say(writer, {"hostname": name})
            else:
                await self.register(hello, reader, writer)
        writer.close()

    async def register(
        self, hello: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """A tunnel, for as long as its connection lasts."""
        if hello["do"] == "named" and self.named.get(hello["tunnel"]) != hello["secret"]:
            await say(writer, {"error": "Unauthorized: Invalid tunnel secret"})
            return
        while self.faults.get("registers") == "never":
            await asyncio.sleep(0.2)
        ticket = secrets.token_hex(8)
        self.idle[ticket] = asyncio.Queue()
        names = hello.get("hostnames") or [hello["hostname"]]
        for name in names:
            self.registered[name] = {"ticket": ticket, "since": time.time()}
        await say(writer, {"ticket": ticket})
        with contextlib.suppress(OSError):
            await reader.read()
        for name in names:
            if self.registered.get(name, {}).get("ticket") == ticket:
                del self.registered[name]
        queue = self.idle.pop(ticket)
        while not queue.empty():
            queue.get_nowait()[1].close()

    async def visitor(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A visitor's connection, to whatever name it asks for first."""
        with contextlib.suppress(
            OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ssl.SSLError
        ):
            head = await reader.readuntil(b"\r\n\r\n")
            lines = head.decode("latin-1").split("\r\n")[1:]
            host = next((line[5:].strip().lower() for line in lines if line.lower().startswith("host:")), "")
            found = self.registered.get(host)
            access = self.faults.get("access", {})
            if self.faults.get("pages") == "stranger":
                writer.write(STRANGER)
            elif not all(
                f"{name}: {value}".lower() in map(str.lower, lines) for name, value in access.items()
            ):
                writer.write(NOBODY)
            elif found is None:
                writer.write(GONE)
            else:
                inner, outer = await asyncio.wait_for(self.idle[found["ticket"]].get(), PATIENCE_SECONDS)
                outer.write(head)
                await asyncio.gather(pass_on(reader, outer), pass_on(inner, writer))
            await writer.drain()
        writer.close()

    async def test(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A request of a test, or of a play to Cloudflare's API."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, ValueError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            method, path, _version = head.split("\r\n")[0].split()
            length = next(
                (int(line[15:]) for line in head.split("\r\n") if line.lower().startswith("content-length:")),
                0,
            )
            body = json.loads(await reader.readexactly(length)) if length else {}
            status, told = self.answer(method, path, body)
            text = json.dumps(told)
            writer.write(
                f"HTTP/1.1 {int(status)} {status.phrase}\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(text)}\r\nConnection: close\r\n\r\n{text}".encode()
            )
            await writer.drain()
        writer.close()

    def answer(self, method: str, path: str, body: dict[str, Any]) -> tuple[HTTPStatus, dict[str, Any]]:
        """What a test gets."""
        if path == "/":
            if method == "PUT":
                self.faults = body
            since = {name: found["since"] for name, found in self.registered.items()}
            return HTTPStatus.OK, {"registered": since, "given": self.given, "faults": self.faults}
        if path == "/tunnels" and method == "PUT":
            self.named = body
            return HTTPStatus.OK, {}
        if path.startswith("/client/v4/zones/"):
            _zone, _slash, rest = path.removeprefix("/client/v4/zones/").partition("/dns_records")
            if self.faults.get("dns") == "refused":
                return HTTPStatus.FORBIDDEN, {
                    "success": False,
                    "errors": [{"message": "Authentication error"}],
                }
            if method == "DELETE":
                return HTTPStatus.OK, {"success": bool(self.records.pop(rest.strip("/"), None))}
            names = [one["name"] for one in self.records.values() if one["type"] in ONE_OF_A_NAME]
            if method == "POST" and body["type"] in ONE_OF_A_NAME and body["name"] in names:
                message = "An A, AAAA, or CNAME record with that host already exists."
                return HTTPStatus.BAD_REQUEST, {
                    "success": False,
                    "errors": [{"code": 81053, "message": message}],
                }
            if method in ("POST", "PUT"):
                record = {**body, "id": rest.strip("/") or secrets.token_hex(16)}
                self.records[record["id"]] = record
                return HTTPStatus.OK, {"success": True, "result": record}
            wanted = rest.removeprefix("?name=")
            return HTTPStatus.OK, {
                "success": True,
                "result": [one for one in self.records.values() if one["name"] == wanted],
            }
        return HTTPStatus.NOT_FOUND, {}


async def say(writer: asyncio.StreamWriter, told: dict[str, Any]) -> None:
    writer.write(json.dumps(told).encode() + b"\n")
    await writer.drain()


async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Each piece as it comes."""
    with contextlib.suppress(OSError, ssl.SSLError):
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
    writer.close()


async def main(names: list[str]) -> None:
    edge = Edge(names)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    await asyncio.start_server(edge.visitor, "0.0.0.0", 443, ssl=context)
    await asyncio.start_server(edge.tunnel, "0.0.0.0", 7844)
    await asyncio.start_server(edge.test, "0.0.0.0", 8081)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
