"""A real JupyterLab and a real browser, for tests and for the panel's benchmark."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BASE_URL = "/user/abc/"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
]


def chromium() -> str | None:
    """Return the path of a Chromium, or None: then browser tests cannot run."""
    for name in (os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome"):
        found = shutil.which(name) if name else None
        if found:
            return found
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if Path(path).exists() else None


@dataclass
class Server:
    """A `jupyter lab` under a base URL, as on a hub, without any way out."""

    folder: Path
    url: str

    def request(self, path: str, method: str = "GET") -> Any:
        call = urllib.request.Request(f"{self.url}{path}", method=method)
        with urllib.request.urlopen(call, timeout=20) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def kernels(self) -> list[dict[str, Any]]:
        return list(self.request("api/kernels"))

    def shut_kernels_down(self) -> None:
        for session in self.request("api/sessions"):
            self.request(f"api/sessions/{session['id']}", "DELETE")


@contextlib.contextmanager
def jupyter(folder: Path) -> Iterator[Server]:
    """Start `jupyter lab` in `folder`, and stop it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home = folder / ".home"
    env = {
        **os.environ,
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "IPYTHONDIR": str(home / "ipython"),
        "OMP_NUM_THREADS": "1",
    }
    settings = home / "settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    (settings / "notification.jupyterlab-settings").write_text(
        '{"fetchNews": "false", "checkForUpdates": false}'
    )
    log = (folder / "server.log").open("w")
    process = subprocess.Popen(
        [
            sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root",
            "--ServerApp.token=", "--ServerApp.password=", f"--ServerApp.base_url={BASE_URL}",
            f"--ServerApp.port={port}", "--ServerApp.port_retries=0",
            "--ServerApp.disable_check_xsrf=True",
            "--LabApp.expose_app_in_browser=True",
            "--JupyterNotebookApp.expose_app_in_browser=True", f"--ServerApp.root_dir={folder}",
        ],
        cwd=folder, env=env, stdout=log, stderr=log,
    )  # fmt: skip
    server = Server(folder, f"http://127.0.0.1:{port}{BASE_URL}")
    try:
        deadline = time.monotonic() + 90
        while True:
            try:
                server.request("api/status")
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    text = (folder / "server.log").read_text()[-3000:]
                    raise RuntimeError(f"jupyter lab did not start:\n{text}") from None
                time.sleep(0.1)
        yield server
    finally:
        process.terminate()
        process.wait(timeout=30)
        log.close()


@dataclass
class Lab:
    """One notebook in one page."""

    server: Server
    page: Any
    name: str
    outside: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def listen(self) -> None:
        self.page.on("request", self._note_request)
        self.page.on("pageerror", self._note_error)

    def _note_error(self, error: Any) -> None:
        # Notebook 7 itself throws a few at any notebook, an empty one too; a widget's code is a
        # module of its own.
        stack = error.stack or ""
        if "/static/notebook/" not in stack or "blob:" in stack:
            self.errors.append(str(error))

    def _note_request(self, request: Any) -> None:
        own = self.server.url.split("/user/")[0]
        if not request.url.startswith((own, own.replace("http", "ws"), "data:", "blob:")):
            self.outside.append(request.url)

    def write(self, *cells: str) -> None:
        """Write the notebook on disk."""
        import nbformat

        book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
        book.metadata["kernelspec"] = {
            "name": "python3", "display_name": "Python 3", "language": "python"
        }  # fmt: skip
        self.put(book)

    def put(self, book: Any) -> None:
        """Write a ready notebook on disk."""
        import nbformat

        nbformat.write(book, self.server.folder / self.name)

    def open(self) -> None:
        self.page.goto(f"{self.server.url}lab/tree/{self.name}?reset", timeout=60_000)
        self.ready()

    def open_in_notebook(self) -> None:
        """Open it in Jupyter Notebook 7 instead."""
        self.page.goto(f"{self.server.url}notebooks/{self.name}", timeout=60_000)
        self.ready()

    def ready(self) -> None:
        """Wait until the notebook stands and its kernel answers."""
        self.page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
        self.page.wait_for_function(
            "() => window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status"
            " === 'idle'",
            timeout=60_000,
        )

    def command(self, name: str, args: dict[str, Any] | None = None) -> None:
        self.page.evaluate(
            "([name, args]) => { window.jupyterapp.commands.execute(name, args ?? {}); }",
            [name, args],
        )

    def run_all(self) -> None:
        self.command("notebook:run-all-cells")

    def python(self, code: str) -> str:
        """Run code in the notebook's kernel, outside its cells; returns what it printed."""
        return str(
            self.page.evaluate(
                """async (code) => {
                  const { sessionContext } = window.jupyterapp.shell.currentWidget;
                  const kernel = sessionContext.session.kernel;
                  const future = kernel.requestExecute({ code, store_history: false });
                  let text = '';
                  future.onIOPub = (msg) => {
                    if (msg.header.msg_type === 'stream') text += msg.content.text;
                    if (msg.header.msg_type === 'error') text += msg.content.traceback.join('\\n');
                  };
                  await future.done;
                  return text;
                }""",
                code,
            )
        ).strip()

    def save(self) -> None:
        self.page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")

    def reload(self) -> None:
        self.page.reload(timeout=60_000)
        self.ready()

    def theme(self, name: str) -> None:
        self.page.evaluate(
            "(theme) => window.jupyterapp.commands.execute('apputils:change-theme', { theme })",
            name,
        )

    def notebook(self) -> Any:
        """Return the notebook as it is on disk."""
        import nbformat

        return nbformat.read(self.server.folder / self.name, as_version=4)


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    """Start Chromium, headless."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        try:
            yield started
        finally:
            started.close()


@contextlib.contextmanager
def lab_page(
    started: Any, server: Server, name: str, width: int = 1280, height: int = 1600
) -> Iterator[Lab]:
    """Open a page with a size; its kernels are shut down in the end."""
    context = started.new_context(viewport={"width": width, "height": height})
    page = context.new_page()
    lab = Lab(server, page, name)
    lab.listen()
    try:
        yield lab
    finally:
        context.close()
        server.shut_kernels_down()
