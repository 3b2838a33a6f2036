"""An HTTP proxy that knows CONNECT alone, and remembers whom it was asked for; it can cut, slow and delay."""

import socket
import threading
import time
from dataclasses import dataclass, field


@dataclass
class Proxy:
    """Listens on loopback from the moment it is made.

    Attributes:
        cut_after: bytes from the client after which a connection is cut, `cuts` times.
        bytes_per_second: of each direction of each connection.
        delay: seconds by which the first byte after a pause comes later.
    """

    cut_after: int = 0
    cuts: int = 0
    bytes_per_second: float = 0.0
    delay: float = 0.0
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client:
            head = b""
            while b"\r\n\r\n" not in head:
                if not (part := client.recv(4096)):
                    return
                head += part
            method, target, _ = head.split(b"\r\n", 1)[0].decode().split()
            self.asked.append(f"{method} {target}")
            if method != "CONNECT":
                client.sendall(b"HTTP/1.1 405 Method Not Allowed\r\n\r\n")
                return
            host, port = target.rsplit(":", 1)
            try:
                server = socket.create_connection((host, int(port)))
            except OSError:
                client.sendall(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")
                return
            with server:
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                back = threading.Thread(target=self._copy, args=(server, client, False), daemon=True)
                back.start()
                self._copy(client, server, True)
                back.join()

    def _copy(self, source: socket.socket, target: socket.socket, upward: bool) -> None:
        seen = 0
        try:
            while part := source.recv(1 << 14 if self.bytes_per_second else 1 << 16):
                seen += len(part)
                if upward and self.cuts and seen > self.cut_after:
                    self.cuts -= 1
                    source.close()
                    target.close()
                    return
                if self.bytes_per_second:
                    time.sleep(len(part) / self.bytes_per_second)
                if self.delay and len(part) < 1 << 14:
                    time.sleep(self.delay)
                target.sendall(part)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            return
