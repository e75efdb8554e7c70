"""Opinion scores: a page that people rate clips on, and what their answers say."""

import json
import math
import os
import secrets
from pathlib import Path

from keras_vpgc.data.sound import read_sound
from keras_vpgc.errors import VPGCError, check_writable, writing
from keras_vpgc.evaluation import study_clips
from keras_vpgc.evaluation.clips import SAME_SHAPE, Clip
from keras_vpgc.evaluation.study_answers import KEY, KEY_FORMAT
from keras_vpgc.evaluation.study_scores import read_study
from keras_vpgc.progress import progress_bar
from keras_vpgc.visualization.study_page import PAGE_VERSION, questions, study_page

__all__ = ["make_study", "read_study"]

PAGE = "study.html"
SOUNDS = ("auto", "own", "reference", "none")
# Seconds that a rater takes for an item beyond watching it once, as told before the consent.
SECONDS_BESIDE = 15
# Clips of one scene that differ by less in length are no news.
SAME_LENGTH = 0.2


def make_study(
    systems: dict,
    output,
    *,
    references=None,
    size: int = 512,
    seconds: float = 10,
    sound: str = "auto",
    repeats: int = 0,
    contact: str = "",
    max_megabytes: float = 150,
    progress: bool = True,
) -> dict:
    """Write a page on which people rate the clips of several systems without knowing whose.

    The page is one file that opens in any browser, fetches and sends nothing, and saves the answers
    as one JSON file. Its questions are those of the paper's user study, on a scale from 1 (bad) to
    5 (excellent). All clips are encoded anew with one picture size and one setting, without
    metadata, under random identifiers; those of one scene are cut to its shortest, and pictures of
    other shapes get black borders. Frame rates stay, and so does what can be seen. Each rater sees
    all clips in another random order.

    The paper's study had 15 raters of 18 to 30 years. It does not state the number of clips; its
    means are fifteenths, as of one rating by each rater, of each system, on each question.

    Args:
        systems: Name -> a folder of videos, whose file names without the ending name the clips; or
            a video, or a list of videos, matched by their places. All systems have the same clips.
            To rate the truth too, give it as one of the systems.
        output: Folder for `study.html`, which is sent out, and `key.json`, which tells whose the
            clips are and must not be.
        references: The true or driving videos, given like a system: shown beside each clip, silent.
        size: Longer side of the picture in pixels.
        seconds: Length of a clip at most, from its beginning.
        sound: `"own"` of each clip, `"reference"` for that of the reference in all clips of a
            scene, `"none"`, or `"auto"`: that of the reference where it has one, else each its own.
        repeats: Clips, chosen for each rater, that come a second time, to see whether the rater
            says the same again; at most half of all.
        contact: A sentence for the raters: who asks, and whom to write to.
        max_megabytes: How large the page may become, in millions of bytes.
        progress: Show a progress bar?

    Returns:
        Dict of `page` and `key` (paths), `clips` (number of ratable ones), `bytes` of the page,
        `minutes` that it takes about, and `notes`: sentences on what was cut.

    Raises:
        VPGCError: if systems lack clips, a file cannot be decoded, an option does not exist, some
            clips of a scene have sound and others not, there is neither sound nor a reference to
            judge synchronisation by, the page would become too large, or the folder holds a study.

    Example:

    ```python
    make_study({"ours": "ours", "theirs": "theirs"}, "study", references="driving")
    ```

    References:
        Wang et al., "Efficient Video Portrait Reenactment via Grid-based Codebook", 2023, Tab. 3;
        ITU-T P.910 (absolute category rating, clips of about ten seconds, repeated ones).
    """
    output = Path(output)
    _check_options(systems, output, size, seconds, sound, max_megabytes)
    names, groups = study_clips.find_clips(systems, references)
    count = len(systems) * len(names)
    if not 0 <= repeats <= count // 2:
        raise VPGCError(
            f"repeats = {repeats} is impossible with {count} clips to rate: at most half of them "
            f"can come twice, {count // 2}."
        )
    opened = {name: [Clip.open(file) for file in files] for name, files in groups.items()}
    sources = [_sources(sound, scene, i, opened) for i, scene in enumerate(names)]
    lengths, notes = _lengths(names, opened, seconds)
    box = study_clips.Box.around([clip for row in opened.values() for clip in row], size)
    check_writable(output / PAGE)

    identifiers = _identifiers(count + (len(names) if references is not None else 0))
    items: dict[str, str | None] = {}
    whose: dict[str, dict] = {}
    shown: dict[str, str] = {}
    encoded: dict[str, bytes] = {}
    limit = _Limit(max_megabytes, sum(lengths) * len(opened), size, seconds)
    with progress_bar(len(identifiers), "encoding", "clip", show=progress) as bar:
        for i, (scene, length) in enumerate(zip(names, lengths, strict=True)):
            # The reference first: its identifier goes with the others of the scene.
            for name in sorted(opened, key=bool):
                clip, source = opened[name][i], sources[i].get(name)
                voice = None if source is None else read_sound(source, length)
                if source is not None and voice is None:
                    raise VPGCError(f"The sound of {source} cannot be decoded: convert it to AAC.")
                identifier = identifiers.pop()
                data = study_clips.encode(clip, box, length, voice)
                encoded[identifier] = data
                limit.add(data, length)
                described = {"clip": scene, **clip.describe()}
                if name:
                    items[identifier] = shown.get(scene)
                    whose[identifier] = {"system": name, **described}
                else:
                    shown[scene] = identifier
                    whose[identifier] = {"reference": True, **described}
                bar.update()

    study = secrets.token_hex(8)
    has_sound = any(sources)
    mean = sum(lengths) / len(lengths) + SECONDS_BESIDE
    minutes = max(1, math.ceil((count + repeats) * mean / 60))
    page = study_page(
        study,
        items,
        encoded,
        size=(box.width, box.height),
        repeats=repeats,
        minutes=minutes,
        sound=has_sound,
        contact=contact,
    )
    key = {
        "format": KEY_FORMAT,
        "version": PAGE_VERSION,
        "study": study,
        "systems": list(systems),
        "clips": names,
        "repeats": repeats,
        "items": dict(sorted(whose.items())),
        "protocol": {
            "questions": questions(has_sound, references is not None),
            "width": box.width,
            "height": box.height,
            "seconds": dict(zip(names, lengths, strict=True)),
            "sound": sound,
            "encoder": f"H.264, CRF {study_clips.CRF}, preset {study_clips.PRESET}",
        },
    }
    with writing(output):
        output.mkdir(parents=True, exist_ok=True)
        # The key first: a page without its key would be rated in vain.
        _write(output / KEY, [json.dumps(key, indent=1, ensure_ascii=False)])
        _write(output / PAGE, page)
    return {
        "page": output / PAGE,
        "key": output / KEY,
        "clips": count,
        "bytes": (output / PAGE).stat().st_size,
        "minutes": minutes,
        "notes": notes,
    }


