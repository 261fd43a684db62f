"""A real HTTP server that speaks /v1/chat/completions."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server(ThreadingHTTPServer):
    """Answers each request by the next of `script`, the last one for ever."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script, self.requests = [answer("- fine")], []

    def handle_error(self, *_):
        pass

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.server
        server.requests.append((self.path, dict(self.headers), body))
        status, headers, data = server.script[min(len(server.requests), len(server.script)) - 1]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        for piece in [data] if isinstance(data, bytes) else data():
            self.wfile.write(piece)

    def log_message(self, *_):
        pass


def answer(text, status=200):
    return status, {}, json.dumps({"choices": [{"message": {"content": text}}]}).encode()


@contextmanager
def serving() -> Iterator[Server]:
    started = Server()
    threading.Thread(target=started.serve_forever, args=(0.01,), daemon=True).start()
    yield started
    started.shutdown()
    started.server_close()
