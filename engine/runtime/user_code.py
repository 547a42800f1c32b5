"""Imports a user's Python files (`--load`) once, locates errors in them, and hashes their contents.

The folder of a loaded file is appended to `sys.path`, so that the file can import modules beside it
and they hide no other module. A local import is a module whose file is in such a folder.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Sequence
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any, NamedTuple

from engine.runtime.startup import import_tensorflow

_MAX_LENGTH = 400  # characters of an error's message
_ROOT = Path(__file__).resolve().parents[2]
_OTHERS = (  # folders whose files are not a user's, even below the folder of a loaded file
    *(os.path.join(_ROOT, package, "") for package in ("engine", "pipelines", "tapeline")),
    os.path.join(os.path.dirname(os.path.realpath(os.__file__)), ""),  # the standard library
)

_PACKAGES = frozenset(("site-packages", "dist-packages"))

_digests: dict[str, str] = {}  # real path of a loaded file or local import -> SHA-256, in hex
_loaded: list[str] = []  # real paths of the loaded files, in order
_scripts: list[str] = []  # those that run as `__main__`
_loading: list[str] = []  # those that are being imported now


class UserCodeError(ValueError):
    """Raised when a user's code fails, such as on import; the one-line message says where."""


def load(paths: Sequence[str]) -> None:
    """Imports Python files that are not loaded yet; imports TensorFlow first, silently.

    Raises:
      UserCodeError: if a file cannot be read, or if it raises an error.
    """
    for path in map(os.path.realpath, paths):
        if path not in _loaded:
            import_tensorflow()
            _import(path)


def add_script(path: str) -> None:
    """Counts the running script as loaded, and appends its folder to `sys.path`.

    Importing the script by name then returns `__main__`. Does nothing if `path` is no file or is
    loaded already.

    Raises:
      UserCodeError: if the script cannot be read.
    """
    path = os.path.realpath(path)
    if path not in _loaded and os.path.isfile(path):
        _register(path, _contents(path))
        _scripts.append(path)
        sys.modules.setdefault(_module_name(path), sys.modules["__main__"])


def with_scripts(paths: Sequence[str]) -> list[str]:
    """Returns `paths`, the paths of files to load, and the running script, which counts as loaded.

    A file with the name of the script is left out: its path may be that of the script before the
    project was moved.
    """
    names = {os.path.basename(script) for script in _scripts}
    return [*(path for path in paths if os.path.basename(path) not in names), *_scripts]


def is_loading() -> bool:
    """Returns whether a file is being imported by `load`."""
    return bool(_loading)


def digests() -> list[dict[str, str]]:
    """Returns {"file": name, "sha256": hex digest} of each loaded file, then of each local import.

    A file is named relative to the folder of the loaded file that it belongs to. Its digest is that
    of the contents when it was loaded or, for a local import, when this function first found it.

    Raises:
      UserCodeError: if the file of a local import cannot be read.
    """
    modules = [each for each in sys.modules.values() if each is not sys.modules["__main__"]]
    for module in modules if _loaded else ():
        path = getattr(module, "__dict__", {}).get("__file__")
        if isinstance(path, str) and _local_name(path):
            path = _real_path(path)
            if path not in _digests:
                _digests[path] = hashlib.sha256(_contents(path)).hexdigest()
    imported = sorted(_digests.keys() - set(_loaded))
    return [{"file": _local_name(path), "sha256": _digests[path]} for path in (*_loaded, *imported)]


def differences(before: Sequence[dict[str, str]]) -> list[str]:
    """Returns the sorted names of files that were changed, added or removed since `before`.

    `before` is a result of `digests`.
    """
    one, other = ({(each["file"], each["sha256"]) for each in d} for d in (before, digests()))
    return sorted({name for name, _ in one ^ other})


def user_code_location(error: BaseException | None) -> str:
    """Returns where in a user's files an error was raised, as "my.py:12"; "" if it was not there.

    A user's files are the loaded files and their local imports. The location is the innermost frame
    in such a file of the error's traceback or, if there is none, of the traceback of its cause. For
    a SyntaxError in such a file, the location is the line with the syntax error.
    """
    while error is not None and _loaded:
        if isinstance(error, SyntaxError) and (name := _local_name(error.filename or "")):
            return f"{name}:{error.lineno}"
        frames = [
            f"{name}:{line}"
            for frame, line in traceback.walk_tb(error.__traceback__)
            if (name := _local_name(frame.f_code.co_filename))
        ]
        if frames:
            return frames[-1]
        error = error.__cause__
    return ""


