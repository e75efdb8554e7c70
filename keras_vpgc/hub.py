"""Puppets on the Hugging Face Hub, or on a server that speaks its language."""

import contextlib
import dataclasses
import os
import re
import shutil
import zipfile
from pathlib import Path

from keras_vpgc.errors import VPGCError, check_writable, missing_extra, writing
from keras_vpgc.progress import redraws
from keras_vpgc.version import __version__

PUPPET, CARD, PAGE = "puppet.keras", "MODEL_CARD.md", "README.md"
# What `keras.saving.save_model("hf://...")` leaves there: a model file, unpacked.
UNPACKED = ("metadata.json", "config.json", "model.weights.h5")
# A path loses the second slash where it has gone through `pathlib`.
PREFIX = re.compile(r"^hf:/{1,2}")
NAME = re.compile(r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")


@dataclasses.dataclass(frozen=True)
class Place:
    """A repository on the Hub.

    Attributes:
        name: `OWNER/NAME`.
        revision: A branch, a tag or a commit; `None` for the newest.
    """

    name: str
    revision: str | None = None

    def __str__(self):
        return f"hf://{self.name}" + (f"@{self.revision}" if self.revision else "")


def is_hub_path(path) -> bool:
    """Does a path begin with `hf://`?"""
    return bool(PREFIX.match(str(path)))


def parse(path) -> Place:
    """The place that `hf://OWNER/NAME`, `hf://OWNER/NAME@REVISION` or `OWNER/NAME` means.

    Args:
        path: The text.

    Returns:
        A `Place`.

    Raises:
        VPGCError: if it is written otherwise.

    Example:

    ```python
    parse("hf://me/my-puppet@v2").revision  # "v2"
    ```
    """
    name, _, revision = PREFIX.sub("", str(path)).partition("@")
    if not NAME.match(name) or name.endswith(".git") or "--" in name or ".." in name:
        raise VPGCError(
            f"{path} names no place on the Hub: write hf://OWNER/NAME, such as hf://me/my-puppet."
        )
    return Place(name, revision or None)


def could_be_hub_name(path) -> bool:
    """Is a path that is not there perhaps a bare `OWNER/NAME`? Not if OWNER is a folder here."""
    path = str(path)
    named = NAME.match(path) and not path.endswith(".keras")
    return bool(named) and not Path(path.split("/")[0]).exists()


def fetch(path) -> Path:
    """The puppet of a place on the Hub, in the Hub's cache.

    What is there already is not fetched again, and is used where there is no network.

    Args:
        path: See `parse`.

    Returns:
        The folder with `puppet.keras`, and `README.md` where the place has one. Nothing may be
        written into it.

    Raises:
        VPGCError: without huggingface_hub, without a network and a copy, if there is no such place
            or it is not yours to see, or it holds no puppet.

    Example:

    ```python
    puppet = Puppet.load(fetch("hf://me/my-puppet"))
    ```
    """
    place = parse(path)
    hub = _hub()
    with _said(place, "fetched"):
        folder = Path(
            hub.snapshot_download(
                place.name,
                revision=place.revision,
                allow_patterns=[PUPPET, PAGE, *UNPACKED],
                cache_dir=os.environ.get("HF_HUB_CACHE"),
                endpoint=_endpoint(),
                local_files_only=_offline(),
                library_name="keras_vpgc",
                library_version=__version__,
            )
        )
    if not (folder / PUPPET).is_file():
        if not all((folder / name).is_file() for name in UNPACKED):
            raise VPGCError(f"{place} holds no {PUPPET}: ask its owner, or check the name.")
        with writing(folder):
            _pack(folder)
    return folder


def pull(path, output, overwrite: bool = False) -> Path:
    """Fetch a puppet into a folder of yours.

    Args:
        path: See `parse`.
        output: The folder; gets `puppet.keras` and, where there is one, `MODEL_CARD.md`.
        overwrite: Replace a puppet that is there?

    Returns:
        The folder.

    Raises:
        VPGCError: see `fetch`; or if the folder holds a puppet, or cannot be written.

    Example:

    ```python
    pull("hf://me/my-puppet", "runs/shared")
    ```
    """
    output = Path(output)
    if output.exists() and not output.is_dir():
        raise VPGCError(f"{output} is a file: give a folder.")
    for name in (PUPPET, CARD):
        if (output / name).exists() and not overwrite:
            raise VPGCError(f"{output / name} exists: choose another folder, or --overwrite.")
    check_writable(output / PUPPET)
    source = fetch(path)
    with writing(output):
        output.mkdir(parents=True, exist_ok=True)
        # The puppet last: where it is, all is there.
        for name, target in ((PAGE, CARD), (PUPPET, PUPPET)):
            if not (source / name).is_file():
                # A card that is there tells of another puppet.
                (output / target).unlink(missing_ok=True)
                continue
            partial = output / f".{target}"
            try:
                shutil.copyfile(source / name, partial)
                os.replace(partial, output / target)
            finally:
                partial.unlink(missing_ok=True)
    return output


def push(run, path, public: bool = False, message: str | None = None) -> str:
    """Put a puppet and its model card on the Hub.

    `puppet.keras` and `MODEL_CARD.md`, as the repository's `README.md`, go there, and nothing else:
    no frames, previews, logs or settings.

    Args:
        run: A run folder with a complete model card.
        path: See `parse`; the repository is made if there is none.
        public: May everybody see it, if it is made? Else it is private. One that is there keeps
            what it is.
        message: What changed, for the history.

    Returns:
        The address of the page.

    Raises:
        VPGCError: if the card leaves open who is shown and what was agreed, without a network or a
            token that may write there, or for a run without a puppet.

    Example:

    ```python
    push("runs/me", "hf://me/my-puppet")
    ```
    """
    run, place = Path(run), parse(path)
    if place.revision is not None:
        raise VPGCError(f"{place}: leave out @{place.revision}; what is sent becomes the newest.")
    for name in (PUPPET, CARD):
        if not (run / name).is_file():
            raise VPGCError(f"{run} holds no {name}: give the run folder of vpgc train.")
    check_card(run / CARD)
    if _offline():
        raise VPGCError(
            f"HF_HUB_OFFLINE is set, so nothing can be sent to {place}: unset it, and try again."
        )
    hub = _hub()
    api = hub.HfApi(endpoint=_endpoint(), library_name="keras_vpgc", library_version=__version__)
    files = {PUPPET: run / PUPPET, PAGE: run / CARD}
    with _said(place, "sent"):
        api.create_repo(place.name, private=not public, exist_ok=True)
        api.create_commit(
            repo_id=place.name,
            operations=[hub.CommitOperationAdd(name, str(file)) for name, file in files.items()],
            commit_message=message or f"Puppet, by keras_vpgc {__version__}",
        )
    return f"{_endpoint() or 'https://huggingface.co'}/{place.name}"


def check_card(card) -> None:
    """Refuse a model card that leaves open what only the owner knows.

    Args:
        card: The `MODEL_CARD.md`.

    Raises:
        VPGCError: naming what is open.

    Example:

    ```python
    check_card("runs/me/MODEL_CARD.md")
    ```
    """
    try:
        lines = Path(card).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise VPGCError(f"{card} is not UTF-8: save it as that.") from None
    places = [line for line in lines if "FILL IN" in line]
    opened = []
    for line in places:
        if line.startswith("|"):
            opened.append(line.split("|")[1].strip())
        elif line.startswith("license:"):
            opened.append("license")
        elif line.startswith("# "):
            opened.append("whose puppet it is")
    if opened:
        raise VPGCError(
            f"{card} still says FILL IN at: {'; '.join(opened)}. Fill it in, so that everybody "
            "sees whose puppet it is and what that person agreed to."
        )


def _hub():
    try:
        import huggingface_hub
        from huggingface_hub.utils import disable_progress_bars
    except ImportError:
        raise missing_extra("huggingface-hub", "share") from None
    if not redraws():
        # Its bars are made to be redrawn.
        disable_progress_bars()
    return huggingface_hub


def _endpoint():
    return (os.environ.get("HF_ENDPOINT") or "").rstrip("/") or None


def _offline():
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


@contextlib.contextmanager
def _said(place, done):
    """What the Hub's client raises, in a sentence."""
    from huggingface_hub import errors

    server = _endpoint() or "https://huggingface.co"
    login = "log in by hf auth login, or set HF_TOKEN"
    try:
        yield
    except errors.RevisionNotFoundError:
        raise VPGCError(f"There is no revision {place.revision} of {place.name}.") from None
    except errors.GatedRepoError:
        raise VPGCError(f"{place} asks you to agree to its terms at {server} first.") from None
    except errors.RepositoryNotFoundError:
        raise VPGCError(
            f"There is no {place} at {server}, or you may not see it: check the name, or {login}."
        ) from None
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled):
        copy = ", and no copy is in the cache" if done == "fetched" else ""
        raise VPGCError(
            f"{place} cannot be {done}: {server} cannot be reached{copy}. Check the network (and "
            "HF_ENDPOINT, HF_HUB_OFFLINE), and run the same command again."
        ) from None
    except errors.HfHubHTTPError as error:
        code = getattr(error.response, "status_code", None)
        if code in (401, 403):
            raise VPGCError(f"{place} cannot be {done}: {login}, as somebody who may.") from None
        reason = str(error).strip().splitlines()[0][:200]
        raise VPGCError(f"{place} cannot be {done}: {server} says {reason}") from None
    except errors.HFValidationError as error:
        raise VPGCError(f"{place}: {str(error).splitlines()[0]}") from None
    except Exception as error:
        # The client's library for HTTP is its own affair: what it raises has such a name.
        words = ("Connect", "Timeout", "Network", "Proxy", "Transport")
        names = [x.__name__ for x in type(error).__mro__]
        if not any(word in name for word in words for name in names):
            with writing(f"the copy of {place}"):
                raise
        raise VPGCError(
            f"{place} cannot be {done}: {server} cannot be reached. Check the network, and run the "
            "same command again."
        ) from None


def _pack(folder):
    """Make a model file of an unpacked one, the same bytes each time."""
    partial = folder / f".{PUPPET}.{os.getpid()}"
    try:
        with zipfile.ZipFile(partial, "w") as archive:
            for name in UNPACKED:
                archive.writestr(zipfile.ZipInfo(name), (folder / name).read_bytes())
        os.replace(partial, folder / PUPPET)
    finally:
        partial.unlink(missing_ok=True)
