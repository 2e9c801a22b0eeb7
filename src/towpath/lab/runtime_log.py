"""Container output as CRI log files: ``TIME stream F|P line``, what the kubelet's log endpoint reads."""

import datetime
import os
from contextlib import suppress
from pathlib import Path

_LONGEST = 16 * 1024  # containerd's max_container_log_line_size


class LogPipe:
    """One stream of one container, from its pipe to the file."""

    def __init__(self, fd: int, stream: str, path: Path) -> None:
        self.fd = fd
        self._stream = stream.encode()
        self._rest = b""
        os.set_blocking(fd, False)
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)

    def pump(self) -> bool:
        """Move what is there; False at the end of the stream."""
        try:
            data = os.read(self.fd, 64 * 1024)
        except BlockingIOError:
            return True
        if not data:
            if self._rest:
                self._write(self._rest, b"F")
            return False
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._write(line, b"F")
        if len(self._rest) >= _LONGEST:
            self._write(self._rest, b"P")
            self._rest = b""
        return True

    def close(self) -> None:
        """Let go of both ends."""
        os.close(self.fd)
        self._file.close()

    def _write(self, line: bytes, tag: bytes) -> None:
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z").encode()
        # A full disk costs log lines, never the runtime.
        with suppress(OSError):
            self._file.write(b"%s %s %s %s\n" % (now, self._stream, tag, line))
