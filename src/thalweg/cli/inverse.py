"""Measurements from an array: an image, its residual, and a picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, cast

import typer

from thalweg.cli.case import Case, named
from thalweg.cli.methods import Maker, option_values, options
from thalweg.cli.output import array_of, write_arrays
from thalweg.core import Figure, InvalidParameter, InvalidProblem, Problem, Result, UnknownName

if TYPE_CHECKING:
    import numpy as np

    from thalweg.inverse import DDNM, DDRM, DDS, DPS, MCG, DiffPIR, InverseProblem, Operator
    from thalweg.inverse.denoisers import Denoiser

#: Images that a page draws.
DRAWN = 4
#: Share of exact zeros among what a mask measures from which it is not the data's.
ZEROS = 0.05


def read(
    data: Annotated[
        list[Path],
        typer.Argument(help="Measurements: .npy, .npz, a table or a grey picture; of one image, or a batch."),
    ],
    operator: Annotated[
        str,
        typer.Option(
            help="radon:views=8 · fan:views=8 · fft · sense:maps=FILE · blur:deviation=1 · super:factor=2 · inpainting "
            "(masks: where the data are not zero, or mask=FILE, or a kind with acceleration, centre and seed)."
        ),
    ],
    volume: Annotated[bool, typer.Option(help="The first dimension is the depth of one volume.")] = False,
    sigma: Annotated[float, typer.Option(min=0.0, help="Deviation of the noise in each number.")] = 0.0,
    low: Annotated[float, typer.Option(help="Value of black, in the measurements' unit.")] = 0.0,
    high: Annotated[float, typer.Option(help="Value of white.")] = 1.0,
    truth: Annotated[
        Path | None, typer.Option(help="The image, where it is known: for rmse and PSNR.")
    ] = None,
) -> Mapping[str, Problem]:
    """Reconstruct an image from linear measurements."""
    import numpy as np

    from thalweg.inverse import InverseProblem

    if not -np.inf < low < high < np.inf:
        raise InvalidParameter(f"--low and --high: expected low < high; got {low:g} and {high:g}.")
    if truth is not None and len(data) > 1:
        raise InvalidProblem(f"--truth is one image; got {len(data)} files of measurements.")
    known = None if truth is None else _loaded(truth, "the truth")
    problems = {}
    for name, path in named(data).items():
        y = _loaded(path, "y")
        A = _operator(operator, y, volume)
        y = _matching(A, y, path)
        # denoisers see [-1, 1]: x = middle + half z
        half, middle = (high - low) / 2, (high + low) / 2
        offset = A.A(np.full(A.image_shape, middle))
        problems[name] = InverseProblem(
            A, (y - offset) / half, sigma / half, None if known is None else (known - middle) / half
        )
    return problems


def _loaded(path: Path, name: str) -> np.ndarray:
    """An array, or a grey picture with black 0 and white 1."""
    from thalweg.datasets import load_tensor
    from thalweg.datasets.images import ENDINGS, load_grey

    return load_grey(path) if path.suffix.lower() in ENDINGS else load_tensor(path, name=name)


def _matching(A: Operator, y: np.ndarray, path: Path) -> np.ndarray:
    """``y``, complex where the operator's data are, or a word on its shape."""
    import numpy as np

    if y.shape[-len(A.data_shape) :] != A.data_shape or y.ndim > len(A.data_shape) + 1:
        raise InvalidProblem(
            f"{path} has shape {y.shape}; the operator measures {A.data_shape}. Look at --operator and --volume."
        )
    if A.complex_data:
        return y.astype(np.complex128)
    if np.iscomplexobj(y):
        raise InvalidProblem(f"{path} is complex; a {type(A).__name__} measures real numbers.")
    return y


def _radon(problem: np.ndarray, views: int, span: float = 180.0, side: int | None = None) -> Operator:
    from thalweg.inverse import Radon

    return Radon(side or problem.shape[-1], views, span=span, detectors=problem.shape[-1])


