"""Where the studio keeps its files, and how foreign files come in."""

import os
import re
import shutil
import threading
import unicodedata
import uuid
from dataclasses import dataclass
from pathlib import Path

from keras_vpgc.data.video import VideoInfo, open_container, probe
from keras_vpgc.errors import VPGCError, writing

# Longest name that is wished for; longest with all that is put behind it; names that Windows keeps
# for devices.
LONGEST, LONGEST_MADE = 60, 120
DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)", re.IGNORECASE)
MEGABYTE = 2**20
# Bytes that stay free, below which no job begins.
LEAST_FREE = 500 * MEGABYTE
HEAD = 4096


@dataclass(frozen=True)
class Limits:
    """What may be uploaded.

    Args:
        megabytes: Largest file.
        minutes: Longest film.
    """

    megabytes: int = 2000
    minutes: float = 30.0


class Workspace:
    """A folder with `videos`, `portraits`, `runs` and `driven`, each by plain names.

    Args:
        folder: The folder; it is made if need be.
        limits: What may come in.

    Attributes:
        folder: Its absolute path.
        state: A folder in it for the studio's own notes.

    Raises:
        VPGCError: if it cannot be written.

    Example:

    ```python
    workspace = Workspace("vpgc_studio")
    name = workspace.take("/tmp/upload/clip.mov", "my clip")
    workspace.path("videos", name)
    ```
    """

    KINDS = ("videos", "portraits", "runs", "driven")

    def __init__(self, folder, limits: Limits | None = None):
        self.folder = Path(folder).resolve()
        self.limits = limits or Limits()
        self.state = self.folder / ".studio"
        self._naming = threading.Lock()
        with writing(self.folder):
            # Faces are not for the other accounts of the machine; a folder that was there before
            # keeps its own mode.
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for name in (*self.KINDS, ".studio"):
                (self.folder / name).mkdir(mode=0o700, exist_ok=True)

    def names(self, kind: str) -> list[str]:
        """The names that there are of a kind, the newest first; runs of all states."""
        found = [x for x in (self.folder / kind).iterdir() if _plain(x.name) and self._holds(x)]
        if kind == "portraits":
            found = [x for x in found if (x / "portrait.json").exists()]
        elif kind == "runs":
            found = [x for x in found if (x / "run.json").exists()]
        else:
            found = [x for x in found if x.is_file()]
        return [x.name for x in sorted(found, key=lambda x: x.stat().st_mtime, reverse=True)]

    def path(self, kind: str, name: str) -> Path:
        """The path of a name, which may come from anywhere.

        Args:
            kind: One of `KINDS`.
            name: A name as `names` gives them, or for something that is to be made.

        Raises:
            VPGCError: for a name that leads elsewhere.
        """
        if kind not in self.KINDS or not _plain(name):
            raise VPGCError(
                f"There is nothing called {str(name)[:80]!r} here: pick one of the list."
            )
        path = self.folder / kind / name
        # Nor by a link that somebody has laid there.
        if not self._holds(path):
            raise VPGCError(f"{name} is a link out of {self.folder}: copy what it means instead.")
        return path

    def _holds(self, path):
        return Path(os.path.realpath(path)).is_relative_to(self.folder)

    def existing(self, kind: str, name: str | None) -> Path:
        """The path of something that is there.

        Raises:
            VPGCError: if nothing was picked, or it is gone.
        """
        if not name:
            what = {"videos": "a video", "portraits": "a portrait", "runs": "a run"}
            raise VPGCError(f"Nothing is picked: pick {what.get(kind, 'a file')} first.")
        path = self.path(kind, name)
        if not path.exists():
            raise VPGCError(f"{name} is no longer there: reload the page and pick another.")
        return path

    def free_name(self, kind: str, wish: str, suffix: str = "", promised=()) -> str:
        """A name that is neither there nor promised, made of the wish's letters and digits."""
        wish = safe_name(wish) or "clip"
        taken = {x.name.lower() for x in (self.folder / kind).iterdir()}
        taken |= {x.lower() for x in promised}
        if kind == "videos":
            taken |= {Path(x).stem for x in taken}
        number, name = 1, wish
        while f"{name}{suffix}".lower() in taken or name.lower() in taken:
            number += 1
            name = f"{wish[: LONGEST - 6]}-{number}"
        return f"{name}{suffix}"

    def take(self, file, wish: str = "") -> str:
        """Take a file in that came from outside, if it is a video within the limits.

        Args:
            file: Its path.
            wish: What it is to be called; default: its own name. Neither is trusted.

        Returns:
            Its name among the videos.

        Raises:
            VPGCError: one sentence for what is empty, no video, too large or too long, or a full
                disk. Nothing is left in the workspace then.
        """
        file = Path(file)
        shown = safe_name(Path(wish or file.name).stem) or "The file"
        kind, _ = check_video(file, shown, self.limits)
        size = file.stat().st_size
        self.check_space(size)
        partial = self.state / f"{uuid.uuid4().hex}.partial"
        full = "delete what you no longer need and upload it again"
        with writing(f"{shown}{kind}", full=full):
            try:
                shutil.copyfile(file, partial)
                # Two uploads of one name at once are two videos.
                with self._naming:
                    name = self.free_name("videos", shown, kind)
                    os.replace(partial, self.path("videos", name))
            finally:
                partial.unlink(missing_ok=True)
        return name

    def check_space(self, size: int = 0) -> None:
        """Refuse work for which the disk has no room.

        Args:
            size: Bytes that are known to come.

        Raises:
            VPGCError: with how much is free.
        """
        free = shutil.disk_usage(self.folder).free
        if free < size + LEAST_FREE:
            raise VPGCError(
                f"The disk of {self.folder} has {free / MEGABYTE:.0f} MB left, and "
                f"{(size + LEAST_FREE) / MEGABYTE:.0f} MB are needed: delete what you no longer "
                "need and try again."
            )


