"""Capture of the text that TensorFlow's C++ code writes to standard error, not to sys.stderr."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import IO


@contextlib.contextmanager
def capture_stderr(shown_on_error: bool = False) -> Iterator[IO[bytes]]:
    """Redirects file descriptor 2 (stderr) of the process to a temporary file, which it yields.

    Args:
      shown_on_error: whether to write the captured text to standard error when the block
        raises an Exception (not KeyboardInterrupt and SystemExit, which need no explanation).
    """
    with tempfile.TemporaryFile() as file:
        sys.stderr.flush()
        stderr = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield file
        except Exception:
            if shown_on_error:
                file.seek(0)
                os.write(stderr, file.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
