"""The page in a browser, over commands that copy what was made before, and over the real ones."""

import importlib.util
import re
import shutil
import socket
import time
import urllib.error
import urllib.request

import av
import numpy as np
import pytest

import keras_vpgc
from keras_vpgc import VPGCError
from keras_vpgc.data.video import probe, read_frames
from keras_vpgc.reenactment.landmark_file import write_landmarks
from keras_vpgc.studio.launch import check_port, serve
from keras_vpgc.studio.workspace import Limits
from tests.studio.test_workspace import film

pytestmark = pytest.mark.once

COMMAND = """
import os, shutil, sys, time

MADE = {made!r}

def main():
    verb, *words = sys.argv[1:]
    target = words[words.index("-o") + 1] if "-o" in words else words[0]
    print("it begins", flush=True)
    if verb == "prepare":
        shutil.copytree(MADE["portrait"], target)
    elif verb == "train":
        hidden = shutil.ignore_patterns("puppet.keras", "driver.keras", "MODEL_CARD.md")
        shutil.copytree(MADE["run"], target, ignore=hidden, dirs_exist_ok=True)
        try:
            while not os.path.exists(MADE["enough"]):
                time.sleep(0.05)
        except KeyboardInterrupt:
            sys.exit(130)
        shutil.copytree(MADE["run"], target, dirs_exist_ok=True)
    elif verb == "reenact":
        shutil.copy(MADE["clip"], target)
    print("ready")
"""


def free_port():
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return trial.getsockname()[1]


@pytest.fixture
def made(tmp_path, clip, portrait, run, monkeypatch):
    """The commands of the jobs, and what they wait for."""
    from keras_vpgc.data.coverage import inspect

    inspect(portrait)
    package = tmp_path / "fake" / "keras_vpgc"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    files = {"portrait": portrait.path, "run": run, "clip": clip, "enough": tmp_path / "enough"}
    files = {key: str(value) for key, value in files.items()}
    (package / "cli.py").write_text(COMMAND.format(made=files))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "fake"))
    return files


@pytest.fixture
def studio(tmp_path):
    """A studio's address, with its key, and workspace."""
    port, workspace = free_port(), tmp_path / "w"
    limits = Limits(megabytes=5, minutes=2)
    address, end = serve(workspace, port=port, browser=False, limits=limits, block=False)
    assert address.startswith(f"http://127.0.0.1:{port}/?key=")
    yield address, workspace
    end()


@pytest.fixture
def online(page):
    """A page that may reach this machine, and must ask nothing of another one."""
    foreign = []

    def note(request):
        address = request.url
        if not address.startswith(("http://127.0.0.1:", "data:", "blob:")):
            foreign.append(address)

    page.context.set_offline(False)
    page.context.on("request", note)
    page.set_default_timeout(60_000)
    yield page
    assert foreign == []


@pytest.fixture
def asked(studio):
    """Asks the studio for a path, with its cookie unless one is given: the answer's status."""
    address, _ = studio
    with urllib.request.urlopen(address) as answer:
        cookie = answer.headers["set-cookie"]
    assert {"HttpOnly", "Path=/", "SameSite=strict"} <= set(cookie.split("; "))
    cookie = cookie.split(";")[0]

    def asked(path, method="GET", **headers):
        headers = {"Cookie": cookie, **{k.replace("_", "-"): v for k, v in headers.items()}}
        place = address.partition("/?")[0] + path
        request = urllib.request.Request(place, headers=headers, method=method)
        try:
            with urllib.request.urlopen(request) as answer:
                assert "default-src 'self'" in answer.headers["content-security-policy"]
                asked.policy = answer.headers["content-security-policy"]
                return answer.status
        except urllib.error.HTTPError as error:
            asked.said = error.read().decode()
            return error.code

    return asked


def opened(page, address):
    page.goto(address)
    page.get_by_role("button", name="Prepare").wait_for()
    return page


def tab(page, name):
    page.get_by_role("tab", name=name).click()


def says(page, text):
    page.locator("#status").get_by_text(re.compile(text)).wait_for()


def value_of(page, box, wanted):
    page.wait_for_function(
        "([box, wanted]) => document.querySelector(`#${box} input`)?.value === wanted",
        arg=[box, wanted],
    )


