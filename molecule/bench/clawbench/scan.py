"""Who answers on a host, as another container sees it: every port of TCP and UDP."""

from __future__ import annotations

from clawbench.shell import docker

# Every TCP port, from a raw socket: a port that answers to a first packet by a second one listens.
_SCAN = """
import socket, struct, sys, threading, time
target = sys.argv[1]
family = socket.AF_INET6 if ":" in target else socket.AF_INET
with socket.socket(family, socket.SOCK_DGRAM) as asked:
    asked.connect((target, 9))
    source = asked.getsockname()[0]
SPORT, open_ports, done = 20022, set(), threading.Event()
raw = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_TCP)
raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
raw.settimeout(0.2)
def hear():
    while not done.is_set():
        try:
            packet, sender = raw.recvfrom(200)
        except TimeoutError:
            continue
        segment = packet if family == socket.AF_INET6 else packet[(packet[0] & 15) * 4:]
        if sender[0].partition("%")[0] == target and len(segment) >= 20:
            sport, dport, flags = *struct.unpack("!HH", segment[:4]), segment[13]
            if dport == SPORT and flags & 0x12 == 0x12:
                open_ports.add(sport)
def folded(data):
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    total = (total & 0xffff) + (total >> 16)
    return ~(total + (total >> 16)) & 0xffff
pseudo = socket.inet_pton(family, source) + socket.inet_pton(family, target)
pseudo += struct.pack("!HH" if family == socket.AF_INET else "!LL", *((6, 20) if family == socket.AF_INET else (20, 6)))
hearing = threading.Thread(target=hear)
hearing.start()
for _ in range(2):
    for port in range(1, 65536):
        def segment(check):
            return struct.pack("!HHLLBBHHH", SPORT, port, 7, 0, 0x50, 2, 1024, check, 0)
        raw.sendto(segment(folded(pseudo + segment(0))), (target, 0))
        if port % 500 == 0:
            time.sleep(0.005)
    time.sleep(1)
done.set()
hearing.join()
print(*sorted(open_ports))
"""

# Every UDP port: whoever listens here answers.
_ASK = """
import contextlib, socket, sys, time
target = sys.argv[1]
asking = socket.socket(socket.AF_INET6 if ":" in target else socket.AF_INET, socket.SOCK_DGRAM)
asking.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
asking.setblocking(False)
answered = set()
for _ in range(2):
    for port in range(1, 65536):
        asking.sendto(b"who is there?", (target, port))
        if port % 500 == 0:
            time.sleep(0.005)
    time.sleep(1)
    with contextlib.suppress(BlockingIOError):
        while True:
            answered.add(asking.recvfrom(200)[1][1])
print(*sorted(answered))
"""


def answering(container: str, target: str) -> dict[str, set[int]]:
    """The ports of an address that answer, by protocol. The container asks, and needs Python and raw sockets."""
    found = {}
    for protocol, program in (("TCP", _SCAN), ("UDP", _ASK)):
        told = docker("exec", container, "python3", "-c", program, target)
        found[protocol] = {int(port) for port in told.split()}
    return found
