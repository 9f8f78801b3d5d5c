"""The image of the systemd hosts: built from a recipe once, then kept by the recipe's hash.

The base is an official Debian image where a registry can be reached, else it is made of Debian packages. The
result is kept as a compressed file as well, so that an empty engine has it back in seconds.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from clawbench.shell import BenchError, cache_dir, docker, locked, program, run

REPOSITORY = "claw-bench-host"
BASE_REPOSITORY = "claw-bench-base"
LABEL = "claw.bench.image"
"""On all that is made here, so that what an interrupted build left without a name is found again."""
RECIPE = Path(__file__).resolve().parents[1] / "image"
SUITES = {"12": "bookworm", "13": "trixie"}
EXTRA_CAS = Path("/usr/local/share/ca-certificates")
APT_RETRIES = 5
"""How often a package that did not come is asked for again; apt itself gives up at once, or after three."""
REGISTRY_SECONDS = 10
"""How long a registry may take to say whether it has the base."""


def tag(debian: str = "12") -> str:
    """The image's name: changes whenever the recipe or what this machine trusts does."""
    if debian not in SUITES:
        raise BenchError(f"There is no host image for Debian {debian}. Choose one of: {', '.join(SUITES)}.")
    digest = hashlib.sha256(debian.encode())
    for path in [*sorted(RECIPE.iterdir()), *_extra_cas()]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return f"{REPOSITORY}:{debian}-{digest.hexdigest()[:12]}"


def kept_at(name: str) -> Path:
    """The compressed file of an image."""
    return _images() / (name.replace(":", "-") + ".tar.zst")


def ensure(debian: str = "12") -> tuple[str, str]:
    """The image is in the engine; returns its name and how it came: present, loaded or built."""
    name = tag(debian)
    kept = kept_at(name)
    # Two benches that start at once build it once.
    with needed(), locked(_images() / "lock"):
        if docker("image", "ls", "--quiet", name):
            return name, "present"
        if kept.is_file():
            _load(kept)
            if docker("image", "ls", "--quiet", name):
                return name, "loaded"
        _build(name, debian)
        _save(name, kept)
        return name, "built"


def needed(how: int = fcntl.LOCK_SH) -> AbstractContextManager[None]:
    """Until its end no image is forgotten: a bench that comes up has them before it has a container that needs them."""
    return locked(_images() / "needed", how)


def forget() -> None:
    """Take the images, of every release and recipe, out of the engine; the compressed files stay.

    Those that a container needs stay, and all of them while another bench comes up.
    """
    with suppress(BlockingIOError), needed(fcntl.LOCK_EX | fcntl.LOCK_NB):
        for name in _names():
            if name.startswith((f"{REPOSITORY}:", f"{BASE_REPOSITORY}:")):
                docker("image", "rm", name, check=False)
        docker("image", "prune", "--force", "--filter", f"label={LABEL}", check=False)


def _names() -> list[str]:
    """The names of all images in the engine."""
    return docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").split()


def _images() -> Path:
    return cache_dir() / "images"


def _extra_cas() -> list[Path]:
    return sorted(EXTRA_CAS.glob("*.crt")) if EXTRA_CAS.is_dir() else []


def _build(name: str, debian: str) -> None:
    before = _names()
    base = _base(debian)
    with tempfile.TemporaryDirectory() as directory:
        context = Path(directory)
        shutil.copytree(RECIPE, context, dirs_exist_ok=True)
        (context / "cas").mkdir()
        for certificate in _extra_cas():
            shutil.copy(certificate, context / "cas")
        given = [f"--build-arg=BASE={base}", f"--build-arg=APT_RETRIES={APT_RETRIES}"]
        command = ["build", "--quiet", "--force-rm", *given, f"--label={LABEL}=host"]
        docker(*command, "--tag", name, context, timeout=900, why="build the host image")
    if base not in before:
        # The host image has its layers; nothing else needs the name.
        docker("image", "rm", base, check=False)


def _base(debian: str) -> str:
    """The name of a minimal Debian image in the engine."""
    official = f"debian:{SUITES[debian]}-slim"
    if docker("image", "ls", "--quiet", official):
        return official
    made = f"{BASE_REPOSITORY}:{debian}"
    if docker("image", "ls", "--quiet", made):
        return made
    if _registry_has(official):
        docker("pull", "--quiet", official, timeout=300, why=f"pull {official}")
        return official
    _bootstrap(made, SUITES[debian])
    return made


def _registry_has(image: str) -> bool:
    try:
        done = run(["docker", "manifest", "inspect", image], check=False, timeout=REGISTRY_SECONDS)
    except BenchError:
        return False
    return done.returncode == 0


def _bootstrap(name: str, suite: str) -> None:
    """Make a minimal Debian of its packages."""
    if os.geteuid() != 0:
        raise BenchError(
            "No container registry answers, and making a base image of Debian packages needs root."
        )
    mmdebstrap = program("mmdebstrap", "mmdebstrap")
    hook = Path("/usr/share/mmdebstrap/hooks/maybe-merged-usr")
    command = [
        mmdebstrap,
        "--quiet",
        "--variant=minbase",
        f'--aptopt=Acquire::Retries "{APT_RETRIES}"',
        *([f"--hook-dir={hook}"] if hook.is_dir() else []),
        suite,
    ]
    with tempfile.NamedTemporaryFile(suffix=".tar") as tarball:
        run([*command, tarball.name], timeout=900, why=f"make a base image of Debian's {suite} packages")
        label = f"LABEL {LABEL}=base"
        docker("import", "--change", label, tarball.name, name, why="import the base image")


def _save(name: str, kept: Path) -> None:
    """Keep an image as a file, in place of the files of older recipes."""
    unfinished = kept.with_suffix(".unfinished")
    _pipe(
        ["docker", "save", name],
        [program("zstd", "zstd"), "-q", "-f", "-T0", "-o", str(unfinished)],
        "keep the image",
    )
    unfinished.replace(kept)
    for older in kept.parent.glob(f"{kept.name.rpartition('-')[0]}-*.zst"):
        if older != kept:
            older.unlink()


def _load(kept: Path) -> None:
    _pipe(
        [program("zstd", "zstd"), "-q", "-dc", str(kept)],
        ["docker", "load", "--quiet"],
        "load the kept image",
    )


def _pipe(source: list[str], sink: list[str], why: str) -> None:
    with subprocess.Popen(source, stdout=subprocess.PIPE) as first:
        done = subprocess.run(sink, stdin=first.stdout, capture_output=True, text=True, check=False)
        if first.stdout is not None:
            first.stdout.close()
    if first.returncode != 0 or done.returncode != 0:
        raise BenchError(f"Could not {why}: `{source[0]} | {sink[0]}` failed. {done.stderr.strip()[-500:]}")
