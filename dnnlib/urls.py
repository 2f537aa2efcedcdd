"""Files by address: https://... and hf://user/repo/file as local files, downloaded once and kept by content."""

import contextlib
import hashlib
import http.client
import json
import os
import re
import string
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dnnlib.file_kinds import foreign_kind
from dnnlib.files import atomic_write
from dnnlib.text import first_line, format_bytes

MAX_BYTES = 8 * 2**30  # of a download
_TIMEOUT_SEC = 30.0
_CHUNK_BYTES = 2**20
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
_SAFE_NAME = re.compile(r"[^\w.-]+", re.ASCII)


class AddressError(ValueError):
    """An address that cannot be opened; the message names it and the remedy."""


def is_address(text: str) -> bool:
    return _SCHEME.match(text) is not None


def local_file(text: str, cache_folder: Path) -> str:
    """The path of a local copy of the file at an address; a path is returned as it is.

    Args:
        text: A path, http://..., https://... or hf://user/repo/file, with @revision after repo if wanted.
        cache_folder: Where copies of http files are kept, as downloads/HASH/NAME; huggingface_hub has its own cache.

    Raises:
        AddressError: Another kind of address, a file that cannot be downloaded or is too large, or a web page.
    """
    match = _SCHEME.match(text)
    if match is None:
        return text
    scheme = match[1].lower()
    if scheme == "hf":
        return _from_hub(text)
    if scheme not in ("http", "https"):
        raise AddressError(f"{text}: {scheme}:// is not supported; use https://, hf://user/repo/file or a local file")
    try:
        return str(_from_http(text, cache_folder / "downloads"))
    except AddressError:
        raise
    except (http.client.HTTPException, OSError, ValueError) as error:  # URLError is an OSError
        status = f"HTTP status {error.code}, " if isinstance(error, urllib.error.HTTPError) else ""
        reason = f"{text}: the download failed ({status}{_reason(error)})"
        raise AddressError(f"{reason}; check the address, or give a local file") from error


def _reason(error: Exception) -> str:
    return " ".join(str(getattr(error, "reason", None) or error).split()) or type(error).__name__


def load_hub(text: str) -> Any:
    """The package huggingface_hub; raises AddressError, which names what needs it, if it is not installed."""
    try:
        import huggingface_hub
    except ImportError as error:
        raise AddressError(f"{text}: Hugging Face needs one more package: pip install huggingface_hub") from error
    return huggingface_hub


def _from_hub(text: str) -> str:
    """The file at hf://user/repo[@revision]/file."""
    match = re.fullmatch(r"hf://([^/@]+/[^/@]+)(?:@([^/]+))?/(.+)", text, re.IGNORECASE)
    if match is None:
        raise AddressError(f"{text}: write hf://user/repo/file, such as hf://user/faces/network-snapshot-025000.pkl")
    hub = load_hub(text)
    try:
        return str(hub.hf_hub_download(repo_id=match[1], filename=match[3], revision=match[2]))
    except Exception as error:  # of many classes, those of its HTTP library among them
        raise AddressError(f"{text}: the download failed ({first_line(error)})") from error


def _from_http(address: str, folder: Path) -> Path:
    """Download a file, unless its server reports no change or cannot be reached and there is a copy; return its path."""
    index = folder / f"{hashlib.sha256(address.encode()).hexdigest()[:20]}.json"
    known = _known(index)
    headers = {"User-Agent": "styleformer"}
    if known and known["etag"]:
        headers["If-None-Match"] = known["etag"]
    try:
        quoted = urllib.parse.quote(address, safe=string.punctuation)  # spaces and letters outside ASCII
        reply = urllib.request.urlopen(urllib.request.Request(quoted, headers=headers), timeout=_TIMEOUT_SEC)
    except (http.client.HTTPException, OSError) as error:
        status = getattr(error, "code", 500)
        if known is None or (status != 304 and status < 500):
            raise
        if status != 304:
            print(f"{address} cannot be reached ({_reason(error)}); using the copy {known['path']}")
        return Path(known["path"])
    with reply:
        sha256, path = _save(reply, address, folder)
        etag = reply.headers.get("ETag")
    with atomic_write(index, "w") as file:
        json.dump({"address": address, "etag": etag, "sha256": sha256, "path": str(path)}, file)
    return path


def _known(index: Path) -> dict[str, Any] | None:
    """What an earlier download wrote, if its file is still there."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        known: dict[str, Any] = json.loads(index.read_text(encoding="utf-8"))
        if Path(known["path"]).is_file() and "etag" in known:
            return known
    return None


def _save(reply: Any, address: str, folder: Path) -> tuple[str, Path]:
    """Save a reply as FOLDER/HASH/NAME; return its SHA-256 and path. Raises AddressError, OSError."""
    in_address = urllib.parse.unquote(urllib.parse.urlsplit(address).path).rsplit("/", 1)[-1]
    name = _SAFE_NAME.sub("_", reply.headers.get_filename() or in_address)[-100:].strip(".") or "file"
    length = int(reply.headers.get("Content-Length") or 0)
    folder.mkdir(parents=True, exist_ok=True)
    digest, size, incoming = hashlib.sha256(), 0, folder / f"{os.getpid()}-{name}"
    with (
        atomic_write(incoming) as file,
        tqdm(total=length or None, unit="B", unit_scale=True, desc=name, disable=None) as bar,
    ):
        while chunk := reply.read(_CHUNK_BYTES):
            size += len(chunk)
            if max(size, length) > MAX_BYTES:
                raise AddressError(f"{address}: the file is larger than the limit of {format_bytes(MAX_BYTES)}")
            digest.update(chunk)
            file.write(chunk)
            bar.update(len(chunk))
        if length and size < length:
            raise AddressError(f"{address}: the download ended after {size:,} of {length:,} bytes; try again")
    if kind := foreign_kind(incoming):
        incoming.unlink()
        raise AddressError(f"{address}: this is {kind}")
    sha256 = digest.hexdigest()
    path = folder / sha256[:20] / name
    path.parent.mkdir(exist_ok=True)
    incoming.replace(path)
    return sha256, path
