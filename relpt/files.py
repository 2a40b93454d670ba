"""Files that are whole or not there: written beside their place, synced, renamed."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, BinaryIO

__all__ = [
    "check_can_write",
    "json_text",
    "parse_json",
    "read_json",
    "read_table",
    "replace_file",
    "replace_folder",
    "replaceable",
    "sync_folder",
    "write_file",
    "write_into",
    "write_json",
]


def write_file(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Calls ``write(file)`` on a new file and syncs it to the disk."""
    with open(path, "wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())


def json_text(value: Any, **options: Any) -> str:
    """The value as JSON, in which NumPy's numbers are numbers."""
    return json.dumps(value, ensure_ascii=False, default=_plain, **options)


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{value!r} cannot be written as JSON")


def write_json(path: Path, value: Any) -> None:
    """Writes a value as indented JSON, synced."""
    text = json_text(value, indent=2) + "\n"
    write_file(path, lambda file: file.write(text.encode()))


def parse_json(data: bytes) -> Any:
    """The value of a JSON text in UTF-8.

    Raises:
        ValueError: it is none, or holds half of a surrogate pair, which could not be written again.
    """
    try:
        value = json.loads(data.decode())
        if b"\\ud" in data.lower():
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except UnicodeEncodeError as error:
        raise ValueError(f"holds half of a surrogate pair, {error.object[error.start]!a}") from None
    return value


def read_json(path: Path) -> Any:
    """Reads a JSON file; FormatError names the file."""
    from relpt.errors import FormatError

    try:
        return parse_json(path.read_bytes())
    except ValueError as error:
        raise FormatError(f"{path}: is no valid JSON ({error}); the file is damaged") from None


def read_table(path: Path) -> dict[str, Any]:
    """Reads a JSON file that holds an object; FormatError names the file."""
    from relpt.errors import FormatError

    value = read_json(path)
    if not isinstance(value, dict):
        raise FormatError(f"{path}: holds no JSON object; the file is damaged")
    return value


def replaceable(folder: str | os.PathLike[str], card: str, form: str, *more: str) -> Path:
    """The real path of a folder that may be written as a whole.

    That is one that is not there, is empty, or holds ``card``, which says that its format is ``form``, and beside it
    only files whose names match one of ``more``.

    Raises:
        FileExistsError: something else is there, which would be lost.
    """
    target = Path(os.path.realpath(folder))
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return target
    if not (target / card).is_file():
        raise FileExistsError(f"{target} is there and has no {card}; give another path, or remove it")
    try:
        own = read_table(target / card).get("format") == form
    except ValueError:
        own = False
    others = [name for name in sorted(os.listdir(target)) if name != card and not any(fnmatch(name, m) for m in more)]
    if not own or others:
        raise FileExistsError(
            f"{target} holds {others[0] if others else f'another {card}'}, which would be lost; give another path, or "
            "remove it"
        )
    return target


def check_can_write(folder: Path, option: str) -> None:
    """Refuses a folder into which no file can be written, or that cannot be made; makes nothing.

    Args:
        folder: to write into, there or not.
        option: what named it, for the message.

    Raises:
        OSError: names folder, reason and option.
    """
    try:
        there = folder
        while not there.exists() and there != there.parent:
            there = there.parent
        if not there.is_dir():
            raise NotADirectoryError(0, f"{there} is a file")
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:
        text = f"{folder} cannot be written ({error.strerror or error}); give another path with {option}"
        raise type(error)(text) from None


def sync_folder(path: Path) -> None:
    """Syncs a folder's entries (renames in it) to the disk."""
    if os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _open_folder(target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f".{target.name}.new-", dir=target.parent))
    mask = os.umask(0)
    os.umask(mask)
    os.chmod(new, 0o777 & ~mask)
    return new


def _move_into_place(new: Path, target: Path) -> None:
    """Renames ``new`` to ``target``; what was there is moved aside first and removed last, or put back on failure."""
    old = target.with_name(f"{new.name}.old")
    had = target.exists()
    if had:
        os.rename(target, old)
    try:
        os.rename(new, target)
    except BaseException:
        if had:
            os.rename(old, target)
        raise
    sync_folder(target.parent)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def replace_file(target: Path) -> Iterator[BinaryIO]:
    """Gives a temporary file beside ``target``; when the block ends well it is synced and takes the target's place.

    On any error the temporary file is removed and the target is what it was.
    """
    new = target.with_name(f".{target.name}.new-{os.getpid()}")
    try:
        with open(new, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, target)
    finally:
        new.unlink(missing_ok=True)


@contextmanager
def replace_folder(target: Path) -> Iterator[Path]:
    """Gives a temporary folder beside ``target``; when the block ends well it takes the target's place as a whole.

    On any error the temporary folder is removed and the target is what it was.
    """
    target = Path(os.path.realpath(target))
    new = _open_folder(target)
    try:
        yield new
        sync_folder(new)
        _move_into_place(new, target)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise


@contextmanager
def write_into(folder: Path, *, unless: str | None = None) -> Iterator[Path]:
    """Gives a temporary folder; when the block ends well its files are moved, one rename each, into ``folder``.

    Other files of ``folder`` stay. Nothing is moved before everything is written and synced.

    Raises:
        FileExistsError: the folder holds a file called ``unless``, by which it would be opened as something else.
    """
    folder = Path(os.path.realpath(folder))
    if unless is not None and (folder / unless).exists():
        raise FileExistsError(
            f"{folder} holds a {unless}, by which it would be opened; give another path, or remove it"
        )
    new = _open_folder(folder)
    try:
        yield new
        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(new.iterdir()):
            os.replace(path, folder / path.name)
        sync_folder(folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)