class CodeLine(NamedTuple):
    """A line of a user's code."""

    text: str  # "my.py:12", the file relative to the folder of the loaded file
    path: str  # path of the file
    line: int  # from 1


def calling_line() -> CodeLine | None:
    """Returns the line of a user's file that is running now, in the innermost call; None if none.

    A user's files are as in `user_code_location`.
    """
    frame = sys._getframe(1) if _loaded else None
    while frame is not None:
        if name := _local_name(frame.f_code.co_filename):
            return CodeLine(f"{name}:{frame.f_lineno}", frame.f_code.co_filename, frame.f_lineno)
        frame = frame.f_back
    return None


def place(*written: Any) -> str:
    """Returns the file and line of the first user-written argument, as "my.py:12: ".

    The arguments are functions or classes. A message about one starts with this text. The result is
    "" if the engine or libraries define all arguments.
    """
    for each in written:
        try:
            path = inspect.getsourcefile(inspect.unwrap(each)) or ""
            if path and not path.startswith(_OTHERS) and not _PACKAGES & set(Path(path).parts):
                return f"{os.path.basename(path)}:{inspect.getsourcelines(each)[1]}: "
        except (OSError, TypeError):  # such as a function of C, or of a file that is gone
            continue
    return ""


def described(error: BaseException) -> str:
    """Returns an error of a user's code as one line: location (if known), type and message.

    A message is cut after 400 characters. For a UserCodeError, the line is its message alone.
    """
    if isinstance(error, UserCodeError):
        return str(error)
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    message = " ".join(message.split())
    if len(message) > _MAX_LENGTH:
        message = message[:_MAX_LENGTH] + "..."
    return ": ".join(filter(None, [user_code_location(error), type(error).__name__, message]))


class _Loader(SourceFileLoader):
    """Loader that always compiles the source, because a cached .pyc file may be outdated."""

    def get_code(self, fullname: str) -> object:  # type: ignore[override]
        return self.source_to_code(self.get_data(self.path), self.path)


def _import(path: str) -> None:
    _register(path, _contents(path))
    name = _module_name(path)
    loader = _Loader(name, path)
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    _loading.append(path)
    try:
        loader.exec_module(module)
    except (Exception, SystemExit) as error:
        sys.modules.pop(name, None)
        text = described(error)
        _loaded.remove(path)
        place = os.path.basename(path)
        raise UserCodeError(text if place in text else f"{place}: {text}") from error
    finally:
        _loading.remove(path)


def _contents(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UserCodeError(f"--load={path}: cannot be read: {error.strerror}") from None


def _register(path: str, contents: bytes) -> None:
    """Adds a file to the loaded files, with its digest, and its folder to `sys.path`."""
    _digests[path] = hashlib.sha256(contents).hexdigest()
    _loaded.append(path)
    _local_name.cache_clear()
    if (folder := os.path.dirname(path)) not in map(os.path.realpath, sys.path):
        sys.path.append(folder)


def _module_name(path: str) -> str:
    """Returns the module name under which a file is imported.

    This is the file's name without suffix. If importing that name would not find the file, or a
    module of that name is imported already, it is a unique name.
    """
    name = Path(path).stem
    if name.isidentifier() and name not in sys.modules:
        spec = importlib.util.find_spec(name)
        if spec is not None and os.path.realpath(spec.origin or "") == path:
            return name
    return f"tapeline_load_{len(_loaded)}_{name}"


def _real_path(path: str) -> str:
    """Returns the path with all links in the folder resolved, faster than `os.path.realpath`.

    A file that is a link itself is not resolved.
    """
    folder, name = os.path.split(path)
    return os.path.join(_real_folder(folder), name)


_real_folder = functools.lru_cache(maxsize=4096)(os.path.realpath)


@functools.lru_cache(maxsize=4096)
def _local_name(path: str) -> str:
    """Returns the path of a user's file, relative to a loaded file's folder; "" for other files.

    A user's file is a loaded file or a file in the folder of one, except for files of the engine,
    the standard library and installed packages, and the running script if it is not loaded.
    """
    if not os.path.isabs(path) or "__autograph_generated_file" in path:  # such as "<string>"
        return ""
    path = _real_path(path)
    if path in _loaded:
        return os.path.basename(path)
    script = getattr(sys.modules["__main__"], "__file__", None)
    if script and os.path.realpath(script) == path:  # such as run.py beside the loaded files
        return ""
    for folder in (os.path.join(os.path.dirname(loaded), "") for loaded in _loaded):
        inside = path.removeprefix(folder)
        packages = _PACKAGES & set(Path(inside).parts)
        if inside != path and not packages and not path.startswith(_OTHERS):
            return inside
    return ""