@pytest.mark.slow
def test_the_way_over_the_page(made, studio, online, clip):
    address, workspace = studio
    page = opened(online, address)
    page.set_input_files("#upload input[type=file]", clip)
    value_of(page, "video", "astronaut.mp4")
    page.get_by_role("button", name="Prepare").click()
    says(page, "Nothing runs. Last: Prepare astronaut, done")
    value_of(page, "portrait", "astronaut")
    page.frame_locator("#coverage iframe").get_by_text("What astronaut.mp4 holds").wait_for()

    tab(page, "2 Train")
    page.get_by_label("vpgc_tiny").check()
    page.get_by_role("button", name="Train", exact=True).click()
    says(page, "Train astronaut-vpgc_tiny runs")
    value_of(page, "run", "astronaut-vpgc_tiny")
    page.locator("#stages").get_by_text("2 of 2 steps").first.wait_for()
    # Another tab wants the same.
    other = opened(page.context.new_page(), address)
    tab(other, "2 Train")
    value_of(other, "source", "astronaut")
    other.get_by_label("vpgc_tiny").check()
    other.get_by_role("button", name="Train", exact=True).click()
    other.get_by_text("Train astronaut-vpgc_tiny runs already: look at it").wait_for()
    # Both are closed; it goes on.
    blank = page.context.new_page()
    other.close()
    page.close()
    time.sleep(0.5)
    page = opened(blank, address)
    says(page, "Train astronaut-vpgc_tiny runs")
    tab(page, "2 Train")
    value_of(page, "run", "astronaut-vpgc_tiny")
    page.get_by_role("button", name="Stop", exact=True).click()
    says(page, "Last: Train astronaut-vpgc_tiny, stopped")
    assert (workspace / "runs" / "astronaut-vpgc_tiny" / "run.json").exists()
    page.get_by_role("button", name="Go on").click()
    says(page, "Train astronaut-vpgc_tiny runs")
    open(made["enough"], "w").close()
    says(page, "Last: Train astronaut-vpgc_tiny, done")

    tab(page, "3 Drive")
    value_of(page, "puppet", "astronaut-vpgc_tiny")
    value_of(page, "driving", "astronaut.mp4")
    page.get_by_role("button", name="Drive", exact=True).click()
    says(page, "Last: Drive astronaut-vpgc_tiny by astronaut, done")
    page.locator("#made video").wait_for()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download the video").click()
    assert download.value.suggested_filename == "astronaut-vpgc_tiny-by-astronaut.mp4"
    assert open(download.value.path(), "rb").read() == clip.read_bytes()

    tab(page, "4 Runs")
    value_of(page, "chosen", "astronaut-vpgc_tiny")
    page.wait_for_function("document.querySelector('#scores').innerText.includes('not scored yet')")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download the puppet").click()
    assert download.value.suggested_filename == "puppet.keras"
    page.get_by_role("button", name="Model card").click()
    page.locator("#card").get_by_text("vpgc_tiny").first.wait_for()
    tab(page, "Jobs")
    page.wait_for_function("document.querySelector('#jobs').innerText.includes('stopped')")
    page.get_by_label("Job no.").fill("1")
    page.get_by_label("Job no.").press("Enter")
    page.wait_for_function("document.querySelector('#log textarea').value.includes('it begins')")
    # Narrow, as on a telephone: nothing sticks out.
    page.set_viewport_size({"width": 400, "height": 800})
    for name in ("1 Video", "2 Train", "3 Drive", "4 Runs", "Jobs"):
        tab(page, name)
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.scrollWidth") <= 400, name


