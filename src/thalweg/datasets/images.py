"""Folders of pictures, all brought to one size and one number of channels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from thalweg.core import InvalidProblem, MissingExtra, UnreadableFile
from thalweg.core.validation import is_whole, require

if TYPE_CHECKING:
    from PIL.Image import Image

ENDINGS = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
#: What file managers leave in a folder.
IGNORED = frozenset({"thumbs.db", "desktop.ini"})
#: Names of a message; the rest is counted.
NAMED = 5


@dataclass(frozen=True)
class Images:
    """Pictures of a folder.

    Args:
        X: pixels 0 to 255, shape (n, channels, size, size), uint8.
        files: their paths below the folder, sorted.
        labels: the folder that each lies in, directly below; empty where one does not lie in any.
    """

    X: NDArray[np.uint8]
    files: tuple[str, ...]
    labels: tuple[str, ...]

    @property
    def classes(self) -> list[str]:
        """The labels, each once, sorted."""
        return sorted(set(self.labels))


def image_files(folder: str | Path) -> list[str]:
    """The pictures of a folder and of those in it, as sorted paths below it; hidden files do not count.

    Raises:
        UnreadableFile: no such folder. InvalidProblem: no pictures, or files that are none.
    """
    root = Path(folder)
    if not root.is_dir():
        raise UnreadableFile(f"{root} is no folder; expected one with pictures.")
    below = [p.relative_to(root) for p in root.rglob("*") if p.is_file()]
    seen = [
        p
        for p in below
        if not any(part.startswith(".") for part in p.parts) and p.name.lower() not in IGNORED
    ]
    odd = sorted(p.as_posix() for p in seen if p.suffix.lower() not in ENDINGS)
    if odd:
        raise InvalidProblem(
            f"{root} holds {_listed(odd)}, of no ending that is read ({', '.join(ENDINGS)}). Move them out."
        )
    if not seen:
        raise InvalidProblem(f"{root} holds no pictures ({', '.join(ENDINGS)}).")
    return sorted(p.as_posix() for p in seen)


def load_images(folder: str | Path, size: int = 32, grey: bool = False) -> Images:
    """Load all pictures of a folder, squeezed to squares of ``size`` pixels.

    They are turned as their EXIF data say; what is transparent is put on white; 16 bits a pixel are rounded to 8. Areas
    are averaged where a picture is made smaller. One that cannot be read is named, and nothing is left out.

    Args:
        folder: with pictures in it or in folders below.
        size: pixels of a side, 4 to 1024. Default 32.
        grey: one channel; three by default.

    Raises:
        MissingExtra: without Pillow.
        UnreadableFile: no such folder, or pictures that are damaged or have several frames.
        InvalidProblem: no pictures, or files that are none.

    Cost: reading them, and ``size**2`` bytes a channel.
    """
    try:
        import PIL.Image  # noqa: F401
    except ImportError:
        raise MissingExtra("Pillow", "images") from None
    require(is_whole(size) and 4 <= size <= 1024, "load_images needs 4 <= size <= 1024", got=size)
    files, root = image_files(folder), Path(folder)
    X = np.empty((len(files), 1 if grey else 3, size, size), dtype=np.uint8)
    bad: list[str] = []
    for place, name in zip(X, files, strict=True):
        try:
            place[:] = _pixels(root / name, size, grey)
        except (OSError, SyntaxError, ValueError, EOFError, MemoryError) as error:
            bad.append(f"{name} ({' '.join(str(error).split())[:80] or type(error).__name__})")
    if bad:
        raise UnreadableFile(f"{root}: cannot read {_listed(bad)}. Mend them or move them out.")
    labels = tuple(name.split("/")[0] if "/" in name else "" for name in files)
    return Images(X, tuple(files), labels)


def load_grey(path: str | Path) -> NDArray[np.float64]:
    """One grey picture as it is, shape (height, width), black 0 and white 1.

    Raises:
        MissingExtra: without Pillow. UnreadableFile: absent, damaged, or of several frames.
        InvalidProblem: a picture in colour.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise MissingExtra("Pillow", "images") from None
    path = Path(path)
    if not path.is_file():
        raise UnreadableFile(f"No file {path}. Expected a picture.")
    try:
        with Image.open(path) as opened:
            if getattr(opened, "n_frames", 1) != 1:
                raise ValueError("several frames; expected one picture")
            picture = ImageOps.exif_transpose(opened)
            picture.load()
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError, Image.DecompressionBombError) as error:
        raise UnreadableFile(
            f"Cannot read {path}: {' '.join(str(error).split())[:80] or type(error).__name__}."
        ) from error
    values = np.asarray(picture)
    if values.ndim == 3 and (values == values[..., :1]).all():
        values = values[..., 0]
    if values.ndim != 2 or picture.mode in ("P", "F"):
        raise InvalidProblem(
            f"{path} is a picture in colour ({picture.mode}); expected a grey one. Convert it, or pass a .npy."
        )
    white = 1.0 if picture.mode == "1" else 65535.0 if picture.mode.startswith("I") else 255.0
    return values.astype(np.float64) / white


def _pixels(path: Path, size: int, grey: bool) -> NDArray[np.uint8]:
    """One picture, shape (channels, size, size)."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as opened:
            frames = int(getattr(opened, "n_frames", 1))
            if frames != 1 and opened.format != "MPO":  # of a phone's, the second is a preview or a depth
                raise ValueError(f"{frames} frames; expected one picture")
            picture = _of_8_bits(ImageOps.exif_transpose(opened))
    except Image.DecompressionBombError as error:
        raise ValueError(error) from error
    if picture.has_transparency_data:
        above = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", above.size, "white"), above)
    fitted = picture.convert("L" if grey else "RGB").resize((size, size), Image.Resampling.BILINEAR)
    pixels = np.asarray(fitted)
    return pixels[None] if grey else np.moveaxis(pixels, -1, 0)


def _of_8_bits(picture: Image) -> Image:
    """A picture of 8 bits a channel; Pillow would cut what is above them."""
    from PIL import Image

    if picture.mode == "F":
        raise ValueError("pixels are fractions; expected 8 or 16 bits")
    if not picture.mode.startswith("I"):
        picture.load()
        return picture
    values = np.asarray(picture).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError("pixels beyond 16 bits")
    return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
