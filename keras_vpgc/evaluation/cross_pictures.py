"""What the pictures of a driving clip and a result tell, in one pass over both."""

import keras
import numpy as np

from keras_vpgc.data import crop as crops
from keras_vpgc.data import landmark_sets, tracking
from keras_vpgc.data.crop import Crop
from keras_vpgc.data.tracking import Track
from keras_vpgc.data.video import VideoWriter
from keras_vpgc.metrics import align_face, flicker, sharpness, still_pairs
from keras_vpgc.progress import progress_bar
from keras_vpgc.reenactment.provenance import Provenance
from keras_vpgc.visualization import contact_sheet, draw_landmarks
from keras_vpgc.visualization.sheets import png, write

# Side in pixels of the square around the face at which sharpness and flicker are stated.
SIDE = 256
# Smaller pictures are enlarged to that for the detector.
DETECTED_SIDE = 256
# Frames looked at together.
BATCH = 16
# Faces of the driving person that are compared with the target's, evenly picked.
DRIVING_FACES = 60
COLUMNS = 8
LABELS = ("driving", "landmarks", "result")


def picture_scores(frames, before=None) -> dict[str, np.ndarray]:
    """Sharpness and flicker of square frames, at 256 pixels.

    Args:
        frames: uint8 `(n, s, s, 3)`, consecutive ones.
        before: The frame before them, `(s, s, 3)`, if any.

    Returns:
        Dict of `sharpness` `(n,)` and `flicker` `(n,)`, the change since the frame before; 0 for
        the first of all.
    """
    found: dict[str, list] = {"sharpness": [], "flicker": []}
    for start in range(0, len(frames), BATCH):
        part = frames[start : start + BATCH]
        count = len(part)
        # One shape for all batches; the first frame of all follows itself.
        earlier = frames[start - 1] if start else (part[0] if before is None else before)
        part = np.concatenate([earlier[None], part, np.repeat(part[-1:], BATCH - count, 0)])
        side = part.shape[1]
        if side != SIDE:
            part = np.stack([crops.apply(x, Crop(0, 0, side), SIDE) for x in part])
        for name, values in (("sharpness", sharpness(part)[1:]), ("flicker", flicker(None, part))):
            found[name].append(keras.ops.convert_to_numpy(values)[:count])
    return {name: np.concatenate([np.zeros(0), *parts]) for name, parts in found.items()}


def track_faces(clip, numbers, what: str, follow, tracker_model, progress: bool) -> Track:
    """A face in each of some frames, the largest, in parts of the picture's longer side.

    Args:
        clip: The clip, see `keras_vpgc.evaluation.clips`.
        numbers: Int `(n,)`, never falling.
        what: What it is, for the progress bar.
        follow: Tracks large pictures in several processes, see there.
        tracker_model: Path of `face_landmarker.task`.
        progress: Show a progress bar?

    Returns:
        A `Track` of n frames.
    """
    title, span = f"tracking {what}", (int(numbers[0]), int(numbers[-1]) + 1)
    smaller = min(clip.info.width, clip.info.height)
    if smaller >= DETECTED_SIDE:
        return follow(clip, title, span=span)[numbers - span[0]]
    import cv2

    scale = DETECTED_SIDE / smaller
    size = round(clip.info.width * scale), round(clip.info.height * scale)
    parts = []
    with (
        tracking.FaceTracker(tracker_model) as tracker,
        progress_bar(len(numbers), title, show=progress) as bar,
    ):
        for frame in clip.frames(numbers):
            frame = cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC)
            parts.append(tracker.track([frame]))
            bar.update(1)
    track = Track.join(parts)
    track.points = track.points / np.float32(max(size))
    return track