@pytest.mark.slow
def test_what_is_refused_is_said_on_the_page(studio, online, tmp_path, clip, monkeypatch):
    address, workspace = studio
    page = opened(online, address)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "setup.mp4").write_bytes(b"MZ\x90\x00" + bytes(5000))
    with open(tmp_path / "big.mp4", "wb") as file:
        file.truncate(6 * 2**20)
    film(tmp_path / "film.mkv", 7200)
    for name, sentence in (
        ("empty.mp4", r"empty is empty \(0 bytes\): copy or record it again"),
        ("setup.mp4", "setup is no video by its content, whatever its name says"),
        ("film.mkv", "film is 120 minutes long and at most 2 are taken"),
        # Said before it is sent.
        ("big.mp4", r"exceed the maximum allowed size of 5"),
    ):
        page.reload()
        opened(page, address).set_input_files("#upload input[type=file]", tmp_path / name)
        page.get_by_text(re.compile(sentence)).first.wait_for()
    page.get_by_role("button", name="Prepare").click()
    page.get_by_text("Nothing is picked: pick a video first").wait_for()
    assert list((workspace / "videos").iterdir()) == []
    # Nothing of it is kept elsewhere, either.
    cache = workspace / ".studio" / "cache"
    assert sum(x.stat().st_size for x in cache.rglob("*") if x.is_file()) == 0
    # A disk that is full.
    usage = shutil._ntuple_diskusage(10**12, 10**12, 30 * 2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    page.reload()
    opened(page, address).set_input_files("#upload input[type=file]", clip)
    page.get_by_text(re.compile("has 30 MB left, and 50. MB are needed: delete")).first.wait_for()
    assert list((workspace / "videos").iterdir()) == []


def test_only_who_has_the_key_comes_in(studio, asked, page):
    address, workspace = studio
    port = address.partition("/?")[0].rsplit(":", 1)[1]
    (workspace / "videos" / "a.mp4").write_bytes(b"x")
    paths = ("/", "/config", "/gradio_api/info", f"/gradio_api/file={workspace}/videos/a.mp4")
    for path in (*paths, "/?key=guess", "/?key="):
        for cookie in ("", f"vpgc_{port}=guess", f"vpgc_1={address.partition('key=')[2]}"):
            assert asked(path, Cookie=cookie) == 403, path
            assert asked.said.startswith("This page opens by the address that vpgc studio has")
    for path in ("/gradio_api/upload", "/gradio_api/queue/join"):
        assert asked(path, "POST", Cookie="") == 403
    assert [asked(path) for path in paths] == [200] * 4
    # A link on a page elsewhere opens it too, and the key does not stay in the address.
    page.context.set_offline(False)
    page.set_content(f'<a href="{address}">Open</a>')
    page.get_by_text("Open").click()
    page.get_by_role("button", name="Prepare").wait_for()
    assert page.url == f"http://127.0.0.1:{port}/"


def test_the_opened_browser_gets_a_key_that_works_once(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr("webbrowser.open", shown.append)
    address, end = serve(tmp_path / "w", port=free_port(), block=False)
    try:
        assert len(shown) == 1 and shown[0] != address
        with urllib.request.urlopen(shown[0]) as answer:
            assert "vpgc_" in answer.headers["set-cookie"]
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(shown[0])
    finally:
        end()


def test_what_pages_elsewhere_send_is_refused(studio, asked):
    for site in ("cross-site", "same-site"):
        assert asked("/gradio_api/upload", "POST", Sec_Fetch_Site=site) == 403
        assert asked.said == "Pages elsewhere may send nothing here."
    for site in ("same-origin", "none"):
        assert asked("/gradio_api/upload", "POST", Sec_Fetch_Site=site) not in (403, 200)
    for path in (
        "/gradio_api/proxy=http://example.org/",
        "/gradio_api/file=https://example.org/",
        "/gradio_api/file/https://example.org/",
        "/gradio_api/file/HTTP%3A//example.org/",
    ):
        assert asked(path) == 403, path
        assert asked.said == "Foreign addresses are not fetched.", path
    assert asked("/gradio_api/process_recording", "POST") == 403


def test_no_file_outside_of_the_workspace_is_readable(studio, asked, tmp_path, clip):
    _, workspace = studio
    (tmp_path / "secret.txt").write_text("secret")
    shutil.copy(clip, workspace / "videos" / "a.mp4")
    (workspace / "videos" / "link.txt").symlink_to(tmp_path / "secret.txt")
    (workspace / ".studio" / "jobs" / "000001.json").write_text("{}")

    def code(path, **headers):
        return asked(f"/gradio_api/file={path}", **headers)

    assert code(workspace / "videos" / "a.mp4") == 200
    # A report that is opened as a page of its own has no rights of the studio's.
    (workspace / "runs" / "report.html").write_text("<p>Report</p>")
    assert code(workspace / "runs" / "report.html") == 200
    assert asked.policy.endswith("; sandbox")
    for path in (
        "/etc/passwd",
        tmp_path / "secret.txt",
        f"{workspace}/videos/../../secret.txt",
        f"{workspace}/videos/%2e%2e/%2e%2e/secret.txt",
        workspace / "videos" / "link.txt",
        workspace / ".studio" / "jobs" / "000001.json",
        "http://example.org/",
    ):
        assert code(path) in (403, 404), path
    # A page elsewhere whose name was made to lead here.
    assert code(workspace / "videos" / "a.mp4", Host="evil.example") == 400


def test_a_port_or_a_workspace_in_use(studio, vpgc, tmp_path):
    address, workspace = studio
    port = int(address.partition("/?")[0].rsplit(":", 1)[1])
    code, _, error = vpgc("studio", tmp_path / "other", "--port", port, "--no-browser")
    assert code == 1 and f"vpgc: Port {port} is in use, perhaps by a studio" in error
    assert not (tmp_path / "other").exists()
    with pytest.raises(VPGCError, match="Another vpgc studio works in .*w: use its page"):
        serve(workspace, port=free_port(), browser=False, block=False)
    check_port(free_port())


def test_a_missing_extra(vpgc, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *x: None if name == "gradio" else find(name, *x)
    )
    code, _, error = vpgc("studio", tmp_path / "w", "--no-browser")
    assert code == 1 and 'gradio is needed for this: pip install "keras_vpgc[studio]"' in error
    assert not (tmp_path / "w").exists()


@pytest.mark.slow
def test_the_real_way(clip, studio, online, tmp_path):
    """The commands themselves: minutes."""
    address, workspace = studio
    page = opened(online, address)
    page.set_default_timeout(1_200_000)
    page.set_input_files("#upload input[type=file]", clip)
    value_of(page, "video", "astronaut.mp4")
    page.get_by_role("button", name="Prepare").click()
    says(page, "Last: Prepare astronaut, done")
    tab(page, "2 Train")
    value_of(page, "source", "astronaut")
    page.get_by_label("vpgc_tiny").check()
    page.get_by_role("button", name="Train", exact=True).click()
    page.locator("#status").get_by_text(re.compile("left")).wait_for()
    checkpoint = workspace / "runs" / "astronaut-vpgc_tiny" / "checkpoints" / "codebook.npz"
    while not checkpoint.exists():
        time.sleep(0.2)
    page.get_by_role("button", name="Stop", exact=True).click()
    says(page, "Last: Train astronaut-vpgc_tiny, stopped")
    assert checkpoint.exists()
    page.get_by_role("button", name="Go on").click()
    says(page, "Last: Train astronaut-vpgc_tiny, done")
    log = (workspace / ".studio" / "jobs" / "000003.log").read_text()
    assert "goes on at step" in log
    tab(page, "3 Drive")
    value_of(page, "puppet", "astronaut-vpgc_tiny")
    page.get_by_role("button", name="Drive", exact=True).click()
    says(page, "Last: Drive astronaut-vpgc_tiny by astronaut, done")
    page.locator("#made video").wait_for()


@pytest.mark.slow
def test_a_webcam_drives(made, studio, chromium, run, clip, tmp_path):
    """Chromium takes a file of raw frames for the camera: a face that moves."""
    address, workspace = studio
    shutil.copytree(run, workspace / "runs" / "me")
    with av.open(str(tmp_path / "camera.y4m"), "w", format="yuv4mpegpipe") as camera:
        stream = camera.add_stream("wrapped_avframe", 25)
        stream.width = stream.height = 256
        stream.pix_fmt = "yuv420p"
        for frame in read_frames(clip):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="yuv420p")
            camera.mux(stream.encode(picture))
        camera.mux(stream.encode(None))
    start, path = chromium
    words = ["--no-sandbox", "--disable-dev-shm-usage", "--use-fake-device-for-media-stream"]
    words += ["--use-fake-ui-for-media-stream"]
    words += [f"--use-file-for-fake-video-capture={tmp_path / 'camera.y4m'}"]
    browser = start.launch(executable_path=path, args=words)
    page = browser.new_context(permissions=["camera", "microphone"]).new_page()
    try:
        tab(opened(page, address), "3 Drive")
        page.locator("#driving-camera").get_by_text("Click to Access Webcam").click()
        page.locator("#driving-camera").get_by_text("Record", exact=True).click()
        page.wait_for_timeout(2000)
        page.locator("#driving-camera").get_by_text("Stop", exact=True).click()
        value_of(page, "driving", "recording.webm")
        page.get_by_role("button", name="Drive", exact=True).click()
        says(page, "Last: Drive me by recording, done")
    finally:
        browser.close()
    recording = workspace / "videos" / "recording.webm"
    info = probe(recording)
    assert info.frame_count > 1 and info.width <= 1280
    # The face that the camera saw is found in it, and moves the puppet's.
    write_landmarks(keras_vpgc.load(run), recording, tmp_path / "drive.npz")
    with np.load(tmp_path / "drive.npz") as file:
        assert len(file["landmarks"]) > 20
        assert np.ptp(file["landmarks"], axis=0).max() > 0.02
