"""A DNS server: the names of names.json, and a line on standard output for every question."""

from __future__ import annotations

import ipaddress
import json
import socket
from pathlib import Path

TYPE_A = 1

with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
    server.bind(("0.0.0.0", 53))
    while True:
        question, asker = server.recvfrom(512)
        labels, place = [], 12
        while question[place]:
            length = question[place]
            labels.append(question[place + 1 : place + 1 + length].decode(errors="replace"))
            place += length + 1
        end = place + 5
        name, kind = ".".join(labels).lower(), question[place + 2]
        print(name, kind, asker[0], flush=True)
        addresses = json.loads(Path("names.json").read_text()).get(name, [])
        found = addresses if kind == TYPE_A else []
        head = question[:2] + b"\x81\x80\x00\x01" + len(found).to_bytes(2, "big") + b"\x00\x00\x00\x00"
        # A name by its place in the question, an address, for no time at all.
        records = [
            b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x00\x00\x04" + ipaddress.IPv4Address(address).packed
            for address in found
        ]
        server.sendto(head + question[12:end] + b"".join(records), asker)
