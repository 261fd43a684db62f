"""The demo's web: a client that hangs up leaves nothing on the terminal."""

import socket
import struct
import time

from flows.cli.demo_server import FOLDER, PORT, demo_server

AT_ONCE = struct.pack("ii", 1, 0)  # closing resets the connection


def test_a_client_that_hangs_up_is_not_told_of(capfd):
    largest = max((FOLDER / "images").iterdir(), key=lambda path: path.stat().st_size)
    with demo_server():
        for _ in range(5):
            with socket.create_connection(("127.0.0.1", PORT)) as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
                client.sendall(f"GET /images/{largest.name} HTTP/1.0\r\n\r\n".encode())
        time.sleep(0.5)
    assert capfd.readouterr() == ("", "")
