"""Starting the studio: one machine, one workspace, no network."""

import importlib.util
import os
import re
import secrets
import shutil
import socket
import time
import webbrowser
from pathlib import Path

from keras_vpgc.errors import VPGCError, missing_extra
from keras_vpgc.studio.workspace import MEGABYTE, Workspace, too_large

HOST = "127.0.0.1"
# Bytes of an upload beside the file's own.
ENVELOPE = 64 * 1024
# The page and its own server, nothing else: no fonts, scripts or counters from elsewhere.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' "
    "'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' "
    "data:; connect-src 'self' blob: data:; worker-src 'self' blob:; frame-src 'self'; "
    "frame-ancestors 'self'; form-action 'self'; object-src 'none'; base-uri 'self'"
)
# Gradio's routes that fetch what lies elsewhere, or start programs: nothing here uses them.
FOREIGN = re.compile(r"/proxy=|/file[=/]\W*https?:|/process_recording", re.IGNORECASE)
# What Gradio asks of itself at the start; neither tells anything.
STARTING = {("HEAD", "/"), ("GET", "/gradio_api/startup-events")}
# The cookie counts as sent by this page only if this page leads on: a redirect would be the
# link's that led here.
WELCOME = '<!doctype html><meta http-equiv="refresh" content="0; url=/"><title>vpgc studio</title>'


def serve(workspace, port: int = 7860, browser: bool = True, limits=None, block: bool = True):
    """Serve the studio's page on this machine until it is interrupted.

    Args:
        workspace: Its folder.
        port: Port at 127.0.0.1.
        browser: Open the page?
        limits: See `Limits`.
        block: Wait for the interrupt? Else the running page is returned.

    Returns:
        With `block=False` the page's address, with the key that opens it, and a function that ends
        it.

    Raises:
        VPGCError: if gradio is missing, the port is in use, or another studio has the workspace.
    """
    # Before gradio is imported, which reads them then: nothing of the use goes anywhere.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    # Before anything is written.
    for package in ("gradio", "filelock"):
        if importlib.util.find_spec(package) is None:
            raise missing_extra(package, "studio")
    check_port(port)
    space = Workspace(workspace, limits)
    cache = space.state / "cache"
    os.environ["GRADIO_TEMP_DIR"] = str(cache)
    import gradio
    import keras

    from keras_vpgc.studio.actions import Studio
    from keras_vpgc.studio.jobs import JobQueue
    from keras_vpgc.studio.page import STYLE, build, theme

    queue = JobQueue(
        space.state / "jobs",
        cwd=space.folder,
        environment={"KERAS_BACKEND": keras.backend.backend()},
        check=space.check_space,
    ).start()
    # The workspace is ours: what lies in the cache is of a studio that was killed.
    shutil.rmtree(cache, ignore_errors=True)
    # Gradio hands out what lies in the working directory, too: that is the workspace's.
    before = os.getcwd()
    # The browser's one works once: each account sees a command line.
    key, ticket = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
    try:
        page = build(Studio(space, queue))
        os.chdir(space.folder)
        # Served from where they lie: no copies of films and puppets.
        gradio.set_static_paths([str(space.folder / kind) for kind in space.KINDS])
        _, address, _ = page.queue(default_concurrency_limit=4).launch(
            server_name=HOST,
            server_port=port,
            share=False,
            inbrowser=False,
            quiet=True,
            prevent_thread_lock=True,
            blocked_paths=[str(space.state / "jobs")],
            max_file_size=space.limits.megabytes * 2**20,
            strict_cors=True,
            enable_monitoring=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            run_history=False,
            footer_links=[],
            theme=theme(),
            css=STYLE,
            app_kwargs={
                "middleware": _middleware(space, f"vpgc_{port}", key, ticket),
                "docs_url": None,
                "redoc_url": None,
            },
        )
    except BaseException:
        os.chdir(before)
        queue.close()
        raise

    def end():
        page.close(verbose=False)
        shutil.rmtree(cache, ignore_errors=True)
        queue.close()
        os.chdir(before)

    if browser:
        webbrowser.open(f"{address}?key={ticket}")
    if not block:
        return f"{address}?key={key}", end
    print(
        f"The studio is at {address}?key={key} (workspace {space.folder}); Ctrl-C ends it.",
        flush=True,
    )
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        running = queue.running()
        if running is not None:
            print(
                f"{running.title} goes on without the page; vpgc studio {Path(workspace)} shows "
                "it again.",
                flush=True,
            )
    finally:
        end()