def _fan(
    problem: np.ndarray, views: int, distance: float = 1.5, span: float = 360.0, side: int | None = None
) -> Operator:
    from thalweg.inverse import FanBeam

    detectors = problem.shape[-1]
    return FanBeam(side or detectors // 2, views, distance=distance, span=span, detectors=detectors)


def _fft(
    problem: np.ndarray,
    mask: str = "data",
    acceleration: float = 4.0,
    centre: float = 0.08,
    seed: int = 0,
    real: bool = True,
) -> Operator:
    from thalweg.inverse import MaskedFFT

    found = _mask(problem, mask, acceleration, centre, seed)
    _check_measured(problem, found)
    return MaskedFFT(found, real=real)


def _sense(
    problem: np.ndarray,
    maps: str = "estimate",
    mask: str = "data",
    acceleration: float = 4.0,
    centre: float = 0.08,
    seed: int = 0,
    real: bool = True,
    normalise: bool = False,
) -> Operator:
    from thalweg.datasets import load_tensor
    from thalweg.inverse import Sense, estimate_maps
    from thalweg.inverse.masks import middle

    found = _mask(problem, mask, acceleration, centre, seed)
    if problem.ndim < 3:
        raise InvalidProblem(f"sense: the data have shape {problem.shape}; expected (coils, height, width).")
    _check_measured(problem, found)
    if maps == "estimate":
        lines = middle(found)
        if lines < 2:
            raise InvalidProblem(
                "sense: the middle of the data is not measured whole, so maps cannot be estimated. Pass maps=FILE."
            )
        first = problem.reshape(-1, *problem.shape[-3:])[0]
        return Sense(estimate_maps(first, lines, real=real), found, real=real)
    sensitivities = load_tensor(maps, name="the maps")
    return Sense(sensitivities, found, real=real, normalise=normalise)


def _blur(problem: np.ndarray, deviation: float = 1.0) -> Operator:
    from thalweg.inverse import Blur, gaussian_kernel

    return Blur(problem.shape[-2:], gaussian_kernel(deviation))


def _super(problem: np.ndarray, factor: int = 2) -> Operator:
    from thalweg.inverse import SuperResolution

    rows, columns = problem.shape[-2:]
    return SuperResolution((rows * factor, columns * factor), factor)


def _inpainting(
    problem: np.ndarray,
    mask: str = "data",
    acceleration: float = 2.0,
    centre: float = 0.0,
    seed: int = 0,
) -> Operator:
    from thalweg.inverse import Inpainting

    return Inpainting(_mask(problem, mask, acceleration, centre, seed))


OPERATORS: dict[str, Callable[..., Operator]] = {
    "radon": _radon,
    "fan": _fan,
    "fft": _fft,
    "sense": _sense,
    "blur": _blur,
    "super": _super,
    "inpainting": _inpainting,
}


def _mask(problem: np.ndarray, mask: str, acceleration: float, centre: float, seed: int) -> np.ndarray:
    from thalweg.datasets import load_tensor
    from thalweg.inverse.masks import MASKS

    if mask == "data":
        return (problem != 0).reshape(-1, *problem.shape[-2:]).any(0).astype(float)
    if mask in MASKS:
        rows, columns = problem.shape[-2:]
        return MASKS[mask]((rows, columns), acceleration, centre, seed)
    if not Path(mask).suffix:
        raise UnknownName("mask", mask, ["data", *MASKS], see="Or give a file.")
    return load_tensor(mask, name="the mask")


def _check_measured(y: np.ndarray, mask: np.ndarray) -> None:
    """Zeros where the mask measures are what was left out: frequencies of an image are hardly ever zero."""
    if mask.shape != y.shape[-2:]:
        return  # the operator says it
    seen = (y != 0).reshape(-1, *mask.shape).any(0)
    wrong = float(((mask != 0) & ~seen).sum() / max(1, (mask != 0).sum()))
    if wrong > ZEROS:
        raise InvalidProblem(
            f"The mask measures frequencies of which {100 * wrong:.0f} % are exactly zero in the data: it is another "
            "mask. Leave mask out to take it from the data, or pass theirs as mask=FILE."
        )


def _operator(text: str, y: np.ndarray, volume: bool) -> Operator:
    """The operator that ``name:option=value,...`` says, for data like ``y``."""
    from thalweg.inverse import SliceStack
    from thalweg.inverse.masks import MASKS

    name, _, rest = text.partition(":")
    if name not in OPERATORS:
        raise UnknownName("operator", name, OPERATORS)
    if y.ndim < 2 + volume:
        raise InvalidProblem(
            f"The measurements have shape {y.shape}; expected {2 + volume} dimensions or more."
        )
    known = options(cast(Maker, OPERATORS[name]))
    values = option_values(name, rest, known)
    drawn = [key for key in ("acceleration", "centre", "seed") if key in values and "mask" in known]
    if drawn and values.get("mask") not in MASKS:
        raise InvalidParameter(
            f"--operator {name}: {drawn[0]} is of a mask that is drawn; say its kind as well, mask=one of "
            f"{', '.join(MASKS)}, or leave {drawn[0]} out."
        )
    missing = [option.name for option in known.values() if option.required and option.name not in values]
    if missing:
        raise InvalidParameter(f"--operator {name} needs {missing[0]}: write {name}:{missing[0]}=VALUE.")
    if not volume:
        return OPERATORS[name](y, **values)
    return SliceStack(OPERATORS[name](y[0], **values), len(y))


def denoiser_named(model: str) -> Denoiser:
    """A shipped denoiser by name, one in a ``.safetensors`` file, or a folder of diffusers."""
    from thalweg.inverse import load_diffusers, load_unet, pretrained_unet

    if model.endswith(".safetensors"):
        return load_unet(model)
    return load_diffusers(model) if Path(model).is_dir() else pretrained_unet(model)


def dds(
    problem: Problem,
    model: str = "ellipses",
    steps: int = 50,
    eta: float = 0.85,
    cg: int = 5,
    gamma: float = 10.0,
    tv: float = 0.0,
    rho: float = 0.02,
) -> DDS:
    """The decomposed diffusion sampler with ``model``: a shipped denoiser, a .safetensors, a folder of diffusers."""
    from thalweg.inverse import DDS

    return DDS(denoiser_named(model), steps=steps, eta=eta, cg=cg, gamma=gamma, tv=tv, rho=rho)


def ddnm(problem: Problem, model: str = "ellipses", steps: int = 50, eta: float = 0.85) -> DDNM:
    """The null-space model with ``model``."""
    from thalweg.inverse import DDNM

    return DDNM(denoiser_named(model), steps=steps, eta=eta)


def ddrm(problem: Problem, model: str = "ellipses", steps: int = 50, eta: float = 0.85) -> DDRM:
    """The restoration model with ``model``."""
    from thalweg.inverse import DDRM

    return DDRM(denoiser_named(model), steps=steps, eta=eta)


def diffpir(problem: Problem, model: str = "ellipses", steps: int = 50, weight: float = 8.0) -> DiffPIR:
    """DiffPIR with ``model``."""
    from thalweg.inverse import DiffPIR

    return DiffPIR(denoiser_named(model), steps=steps, weight=weight)


def dps(problem: Problem, model: str = "ellipses", steps: int = 1000, step_size: float = 1.0) -> DPS:
    """Posterior sampling by gradients through ``model``."""
    from thalweg.inverse import DPS

    return DPS(denoiser_named(model), steps=steps, step_size=step_size)


def mcg(problem: Problem, model: str = "ellipses", steps: int = 1000, step_size: float = 1.0) -> MCG:
    """DPS with a projection, through ``model``."""
    from thalweg.inverse import MCG

    return MCG(denoiser_named(model), steps=steps, step_size=step_size)


MAKERS: dict[str, Maker] = {
    "dds": dds,
    "ddnm": ddnm,
    "ddrm": ddrm,
    "diffpir": diffpir,
    "dps": dps,
    "mcg": mcg,
}


@dataclass
class InverseCase(Case):
    """An image in the measurements' unit, as an array or a picture."""

    endings: ClassVar[tuple[str, ...]] = (".png", ".npy", ".npz", ".csv")

    def _range(self) -> tuple[float, float]:
        return cast(float, self.given.get("low", 0.0)), cast(float, self.given.get("high", 1.0))

    def arrays(self, result: Result) -> dict[str, np.ndarray]:
        low, high = self._range()
        return {"x": (high + low) / 2 + (high - low) / 2 * array_of(result.x)}

    def write(self, path: Path, result: Result) -> None:
        from thalweg.cli.pictures import png, side_by_side
        from thalweg.core.files import atomic_write

        x = self.arrays(result)["x"]
        if path.suffix.lower() == ".png":
            with atomic_write(path) as file:
                file.write(png(side_by_side(x), *self._range()))
        elif path.suffix.lower() == ".csv" and x.ndim > 2:
            raise InvalidProblem(f"{path}: a table holds one image; got shape {x.shape}. Write .npy or .png.")
        else:
            write_arrays(path, {"x": x})

    def told(self, result: Result) -> dict[str, object]:
        problem = cast("InverseProblem", self.problem)
        return {
            "operator": type(problem.operator).__name__,
            "shape": list(result.x.shape),
            "norm": problem.operator.norm(),
            "noise_residual": problem.level,
        }

    def figures(self, result: Result) -> Sequence[Figure]:
        from thalweg.cli.pictures import side_by_side
        from thalweg.core.figure import Surface

        x = self.arrays(result)["x"]
        planes = x.reshape(-1, *x.shape[-2:])[:DRAWN]
        picture = side_by_side(planes)
        rows, columns = (list(map(float, range(n))) for n in picture.shape)
        surface = Surface(columns, [-row for row in rows], picture.tolist())
        caption = "Rows downwards, in the measurements' unit." + (
            f" The first {len(planes)} of {x.size // planes[0].size}." if x.size > planes.size else ""
        )
        return [Figure("The image", caption, "column", "row", [], surface=surface)]

    def said(self, result: Result) -> Sequence[str]:
        problem = cast("InverseProblem", self.problem)
        lines = [f"{type(problem.operator).__name__}: noise alone leaves a residual of {problem.level:.3g}."]
        mask = getattr(problem.operator, "mask", None)
        if mask is not None:
            share = float((mask != 0).double().mean())
            lines.append(f"The mask measures {100 * share:.3g} % of the places; the others are filled in.")
        return lines
