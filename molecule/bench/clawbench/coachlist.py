"""The reference coach list under gunicorn on the controller, as the demo and the scenarios need it.

Its secrets are generated once into `<state>/coachlist.env` (0600), which is all that its processes and
`<state>/manage` (Django's management commands) are told. For inventories the fleet's own token is in
`<state>/service-token`, and the address in `coachlist.url` and, as the bench's hosts reach it,
`coachlist.url-for-hosts`.
"""

from __future__ import annotations

import base64
import os
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from clawbench.shell import ROOT, BenchError, end_process, is_ours, run, until, write_private

SETTINGS = "claw_fleet.coachlist_project.settings"
MANAGE = "claw_fleet.coachlist_project.manage"
APPLICATION = "claw_fleet.coachlist_project.wsgi:application"
API = "/api/companion/v1"
ADMIN = "admin"
PREFERRED_PORT = 8000


@dataclass(frozen=True)
class CoachList:
    """A coach list by its state directory."""

    state: Path

    @property
    def url(self) -> str:
        """Where it answers on this machine, without a slash at the end."""
        return self._read("coachlist.url")

    @property
    def service_token(self) -> str:
        """The fleet's own token."""
        return self._read("service-token")

    @property
    def admin_password(self) -> str:
        """The password of the user `admin`."""
        return self._read("admin-password")

    def _read(self, name: str) -> str:
        try:
            return (self.state / name).read_text().strip()
        except FileNotFoundError as missing:
            raise BenchError(
                f"The coach list is not up: {self.state} holds no {name}. Start it with: make up"
            ) from missing

    @property
    def _pid_file(self) -> Path:
        return self.state / "gunicorn.pid"

    def running(self) -> bool:
        """Whether our process is there."""
        return is_ours(self._pid_file, "gunicorn") is not None

    def manage(self, *arguments: str, more: dict[str, str] | None = None) -> str:
        """Run one of Django's management commands and return what it printed."""
        command = [sys.executable, "-m", MANAGE, *arguments]
        return run(
            command, env={**self._environment(), **(more or {})}, why=f"manage.py {arguments[0]}"
        ).stdout.strip()

    def up(self, hosts_reach_it_at: str | None = None) -> bool:
        """Have it running, with its tables and its administrator; True if it had to be started.

        Args:
            hosts_reach_it_at: an address of this machine, beside loopback, that the bench's hosts can reach.
        """
        self._secrets(hosts_reach_it_at)
        self.manage("migrate", "--no-input", "--verbosity=0")
        self._administrator()
        if self.running():
            return False
        port = self._port()
        addresses = ["127.0.0.1", *([hosts_reach_it_at] if hosts_reach_it_at else [])]
        command = [sys.executable, "-m", "gunicorn", APPLICATION, "--pid", str(self._pid_file)]
        # One process, because SQLite has one writer; threads, because an answer of an agent streams for long.
        command += [
            "--worker-class=gthread",
            "--threads=32",
            "--timeout=0",
            "--no-control-socket",
            "--access-logfile=-",
        ]
        command += [f"--bind={address}:{port}" for address in addresses]
        command = self._among_own_names(command)
        log_path = self.state / "gunicorn.log"
        with log_path.open("ab") as log:
            server = subprocess.Popen(
                command,
                env=self._environment(),
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

        def answers() -> bool:
            if server.poll() is not None:
                raise BenchError(
                    f"The coach list ended at once. Its last words are in {log_path}:\n{_tail(log_path)}"
                )
            return self.running() and _http_answers(f"http://127.0.0.1:{port}/healthz")

        until(answers, seconds=60, what="an answer of the coach list", hint=f"Its words are in {log_path}.")
        write_private(self.state / "coachlist.url", f"http://127.0.0.1:{port}\n")
        if hosts_reach_it_at:
            write_private(self.state / "coachlist.url-for-hosts", f"http://{hosts_reach_it_at}:{port}\n")
        return True

    def _among_own_names(self, command: list[str]) -> list[str]:
        """The command, in a view of the file system with the bench's own /etc/hosts where it has one."""
        hosts = self.state / "hosts"
        if not hosts.is_file():
            return command
        script = 'mount --bind "$0" /etc/hosts && exec "$@"'
        return ["unshare", "--mount", "sh", "-c", script, str(hosts), *command]

    def add_once(self, coaches: Mapping[str, Sequence[str]]) -> None:
        """Put the first coaches on the list, once: what people made of them later stays.

        Args:
            coaches: by agent id, the further words of `manage.py add_coach`.
        """
        done = self.state / "coaches.added"
        if not done.is_file():
            for agent_id, words in coaches.items():
                self.manage("add_coach", agent_id, *words)
            write_private(done, "".join(f"{agent_id}\n" for agent_id in coaches))

    def down(self) -> bool:
        """Stop it; its database stays in the state directory."""
        pid = is_ours(self._pid_file, "gunicorn")
        if pid is None:
            return False
        # TERM lets an answer that is under way end, for up to 30 s; QUIT does not.
        end_process(pid, signal.SIGQUIT, seconds=20, what="the coach list")
        return True

    def _environment(self) -> dict[str, str]:
        words = shlex.split((self.state / "coachlist.env").read_text(), comments=True)
        settings = dict(word.split("=", 1) for word in words)
        authority = self.state / "edge-ca.pem"
        trusted = {"SSL_CERT_FILE": str(authority)} if authority.is_file() else {}
        return {**os.environ, **settings, **trusted}

    def _secrets(self, hosts_reach_it_at: str | None) -> None:
        """Generate what is missing; what is there stays, or sessions and stored tokens would be lost."""
        path = self.state / "coachlist.env"
        if not path.is_file():
            token = secrets.token_urlsafe(32)
            write_private(self.state / "service-token", token + "\n")
            write_private(self.state / "admin-password", secrets.token_urlsafe(12) + "\n")
            settings = {
                "DJANGO_SETTINGS_MODULE": SETTINGS,
                "PYTHONPATH": str(ROOT / "src"),
                "DATABASE_URL": f"sqlite:///{self.state / 'coachlist.sqlite3'}",
                "COACHLIST_SECRET_KEY": secrets.token_urlsafe(50),
                "COACHLIST_SERVICE_TOKENS": token,
                "COACHLIST_ENCRYPTION_KEYS": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
                # Loopback and the bench's own network: browsers shall send the admin's cookies there too.
                "COACHLIST_PLAIN_HTTP": "1",
                "COACHLIST_ALLOWED_HOSTS": ",".join(
                    ["127.0.0.1", "localhost", *([hosts_reach_it_at] if hosts_reach_it_at else [])]
                ),
            }
            lines = [f"{name}={shlex.quote(value)}\n" for name, value in settings.items()]
            write_private(
                path,
                "# All that the coach list is told. Read by a shell, or by a service manager.\n"
                + "".join(lines),
            )
        manage = self.state / "manage"
        write_private(
            manage,
            "#!/bin/sh\n# Django's management commands on this coach list.\nset -a\n"
            f'. {shlex.quote(str(path))}\nexec {shlex.quote(sys.executable)} -m {MANAGE} "$@"\n',
        )
        manage.chmod(0o700)

    def _administrator(self) -> None:
        have = self.manage(
            "shell",
            "-c",
            "from django.contrib.auth.models import User; "
            f"print(User.objects.filter(username='{ADMIN}').count())",
        )
        if not have.endswith("1"):
            password = {"DJANGO_SUPERUSER_PASSWORD": self.admin_password}
            self.manage("createsuperuser", "--no-input", "--username", ADMIN, "--email", "", more=password)

    def _port(self) -> int:
        """The port of the last start, else the preferred one, else a free one."""
        try:
            return int(self.url.rpartition(":")[2])
        except BenchError:
            pass
        for port in (PREFERRED_PORT, 0):
            with socket.socket() as probe:
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError:
                    continue
                return int(probe.getsockname()[1])
        raise BenchError("No free port is left on this machine for the coach list.")


def _http_answers(url: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError:
        return True
    except (urllib.error.URLError, OSError):
        return False


def _tail(path: Path, lines: int = 15) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
