"""The outside host's web server: answers with "outside" and the caller's address; and the question's side."""

import http.client
import socket
import socketserver
import sys
from contextlib import suppress

_PATIENCE = 3.0


class _Answer(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        """One request, one line."""
        self.request.settimeout(_PATIENCE)
        with suppress(OSError):
            self.request.recv(2048)
            body = f"outside {self.client_address[0].removeprefix('::ffff:')}\n".encode()
            self.request.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


class _Server(socketserver.ThreadingTCPServer):
    address_family = socket.AF_INET6
    allow_reuse_address = True
    daemon_threads = True


def ask(address: str, port: int, timeout: float = _PATIENCE) -> tuple[str, str]:
    """Who answers at ``address`` (its host name), and which address it sees us by. Raises OSError."""
    connection = http.client.HTTPConnection(address, port, timeout=timeout)
    try:
        connection.request("GET", "/")
        name, seen = connection.getresponse().read().decode().split()
    except http.client.HTTPException as odd:
        raise ConnectionError(f"{address}:{port}: {odd}") from odd
    finally:
        connection.close()
    return name, seen


if __name__ == "__main__":
    with _Server(("::", int(sys.argv[1])), _Answer) as server:
        server.serve_forever()