def check_port(port: int) -> None:
    """Refuse a port that is in use.

    Raises:
        VPGCError: with what to do.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as trial:
        if os.name == "posix":
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((HOST, port))
        except PermissionError:
            raise VPGCError(f"Port {port} may not be used here: choose one above 1023.") from None
        except OSError:
            raise VPGCError(
                f"Port {port} is in use, perhaps by a studio that runs already at "
                f"http://{HOST}:{port}: open that, or choose another one by --port."
            ) from None


def _middleware(space, cookie, key, ticket):
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    return [
        # Against pages elsewhere whose name is made to lead here.
        Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"]),
        Middleware(_Guard, space=space, cookie=cookie, key=key, ticket=ticket),
    ]


class _Guard:
    """Lets those in who have the key, and adds the policy to each answer.

    It refuses foreign addresses, what pages elsewhere send, and uploads without room.
    """

    def __init__(self, app, space, cookie, key, ticket):
        self.app, self.space = app, space
        self.cookie, self.key, self.tickets = cookie, key, {ticket}

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close"})
            return
        from starlette.requests import Request

        file = "/file=" in scope["path"]

        async def send_with_policy(message):
            if message["type"] == "http.response.start":
                kind = dict(message["headers"]).get(b"content-type", b"")
                # A report that is opened by itself has no rights; a film asks for its own parts.
                alone = file and not kind.startswith((b"video/", b"audio/"))
                policy = f"{POLICY}; sandbox" if alone else POLICY
                message["headers"] = [
                    *message["headers"],
                    (b"content-security-policy", policy.encode()),
                    (b"x-content-type-options", b"nosniff"),
                    (b"referrer-policy", b"no-referrer"),
                ]
            await send(message)

        app = self._answer(Request(scope)) or self.app
        await app(scope, receive, send_with_policy)

    def _answer(self, request):
        """What is answered in place of the page, if anything."""
        from starlette.responses import HTMLResponse, PlainTextResponse

        # Not that of its address, in which an encoded question mark is one.
        path = request.scope["path"]
        given = request.query_params.get("key")
        if request.method == "GET" and given and (self._opens(given) or self._admits(given)):
            answer = HTMLResponse(WELCOME, headers={"cache-control": "no-store"})
            answer.set_cookie(self.cookie, self.key, httponly=True, samesite="strict")
            return answer
        if (request.method, path) not in STARTING and not self._opens(
            request.cookies.get(self.cookie, "")
        ):
            return PlainTextResponse(
                "This page opens by the address that vpgc studio has printed, which ends in its "
                "key.",
                status_code=403,
            )
        refusal = self._refusal(request, path)
        return refusal and PlainTextResponse(refusal[1], status_code=refusal[0])

    def _opens(self, given):
        return secrets.compare_digest(given.encode(), self.key.encode())

    def _admits(self, given):
        known = given in self.tickets
        self.tickets.discard(given)
        return known

    def _refusal(self, request, path):
        if FOREIGN.search(path):
            return 403, "Foreign addresses are not fetched."
        if request.method != "POST":
            return None
        if request.headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            return 403, "Pages elsewhere may send nothing here."
        if not path.endswith("/upload"):
            return None
        size = request.headers.get("content-length", "")
        size, limits = int(size) if size.isdigit() else 0, self.space.limits
        if size > limits.megabytes * MEGABYTE + ENVELOPE:
            return 413, too_large("The file", size, limits)
        try:
            # It lies there twice for a moment.
            self.space.check_space(2 * size)
        except VPGCError as error:
            return 413, str(error)
        return None