class CrossPictures:
    """One pass over a driving clip and a result: scores, side-by-side video, contact sheet.

    Args:
        clips: `{"driving": (clip, numbers), "result": ...}`: a clip (see
            `keras_vpgc.evaluation.clips`) and the numbers of its frames, as many of both.
        tracks: `{"driving": Track, "result": Track}` in parts of the pictures' longer sides.
        squares: The same of `Crop` around the faces, in pixels.
        asked: Landmarks `(n, 68, 2)` that drove a puppet, to be drawn; default: those found in the
            driving clip.
        embed: A `FaceEmbedding`, or `None`.
        folder: Where `silent.mp4` goes.
        progress: Show a progress bar?
    """

    def __init__(self, clips, tracks, squares, asked, embed, folder, progress):
        self.clips = clips
        self.tracks, self.squares, self.embed = tracks, squares, embed
        self.folder, self.progress = folder, progress
        self.count = len(clips["driving"][1])
        # Twice the result's pixels show nothing more.
        self.cell = int(np.clip(squares["result"].size, SIDE, 512)) // 2 * 2
        self.points = {}
        for name, (clip, _) in self.clips.items():
            longer = max(clip.info.width, clip.info.height)
            self.points[name] = landmark_sets.landmarks(tracks[name].points) * longer
        drawn = crops.to_crop(self.points["driving"], squares["driving"])
        self.drawn = drawn if asked is None else asked[:, :68]
        self.still = still_pairs(drawn)
        self.picked = np.unique(np.linspace(0, self.count - 1, COLUMNS).round().astype(int))
        self.shown: list[list[np.ndarray]] = []

    def run(self, order) -> dict[str, dict[str, np.ndarray]]:
        """Read all frames.

        Args:
            order: Int, which frame the side-by-side video shows at each tick, never falling.

        Returns:
            For `"driving"` and `"result"` a dict of `sharpness` `(n,)`, `flicker` `(n - 1,)`, NaN
            where the driving face moves, and with an embedding `embeddings` `(m, 128)`: of all
            frames of the result, NaN without a face, and of some of the driving clip.
        """
        found: dict[str, dict[str, list]] = {
            name: {"sharpness": [], "flicker": [], "embeddings": []} for name in self.clips
        }
        before: dict[str, np.ndarray | None] = dict.fromkeys(self.clips)
        times = np.bincount(order, minlength=self.count)
        faces = np.linspace(0, self.count - 1, min(DRIVING_FACES, self.count)).round()
        wanted = {"driving": set(faces.astype(int).tolist()), "result": set(range(self.count))}
        streams = {name: clip.frames(numbers) for name, (clip, numbers) in self.clips.items()}
        rate = self.clips["driving"][0].info.frame_rate
        metadata = Provenance(composite=True).metadata()
        try:
            with (
                VideoWriter(
                    self.folder / "silent.mp4", rate, overwrite=True, metadata=metadata
                ) as writer,
                progress_bar(self.count, "scoring", show=self.progress) as bar,
            ):
                for start in range(0, self.count, BATCH):
                    numbers = range(start, min(start + BATCH, self.count))
                    frames = {name: [next(x) for _ in numbers] for name, x in streams.items()}
                    for name, group in frames.items():
                        square = self.squares[name]
                        cut = np.stack([crops.apply(x, square, SIDE) for x in group])
                        for key, values in picture_scores(cut, before[name]).items():
                            found[name][key].append(values)
                        before[name] = cut[-1]
                        if self.embed is not None:
                            vectors = self._embed(name, group, numbers, wanted[name])
                            found[name]["embeddings"].append(vectors)
                    for place, i in enumerate(numbers):
                        panels = self._panels(i, *(x[place] for x in frames.values()))
                        for _ in range(times[i]):
                            writer.write(np.hstack(panels))
                    bar.update(len(numbers))
        finally:
            for stream in streams.values():
                stream.close()
        result: dict[str, dict[str, np.ndarray]] = {}
        for name, parts in found.items():
            result[name] = {key: np.concatenate(x) for key, x in parts.items() if x}
            changes = result[name]["flicker"][1:]
            result[name]["flicker"] = np.where(self.still, changes, np.nan)
        return result

    def sheet(self) -> bytes:
        """The contact sheet as PNG."""
        rows = [np.stack(row) for row in zip(*self.shown, strict=True)]
        return png(contact_sheet(rows, LABELS, columns=len(self.picked)))

    def _embed(self, name, frames, numbers, wanted):
        valid = self.tracks[name].valid
        chosen = [i for i in numbers if i in wanted]
        vectors = np.full((len(chosen), 128), np.nan, "float32")
        seen = [k for k, i in enumerate(chosen) if valid[i]]
        if seen:
            first = numbers[0]
            chips = [
                align_face(frames[chosen[k] - first], self.points[name][chosen[k]] - 0.5)
                for k in seen
            ]
            vectors[seen] = self.embed(np.stack(chips), BATCH)
        return vectors

    def _panels(self, i, driving, result):
        landmarks = np.zeros((self.cell, self.cell, 3), "uint8")
        if np.isfinite(self.drawn[i]).all():
            landmarks = draw_landmarks(landmarks, self.drawn[i])
        panels = [
            crops.apply(driving, self.squares["driving"], self.cell),
            landmarks,
            crops.apply(result, self.squares["result"], self.cell),
        ]
        if i in self.picked:
            self.shown.append(panels)
        return [write(panel, label) for panel, label in zip(panels, LABELS, strict=True)]
