"""Commands, conditions and errors: what the rest of the bench is written in."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
"""The repository."""


class BenchError(Exception):
    """Something of the bench itself failed. The message says what, and what to do about it."""


def cache_dir() -> Path:
    """Where downloads and images are kept between runs: `CLAW_CACHE_DIR`, or `.cache/` of the repository."""
    path = Path(os.environ.get("CLAW_CACHE_DIR") or ROOT / ".cache").resolve()
    path.mkdir(parents=True, exist_ok=True)
    return path


def run(
    args: Sequence[str | Path],
    *,
    stdin: str | bytes | None = None,
    check: bool = True,
    timeout: float = 600,
    env: dict[str, str] | None = None,
    why: str = "",
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and return it with its output.

    `why` says what the command was for, in the error that a failure raises.
    """
    text = stdin.decode() if isinstance(stdin, bytes) else stdin
    words = [str(arg) for arg in args]
    what = why or "run " + " ".join(words[:3])
    try:
        done = subprocess.run(
            words, input=text, capture_output=True, text=True, timeout=timeout, env=env, check=False
        )
    except FileNotFoundError as missing:
        raise BenchError(f"Could not {what}: there is no program `{words[0]}` on this machine.") from missing
    except subprocess.TimeoutExpired as late:
        raise BenchError(f"Could not {what}: `{words[0]}` did not end within {timeout:.0f} s.") from late
    if check and done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip())[-3000:]
        raise BenchError(f"Could not {what}: exit status {done.returncode}.\n{said}")
    return done


def docker(
    *args: str | Path,
    stdin: str | bytes | None = None,
    check: bool = True,
    timeout: float = 600,
    why: str = "",
) -> str:
    """Run one command of the Docker client and return what it printed."""
    return run(["docker", *args], stdin=stdin, check=check, timeout=timeout, why=why).stdout.strip()


def until(
    condition: Callable[[], bool],
    *,
    seconds: float,
    what: str,
    hint: str = "",
    evidence: Callable[[], str] | None = None,
    pause: float = 0.2,
) -> None:
    """Wait until the condition holds.

    Raises:
        BenchError: it did not within `seconds`; the message names `what` was awaited, `hint`, and what `evidence` finds then.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            found = evidence() if evidence else ""
            raise BenchError(
                " ".join(filter(None, (f"Waited {seconds:.0f} s in vain for {what}.", hint, found)))
            )
        time.sleep(pause)


def program(name: str, package: str) -> str:
    """The path of a program; it is installed from Debian where it is missing and we may.

    Raises:
        BenchError: it is missing, and this is not Debian or we are not root.
    """
    found = shutil.which(name)
    if found is None:
        apt_install(package, reason=f"the program `{name}`")
        found = shutil.which(name)
    if found is None:
        raise BenchError(f"The Debian package {package} was installed but brought no program `{name}`.")
    return found


def apt_install(*packages: str, reason: str) -> None:
    """Install Debian packages, without recommended ones."""
    names = " ".join(packages)
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise BenchError(
            f"This machine lacks {reason}. Install it (on Debian or Ubuntu: sudo apt-get install {names}) "
            "and start again."
        )
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    command = ["apt-get", "install", "--yes", "--no-install-recommends", *packages]
    # apt-get does not wait for another one; the tests, which run beside each other, do.
    with locked(cache_dir() / "apt.lock"):
        run(["apt-get", "update"], env=env, why="refresh the list of Debian packages")
        run(command, env=env, why=f"install {names} from Debian")


@contextmanager
def locked(path: Path, how: int = fcntl.LOCK_EX) -> Iterator[None]:
    """Hold a lock by its file, as `fcntl.flock` has it; BlockingIOError where it is held and `how` does not wait."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, how)
        yield


def write_private(path: Path, content: str) -> None:
    """Write a file that only its owner may read, in one step; an equal one stays as it is."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if path.is_file() and path.read_text() == content:
        return
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(content)
    temporary.replace(path)


def is_ours(pid_file: Path, needle: str) -> int | None:
    """The process that a pid file names, if it lives and its command line contains `needle`; else None."""
    try:
        pid = int(pid_file.read_text().strip())
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except (OSError, ValueError):
        return None
    return pid if needle in command else None


def end_process(pid: int, signal: int, *, seconds: float, what: str) -> None:
    """Send a signal to a process and wait until it is gone."""
    try:
        os.kill(pid, signal)
    except ProcessLookupError:
        return
    until(
        lambda: not lives(pid),
        seconds=seconds,
        what=f"the end of {what} (process {pid})",
        hint=f"End it with: kill -9 {pid}",
    )


def lives(pid: int) -> bool:
    """Whether a process is there and not merely unburied."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state not in "ZX"
