"""Networks and other named tensors in files of safetensors, with words about them in the header; shipped ones too."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from thalweg.core import UnreadableFile
from thalweg.core.files import atomic_write, check_target

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")


def save_tensors(path: str | Path, tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> None:
    """Write tensors as ``.safetensors``, whole or not at all, with ``about`` in the header."""
    from safetensors.torch import save

    target = check_target(path, (".safetensors",))
    held = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with atomic_write(target) as file:
        file.write(save(held, dict(about)))


def load_tensors(
    path: str | Path,
    build: Callable[[dict[str, str], dict[str, Any]], T],
    wrong: str,
    device: str = "cpu",
    framework: Literal["pt", "np"] = "pt",
) -> T:
    """What ``build(about, tensors)`` makes of a file that `save_tensors` wrote.

    Args:
        wrong: what is said of a file that it cannot be made of: ``"no UNet. save_unet() writes them"``.
        framework: ``"np"`` gives arrays in place of tensors, and does without torch.

    Raises:
        UnreadableFile: absent, damaged, or of something else.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework=framework, device=device) as file:
            about = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return build(about, tensors)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UnreadableFile(f"{path} is {wrong}. ({reason})") from error


@contextmanager
def shipped(package: str, name: str, checksum: str, folder: str = "pretrained") -> Iterator[Path]:
    """A file of ``package``'s ``folder``, whose bytes have this SHA-256.

    Raises:
        UnreadableFile: they have not.
    """
    with resources.as_file(resources.files(package) / folder / name) as path:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != checksum:
            raise UnreadableFile(
                f"{path} is damaged: its SHA-256 is {found[:12]}, expected {checksum[:12]}. Reinstall."
            )
        yield path
