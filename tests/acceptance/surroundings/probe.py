"""Try to reach what the arguments name, all at once, and say of each what was heard.

tcp HOST PORT               a page, straight from there
dns ADDRESS NAME            an answer of a DNS server there
get PROXY URL               a page, from the proxy
connect PROXY HOST:PORT     a page through the proxy's tunnel
"""

from __future__ import annotations

import json
import socket
import sys
from concurrent.futures import ThreadPoolExecutor

SECONDS = 2.5


def page(address: tuple[str, int], *requests: str) -> str:
    """What comes back, after each of the requests, in the last connection's own words."""
    with socket.create_connection(address, SECONDS) as connection:
        connection.settimeout(SECONDS * 3)
        heard = b""
        for number, request in enumerate(requests):
            connection.sendall(request.encode())
            if number < len(requests) - 1:
                heard = connection.recv(65536)
                if b" 200 " not in heard.split(b"\r\n")[0]:
                    return heard.decode(errors="replace")
        while more := connection.recv(65536):
            heard += more
    return heard.decode(errors="replace")


def answer(address: str, name: str) -> str:
    """What a DNS server says."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    question = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00" + labels + b"\x00\x00\x01\x00\x01"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.settimeout(SECONDS)
        asker.sendto(question, (address, 53))
        return "reached a DNS server" if asker.recv(512) else ""


def attempt(words: list[str]) -> str:
    """One of them; an error by its name."""
    how, first, second = words
    try:
        if how == "tcp":
            return page((first, int(second)), "GET / HTTP/1.0\r\n\r\n")
        if how == "dns":
            return answer(first, second)
        proxy = (first.rpartition(":")[0], int(first.rpartition(":")[2]))
        if how == "get":
            return page(proxy, f"GET {second} HTTP/1.0\r\nX-Forwarded-For: 192.0.2.9\r\n\r\n")
        return page(proxy, f"CONNECT {second} HTTP/1.1\r\nHost: {second}\r\n\r\n", "GET / HTTP/1.0\r\n\r\n")
    except OSError as error:
        return f"{type(error).__name__}: {error}"


targets = json.loads(sys.argv[1])
with ThreadPoolExecutor(len(targets)) as pool:
    print(json.dumps(list(pool.map(attempt, targets))))
