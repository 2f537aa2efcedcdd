"""A folder or a zip file, read the same way."""

import contextlib
import functools
import os
import re
import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import IO, NoReturn

from dnnlib.archive.zip_reader import MAX_FILE_BYTES, READ_ERRORS, ChangedError, ZipReader, check_size, describe_error
from dnnlib.file_kinds import foreign_kind
from dnnlib.names import both_shown, normal_name, printable
from dnnlib.paths import user_path

# What file managers, NAS and editors put among images, in lower case; hidden files and folders are skipped as well.
_CLUTTER_FOLDERS = {
    "__macosx", "@eadir", "@recycle", "@recently-snapshot", "@tmp", "@sharebin", "#recycle", "#snapshot", "$recycle.bin",
    "recycler", "system volume information", "network trash folder", "temporary items", "lost+found", "picasaoriginals",
}  # fmt: skip
_CLUTTER_FILES = {"thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "picasa.ini", "icon\r"}
_CLUTTER_START = ("synophoto_thumb_", "synoindex_thumb_")

_RUN_FILE = "training_options.json"  # in each run folder, whose grids and previews are no data

# Of a zip: the digest of its table. Of a folder: (normal name, name on the disk) of the files where these differ.
Identity = str | tuple[tuple[str, str], ...]


class FileTree:
    """The files of a folder or of a zip, by their normal names relative to its root.

    May be pickled and used after a fork: each process opens a zip for itself, once. A zip that was replaced or changed
    after it was opened raises ChangedError in all of them.

    Args:
        shown: What messages call it, where that is not its path.
    """

    def __init__(self, path: str | Path, identity: Identity | None = None, shown: Path | None = None) -> None:
        if identity is None:  # of one that was opened before, in this process or another
            path = user_path(path)
            _require_readable(path)
            identity = () if path.is_dir() else ""
        self.path = Path(path)
        self.shown = shown or self.path
        self._zip = ZipReader(self.path, identity) if isinstance(identity, str) else None  # None = a folder
        # in a folder: names on the disk, where they are not the normal ones
        self._spelled = {} if isinstance(identity, str) else dict(identity)
        self._empty: list[str] = []  # in a folder: those without anything in them

    def __reduce__(self) -> tuple[Callable[..., "FileTree"], tuple[object, ...]]:
        identity = self._zip.digest if self._zip else tuple(self._spelled.items())
        return _opened, (type(self), self.path, identity, self.shown)

    def names(self) -> list[str]:
        """Return all files but hidden ones and clutter, in no particular order.

        Raises ValueError: a folder that cannot be read, two files of one name, a damaged zip, absolute paths or ".." in it.
        """
        return self._listing[0]

    def clutter(self) -> Counter[str]:
        """Return how many files `names` skips, by kind: "hidden", "@eaDir", ..."""
        return self._listing[1]

    @cached_property
    def _listing(self) -> tuple[list[str], Counter[str]]:
        names, clutter = [], Counter[str]()
        every = list(self._zip.members() if self._zip else self._folder_names())
        runs = tuple(name.removesuffix(_RUN_FILE) for name in every if name.split("/")[-1] == _RUN_FILE)
        for name in every:
            kind = "files of training runs" if runs and name.startswith(runs) else clutter_kind(name)
            if kind:
                clutter[kind] += 1
            else:
                names.append(name)
        return names, clutter

    def folders(self) -> list[str]:
        """Return folders, as "cat/": the empty ones, or those that a zip lists beside its files; no hidden ones or clutter."""
        found = self._zip.folders() if self._zip else self._listing and self._empty
        return [f"{name.rstrip('/')}/" for name in found if not clutter_kind(name)]

    def origin(self, name: str) -> str:
        """Return what to call a file in a message."""
        return f"{printable(name)} in {printable(str(self.shown))}"

    @contextlib.contextmanager
    def named_errors(self, name: str) -> Iterator[None]:
        """Turn any error of reading this file into a ValueError that names it."""
        try:
            yield
        except ChangedError:  # names the whole zip
            raise
        except (ValueError, *READ_ERRORS) as error:
            is_known = isinstance(error, ValueError) and not isinstance(error, UnicodeError)
            reason = str(error) if is_known else f"cannot be read: {describe_error(error)}"
            raise ValueError(f"{self.origin(name)} {reason}") from error

    def check(self) -> None:
        """Raise ChangedError if the zip or folder is gone, or another zip is in its place."""
        if self._zip:
            self._zip.check()
        elif not self.path.is_dir():
            raise ChangedError(f"{self.shown} is gone; put it back")

    def is_damaged(self, name: str) -> bool:
        """Return whether the checksum of a member of a zip is wrong; a folder has no checksums."""
        try:
            if self._zip:
                self.read(name)
        except (UnicodeError, *READ_ERRORS):
            return True
        except ValueError:
            return False
        return False

    def exists(self, name: str) -> bool:
        return name in self._zip.members() if self._zip else self._path_of(name).is_file()

    def open(self, name: str) -> IO[bytes]:
        return self._zip.open(name) if self._zip else _open_file(self._path_of(name))

    def sizes(self, names: Sequence[str]) -> list[int]:
        return self._of_each(names, lambda member: member.file_size, lambda name: self._path_of(name).stat().st_size)

    def crcs(self, names: Sequence[str]) -> list[int]:
        return self._of_each(names, lambda member: member.CRC, lambda name: zlib.crc32(self.read(name)))

    def _of_each(
        self, names: Sequence[str], in_zip: Callable[[zipfile.ZipInfo], int], on_disk: Callable[[str], int]
    ) -> list[int]:
        if self._zip:
            members = self._zip.members()
            return [in_zip(members[name]) for name in names]
        found = []
        for name in names:
            with self.named_errors(name):
                found.append(on_disk(name))
        return found

    def read(self, name: str, max_bytes: int = MAX_FILE_BYTES) -> bytes:
        """Return the content of a file; ValueError if it is larger than so many bytes."""
        if self._zip:
            return self._zip.read(name, max_bytes)
        with _open_file(self._path_of(name)) as file:
            size = os.fstat(file.fileno()).st_size
            check_size(size, max_bytes)
            return file.read(size)

    def _path_of(self, name: str) -> Path:
        return self.path / self._spelled.get(name, name)

    def _folder_names(self) -> list[str]:
        root = str(self.path)
        found: dict[str, str] = {}
        for folder, subfolders, names in os.walk(root, onerror=_refuse_folder, followlinks=True):
            subfolders[:] = [name for name in subfolders if not _leads_back(root, folder, name)]
            inside = "" if folder == root else os.path.relpath(folder, root).replace(os.sep, "/") + "/"
            if not subfolders and not names:
                self._empty.append(normal_name(inside))
            for spelled in (inside + name for name in names):
                name = normal_name(spelled)
                if name in found:
                    both = both_shown(found[name], spelled)
                    raise ValueError(f"{self.shown} has two files of one name: {both}; rename or remove one of them")
                found[name] = spelled
        self._spelled = {name: spelled for name, spelled in found.items() if name != spelled}
        return list(found)


def natural_key(name: str) -> tuple[list[list[str | int]], str]:
    """Return a sort key that compares folder by folder and takes runs of digits as numbers."""
    *folders, last = name.split("/")
    return [*map(_folder_key, folders), _part_key(last)], name


def _part_key(part: str) -> list[str | int]:
    return [int(text) if index % 2 else text for index, text in enumerate(re.split("([0-9]+)", part))]


_folder_key = functools.lru_cache(maxsize=1024)(_part_key)


@functools.lru_cache(maxsize=8)
def _opened(kind: type[FileTree], path: Path, identity: Identity, shown: Path) -> FileTree:
    """Return the tree of a pickle: one for all pickles, as reading the table of a large zip takes long."""
    return kind(path, identity, shown)


def _require_readable(path: Path) -> None:
    if not path.exists():
        raise ValueError(f"{path} does not exist; give a folder or a zip file")
    if not os.access(path, os.R_OK):
        raise ValueError(f"{path} cannot be read: permission denied; make it readable with chmod")
    if path.is_dir() or (path.is_file() and zipfile.is_zipfile(path)):
        return
    if path.is_file() and path.open("rb").read(4) == b"PK\3\4":
        raise ValueError(f"{path} is a damaged zip file (its end is missing); copy or download it again")
    if path.is_file() and (kind := foreign_kind(path)):
        raise ValueError(f"{path} is {kind}. A data set is a folder or a zip file")
    raise ValueError(f"{path} is neither a folder nor a readable zip file; give one of the two")


def _open_file(path: Path) -> IO[bytes]:
    """Open an ordinary file; a named pipe would block."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError("is no ordinary file; move it away")
    return open(path, "rb")


def _refuse_folder(error: OSError) -> NoReturn:
    raise ValueError(f"{error.filename} cannot be read: {error.strerror}; make it readable, or move it away") from error


def clutter_kind(name: str) -> str | None:
    """Return the kind of a file that is not part of a data set, such as "hidden" or "@eaDir"; None if it may be."""
    *folders, last = name.split("/")
    for folder in folders:
        if folder.lower() in _CLUTTER_FOLDERS:
            return folder
    lower = last.lower()
    if lower in _CLUTTER_FILES:
        return last
    if lower.startswith(_CLUTTER_START):
        return "thumbnails of a NAS"
    return "hidden" if name.startswith(".") or "/." in name else None


def _leads_back(root: str, folder: str, name: str) -> bool:
    """Return whether a sub-folder is a link to one of the folders on the way from the root to it, or to what contains one."""
    path = Path(folder, name)
    if not path.is_symlink():
        return False
    target = path.resolve()
    on_the_way = [parent for parent in path.parents if parent.is_relative_to(root)]
    return any(parent.resolve().is_relative_to(target) for parent in on_the_way)