def _check_options(systems, output, size, seconds, sound, max_megabytes):
    if not systems:
        raise VPGCError("There is no system to rate: give NAME=VIDEO or NAME=FOLDER for each.")
    for name in systems:
        if not name.strip() or not name.isprintable():
            raise VPGCError(f"{name!r} is no name for a system: give a word or two.")
    if sound not in SOUNDS:
        raise VPGCError(f"There is no sound {sound!r}: give one of {', '.join(SOUNDS)}.")
    if not 32 <= size <= 1920:
        raise VPGCError(f"A size of {size} pixels is no use: give one from 32 to 1920.")
    if not 0.5 <= seconds < math.inf:
        raise VPGCError(
            f"Clips of {seconds:g} seconds cannot be rated: give half a second or more."
        )
    if not max_megabytes > 0:
        raise VPGCError(f"A limit of {max_megabytes:g} MB leaves no page: give one above 0.")
    if output.exists() and not output.is_dir():
        raise VPGCError(f"{output} is a file: give a folder for the study.")
    for file in (output / KEY, output / PAGE):
        if file.exists():
            raise VPGCError(
                f"{output} holds a study already, whose answers only its own key can read: choose "
                "another folder."
            )


def _sources(sound, scene, index, opened) -> dict:
    """Name of each system -> the file whose sound its clip of a scene gets."""
    row = {name: clips[index] for name, clips in opened.items()}
    reference = row.pop("", None)
    title = f"clip {scene!r}"
    if sound == "reference" and (reference is None or not reference.info.has_sound):
        raise VPGCError(
            f"The reference of {title} has no sound: give one that has, or --sound own."
        )
    if reference is not None and reference.info.has_sound and sound in ("auto", "reference"):
        return dict.fromkeys(row, reference.path)
    having = {} if sound == "none" else {n: c.path for n, c in row.items() if c.info.has_sound}
    if having and len(having) < len(row):
        silent = next(name for name in row if name not in having)
        raise VPGCError(
            f"Of {title} the system {next(iter(having))!r} has sound and {silent!r} has none, "
            "which would tell them apart: give a reference with sound for all, or --sound none."
        )
    if not having and reference is None:
        raise VPGCError(
            f"Synchronisation of {title} cannot be judged without sound or a reference: give "
            "videos with sound, or the driving videos by --reference."
        )
    return having


def _lengths(names, opened, seconds):
    """Seconds of each scene's clips, and what there is to say about them."""
    lengths, notes = [], []
    for i, scene in enumerate(names):
        own = [study_clips.duration(row[i]) for row in opened.values()]
        lengths.append(min(seconds, *own))
        if min(max(own), seconds) - lengths[-1] > SAME_LENGTH:
            notes.append(
                f"Clip {scene!r} is cut to {lengths[-1]:.1f} s, the shortest of its videos."
            )
        rates = sorted({round(row[i].info.frame_rate, 2) for name, row in opened.items() if name})
        if len(rates) > 1:
            notes.append(
                f"The videos of clip {scene!r} have {rates[0]:g} to {rates[-1]:g} frames a second, "
                "which raters may see."
            )
        shapes = [row[i].info.width / row[i].info.height for name, row in opened.items() if name]
        if max(shapes) > (1 + SAME_SHAPE) * min(shapes):
            notes.append(
                f"The pictures of clip {scene!r} differ in shape, so that some get black borders, "
                "which raters see."
            )
    return lengths, notes


def _identifiers(count):
    """Random ones, so that neither their order nor their looks tell anything."""
    found: set[str] = set()
    while len(found) < count:
        found.add(secrets.token_hex(4))
    return list(found)


class _Limit:
    """Ends the work when the page becomes too large, and tells how large it would be."""

    def __init__(self, megabytes, total, size, seconds):
        self.megabytes, self.total, self.size, self.seconds = megabytes, total, size, seconds
        self.bytes = self.done = 0.0

    def add(self, data, length):
        self.bytes += len(data) * 4 / 3  # as base64
        self.done += length
        if self.bytes > self.megabytes * 1e6:
            whole = self.bytes * self.total / self.done / 1e6
            raise VPGCError(
                f"The page would become about {whole:.3g} MB large, above the limit of "
                f"{self.megabytes:g} MB: give fewer or shorter clips (--seconds, now "
                f"{self.seconds:g}), a smaller --size (now {self.size}), or --max-megabytes."
            )


def _write(path, pieces):
    """Under a temporary name until it is whole."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with open(partial, "w", encoding="utf-8") as file:
            file.writelines(pieces)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