def safe_name(text: str, longest: int = LONGEST) -> str:
    """A plain name of a text: letters and digits of ASCII, `-`, `_` and inner dots, or "".

    Args:
        text: Any text.
        longest: Characters after which it is cut.

    Example:

    ```python
    safe_name("../../Zoë's clip (1).mp4")  # "Zoe-s-clip-1-.mp4"
    ```
    """
    text = unicodedata.normalize("NFKD", str(text)[:1000]).encode("ascii", "ignore").decode()
    text = text.replace("\\", "/").rsplit("/", 1)[-1]
    text = re.sub(r"\.{2,}", ".", re.sub(r"[^A-Za-z0-9._-]+", "-", text))[:longest].strip("-._ ")
    return f"{text}_" if DEVICES.fullmatch(text.split(".")[0]) else text


def _plain(name):
    return isinstance(name, str) and name != "" and safe_name(name, LONGEST_MADE) == name


def check_video(file, shown: str, limits: Limits) -> tuple[str, VideoInfo]:
    """What a file is by its content.

    Args:
        file: Its path.
        shown: What a sentence calls it.
        limits: What is allowed.

    Returns:
        The suffix of its container, and its `VideoInfo`.

    Raises:
        VPGCError: if it is empty, no video, too large or too long.
    """
    file = Path(file)
    if not file.is_file():
        raise VPGCError(f"{shown} did not arrive: upload it again.")
    size = file.stat().st_size
    if not size:
        raise VPGCError(f"{shown} is empty (0 bytes): copy or record it again.")
    if size > limits.megabytes * MEGABYTE:
        raise VPGCError(too_large(shown, size, limits))
    suffix = container_of(file)
    if suffix is None:
        raise VPGCError(
            f"{shown} is no video by its content, whatever its name says: give an MP4, MOV, MKV, "
            "WebM, AVI, FLV, MPEG or Ogg file."
        )
    length = _announced(file)
    if length <= limits.minutes * 60:
        try:
            info = probe(file)
        except VPGCError as error:
            # The path of an upload means nothing to a person.
            raise VPGCError(str(error).replace(str(file), shown)) from None
        length = info.duration
    if length > limits.minutes * 60:
        raise VPGCError(
            f"{shown} is {length / 60:.0f} minutes long and at most {limits.minutes:g} are taken: "
            "cut out the part that shows the person, or start vpgc studio with a greater "
            "--max-minutes."
        )
    return suffix, info


def too_large(shown: str, size: int, limits: Limits) -> str:
    """The sentence for a file that is too large."""
    return (
        f"{shown} has {size / MEGABYTE:.0f} MB and at most {limits.megabytes} are taken: cut it, "
        "or start vpgc studio with a greater --max-megabytes."
    )


def container_of(file) -> str | None:
    """The suffix of a video file by its first bytes, or `None`.

    Only containers that hold their own data: a playlist could name other files of this machine.
    """
    with open(file, "rb") as opened:
        head = opened.read(HEAD)
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"skip", b"free"):
        return ".mov" if head[4:8] != b"ftyp" or head[8:10] == b"qt" else ".mp4"
    if head[:4] == b"\x1aE\xdf\xa3":
        return ".webm" if b"webm" in head[:100] else ".mkv"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return ".avi"
    if head[:4] == b"OggS":
        return ".ogv"
    if head[:3] == b"FLV":
        return ".flv"
    if head[:4] == b"\x00\x00\x01\xba":
        return ".mpg"
    if len(head) > 376 and head[0] == head[188] == head[376] == 0x47:
        return ".ts"
    return None


def _announced(file) -> float:
    """Seconds that the header announces, without reading the file, or 0."""
    import av

    try:
        with open_container(file) as container:
            return (container.duration or 0) / av.time_base
    except av.FFmpegError:
        return 0.0
