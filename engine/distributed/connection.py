"""A connection between two workers, which carries short JSON objects, one per line."""

from __future__ import annotations

import json
import socket
import threading
import time
from typing import Any

_LONGEST = 1 << 16  # bytes of a message; workers send no longer ones


class Connection:
    """One end of a connection.

    Args:
      peer: connected TCP socket.
      name: display name of the other end.
    """

    def __init__(self, peer: socket.socket, name: str) -> None:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer.settimeout(5)
        self.name = name
        self.heard = time.monotonic()
        self._peer, self._rest, self._lock = peer, b"", threading.Lock()

    def fileno(self) -> int:
        """Returns the file descriptor, for a selector."""
        return self._peer.fileno()

    def send(self, **message: Any) -> None:
        """Sends an object; after a failure, `read` reports the end of the connection."""
        try:
            with self._lock:
                self._peer.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            pass

    def read(self) -> list[dict[str, Any]] | None:
        """Returns the received objects, if any; None if it ended or the other end is no worker."""
        try:
            data = self._peer.recv(_LONGEST)
        except TimeoutError:
            return []
        except OSError:
            return None
        if not data:
            return None
        self.heard = time.monotonic()
        *lines, self._rest = (self._rest + data).split(b"\n")
        try:
            messages = [json.loads(line) for line in lines]
        except ValueError:
            return None
        whole = all(isinstance(message, dict) for message in messages)
        return messages if whole and len(self._rest) < _LONGEST else None

    def set_timeout(self, seconds: float) -> None:
        """Sets the timeout of `read` and `send`, in seconds; at least 0.05."""
        self._peer.settimeout(max(0.05, seconds))

    def close(self) -> None:
        """Closes the connection."""
        self._peer.close()
