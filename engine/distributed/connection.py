"""A TCP connection between two workers that transmits short JSON objects, one per line."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from typing import Any

_MAX_LINE = 1 << 16  # bytes; workers send only shorter messages


class Connection:
    """One end of a TCP connection; `name` is the display name of the other end."""

    def __init__(self, peer: socket.socket, name: str) -> None:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer.settimeout(5)
        self.name = name
        self.heard = time.monotonic()  # time of the last data received
        self._peer, self._rest, self._lock = peer, b"", threading.Lock()

    def fileno(self) -> int:
        """Returns the file descriptor of the socket, which a selector requires."""
        return self._peer.fileno()

    def send(self, **message: Any) -> None:
        """Sends a JSON object; ignores errors, because `read` reports a broken connection."""
        with contextlib.suppress(OSError), self._lock:
            self._peer.sendall(json.dumps(message).encode() + b"\n")

    def read(self) -> list[dict[str, Any]] | None:
        """Receives data; returns the JSON objects that are complete, possibly none.

        Returns None if the connection has ended, or if the data are not those of a worker: not
        JSON objects, or 64 KiB without the end of a line.
        """
        try:
            data = self._peer.recv(_MAX_LINE)
            *lines, self._rest = (self._rest + data).split(b"\n")
            messages = [json.loads(line) for line in lines]
        except TimeoutError:
            return []
        except (OSError, ValueError):
            return None
        self.heard = time.monotonic()
        valid = data and all(isinstance(message, dict) for message in messages)
        return messages if valid and len(self._rest) < _MAX_LINE else None

    def set_timeout(self, seconds: float) -> None:
        """Sets the timeout of `read` and `send`, in seconds; at least 0.05."""
        self._peer.settimeout(max(0.05, seconds))

    def close(self) -> None:
        """Closes the connection."""
        self._peer.close()
