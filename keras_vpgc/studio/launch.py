"""Starting the studio: one machine, one workspace, no network."""

import importlib.util
import os
import shutil
import socket
import time
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


def serve(workspace, port: int = 7860, browser: bool = True, limits=None, block: bool = True):
    """Serve the studio's page on this machine until it is interrupted.

    Args:
        workspace: Its folder.
        port: Port at 127.0.0.1.
        browser: Open the page?
        limits: See `Limits`.
        block: Wait for the interrupt? Else the running page is returned.

    Returns:
        With `block=False` a function that ends it.

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
    import gradio
    import keras

    from keras_vpgc.studio.actions import Studio
    from keras_vpgc.studio.jobs import JobQueue

    space = Workspace(workspace, limits)
    cache = space.state / "cache"
    os.environ["GRADIO_TEMP_DIR"] = str(cache)
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
    try:
        page = build(Studio(space, queue))
        os.chdir(space.folder)
        # Served from where they lie: no copies of films and puppets.
        gradio.set_static_paths([str(space.folder / kind) for kind in space.KINDS])
        _, address, _ = page.queue(default_concurrency_limit=4).launch(
            server_name=HOST,
            server_port=port,
            share=False,
            inbrowser=browser,
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
            app_kwargs={"middleware": _middleware(space), "docs_url": None, "redoc_url": None},
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

    if not block:
        return end
    print(f"The studio is at {address} (workspace {space.folder}); Ctrl-C ends it.", flush=True)
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


def _middleware(space):
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    return [
        # Against pages elsewhere whose name is made to lead here.
        Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"]),
        Middleware(_Guard, space=space),
    ]


class _Guard:
    """Adds the policy to each answer; refuses foreign addresses and uploads without room."""

    def __init__(self, app, space):
        self.app, self.space = app, space

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            from starlette.responses import PlainTextResponse

            code, sentence = refusal
            await PlainTextResponse(sentence, status_code=code)(scope, receive, send)
            return

        async def send_with_policy(message):
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"],
                    (b"content-security-policy", POLICY.encode()),
                    (b"x-content-type-options", b"nosniff"),
                    (b"referrer-policy", b"no-referrer"),
                ]
            await send(message)

        await self.app(scope, receive, send_with_policy)

    def _refusal(self, scope):
        path = scope["path"]
        if "/proxy=" in path or "file=http:" in path or "file=https:" in path:
            return 403, "Foreign addresses are not fetched."
        if scope["method"] != "POST" or not path.endswith("/upload"):
            return None
        size = next((v for k, v in scope["headers"] if k == b"content-length"), b"0")
        size, limits = int(size) if size.isdigit() else 0, self.space.limits
        if size > limits.megabytes * MEGABYTE + ENVELOPE:
            return 413, too_large("The file", size, limits)
        try:
            # It lies there twice for a moment.
            self.space.check_space(2 * size)
        except VPGCError as error:
            return 413, str(error)
        return None
