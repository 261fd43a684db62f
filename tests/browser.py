"""A headless Chromium, driven over its own protocol: what a page does, and what it asks for."""

import base64
import json
import shutil
import subprocess
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

from websockets.sync.client import connect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PATIENCE = 30.0  # seconds


class Page:
    """One tab; `problems` holds errors, dialogs and requests that left the page."""

    def __init__(self, socket) -> None:
        self.socket = socket
        self.number = 0
        self.problems: list[str] = []
        self.loaded = False
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params):
        """One command, and its answer; events that come before it are noted."""
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": params}))
        while True:
            message = json.loads(self.socket.recv(timeout=PATIENCE))
            if message.get("id") == self.number:
                assert "error" not in message, message
                return message["result"]
            self._note(message)

    def open(self, path: Path) -> None:
        self.go(path.as_uri())

    def go(self, url: str) -> None:
        self.loaded, self.page = False, url
        self.call("Page.navigate", url=url)
        until = time.monotonic() + PATIENCE
        while not self.loaded and time.monotonic() < until:
            self.run("1")
        assert self.loaded

    def run(self, expression: str):
        """The value of some JavaScript in the page."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key: str, code: int, text: str | None = None) -> None:
        """A key on the keyboard."""
        common = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.call(
            "Input.dispatchKeyEvent", type="keyDown", **common, **({"text": text} if text else {})
        )
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def look(self, width: int, height: int, scheme: str) -> None:
        """A window of another size, and a light or dark one."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", features=features)

    def picture(self, path: Path) -> None:
        """A screenshot of the window."""
        data = self.call("Page.captureScreenshot", format="png")["data"]
        path.write_bytes(base64.b64decode(data))

    def _note(self, message) -> None:
        params = message.get("params", {})
        match message["method"]:
            case "Page.loadEventFired":
                self.loaded = True
            case "Page.javascriptDialogOpening":
                self.problems.append(f"dialog: {params['message']}")
                self.number += 1
                answer = {"accept": True}
                self.socket.send(
                    json.dumps(
                        {
                            "id": self.number,
                            "method": "Page.handleJavaScriptDialog",
                            "params": answer,
                        }
                    )
                )
            case "Runtime.exceptionThrown":
                self.problems.append(f"exception: {params['exceptionDetails']}")
            case "Runtime.consoleAPICalled":
                self.problems.append(f"console: {params['args']}")
            case "Log.entryAdded":
                self.problems.append(f"log: {params['entry']['text']}")
            case "Network.requestWillBeSent":
                url = params["request"]["url"]
                if url.partition("#")[0] != self.page and not url.startswith("data:"):
                    self.problems.append(f"request: {url}")


@contextmanager
def page(folder: Path):
    """A tab of a Chromium of its own, whose profile lies in `folder`."""
    process = subprocess.Popen(
        [
            str(CHROMIUM),
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--remote-debugging-port=0",
            "--remote-allow-origins=*",
            f"--user-data-dir={folder}",
            "about:blank",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        told = folder / "DevToolsActivePort"
        until = time.monotonic() + PATIENCE
        while not (told.exists() and told.read_text().count("\n")):
            assert time.monotonic() < until and process.poll() is None, "Chromium did not start"
            time.sleep(0.05)
        port = told.read_text().split()[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list") as answer:
            tabs = [tab for tab in json.load(answer) if tab["type"] == "page"]
        with connect(tabs[0]["webSocketDebuggerUrl"], max_size=None, proxy=None) as socket:
            yield Page(socket)
    finally:
        process.terminate()
        process.wait(PATIENCE)
