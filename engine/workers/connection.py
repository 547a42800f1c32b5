"""A connection between two workers: short JSON objects, a line each, and nothing else."""

from __future__ import annotations

import json
import socket
import threading
import time
from typing import Any

_LONGEST = 1 << 16  # bytes of a message: what is longer does not come from a worker


class Connection:
    """One end.

    Args:
      peer: a connected TCP socket.
      name: of the other end, in words.
    """

    def __init__(self, peer: socket.socket, name: str) -> None:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer.settimeout(5)
        self.name = name
        self.heard = time.monotonic()
        self._peer, self._rest, self._lock = peer, b"", threading.Lock()

    def fileno(self) -> int:
        """For a selector."""
        return self._peer.fileno()

    def send(self, **message: Any) -> None:
        """Sends an object; where that fails, the reader sees the end of the connection."""
        try:
            with self._lock:
                self._peer.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            pass

    def read(self) -> list[dict[str, Any]] | None:
        """Objects that have come, maybe none; None where it has ended or is no worker's."""
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

    def wait_at_most(self, seconds: float) -> None:
        """How long `read` waits."""
        self._peer.settimeout(max(0.05, seconds))

    def close(self) -> None:
        """Ends it."""
        self._peer.close()
