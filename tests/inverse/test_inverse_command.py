"""The command: measurements in, an image, a picture and a page out; and what does not go together."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from thalweg.cli import app
from thalweg.cli.pictures import png, side_by_side
from thalweg.inverse import Blur, Inpainting, MaskedFFT, Radon, Sense, SuperResolution, gaussian_kernel
from thalweg.inverse.masks import gaussian1d, uniform2d
from thalweg.inverse.phantoms import birdcage, ellipses


@pytest.fixture
def image():
    return (ellipses(1, 16, 4)[0].numpy() + 1) / 2


@pytest.fixture
def folder(tmp_path, image):
    np.save(tmp_path / "image.npy", image)
    np.save(tmp_path / "sinogram.npy", Radon(16, 8).A(image))
    np.save(tmp_path / "volume.npy", np.stack([Radon(16, 8).A(image)] * 3))
    np.save(tmp_path / "words.npy", np.array(["a"]))
    np.save(tmp_path / "nan.npy", np.full((8, 16), np.nan))
    return tmp_path


def run(folder, *arguments, verb="solve"):
    return CliRunner().invoke(app, [verb, "inverse", *(str(a).replace("@", f"{folder}/") for a in arguments)])


RADON = ("@sinogram.npy", "--operator", "radon:views=8")


def test_a_sinogram_becomes_a_picture_and_a_page(folder, image):
    found = run(
        folder, *RADON, "--out", "@image.png", "--report", "@page.html", "--truth", "@image.npy", "--json"
    )
    assert found.exit_code == 0, found.output
    told = json.loads(found.stdout)
    assert told["operator"] == "Radon"
    assert told["shape"] == [16, 16]
    assert told["metrics"]["psnr"] > 20
    assert "The image" in (folder / "page.html").read_text()
    PIL = pytest.importorskip("PIL.Image")
    grey = np.asarray(PIL.open(folder / "image.png"), dtype=float) / 255
    assert np.sqrt(((grey - image) ** 2).mean()) < 0.08


@pytest.mark.parametrize(
    "method",
    [
        "dds:steps=3",
        "ddnm:steps=3",
        "ddrm:steps=3",
        "diffpir:steps=3",
        "dps:steps=3",
        "mcg:steps=3",
        "tv",
        "pinv",
        "fbp",
        "cg",
    ],
)
def test_every_method_answers_in_the_unit_of_the_data(folder, method):
    found = run(folder, *RADON, "--method", method, "--out", "@x.npy", "--steps", "3")
    assert found.exit_code in (0, 1), found.output
    x = np.load(folder / "x.npy")
    assert x.shape == (16, 16)
    assert np.isfinite(x).all()


def test_units_are_those_of_low_and_high(folder, image):
    np.save(folder / "scaled.npy", Radon(16, 8).A(1000 + 500 * image))
    here, there = folder / "a.npy", folder / "b.npy"
    assert run(folder, *RADON, "--method", "pinv", "--out", here).exit_code == 0
    scaled = ("@scaled.npy", "--operator", "radon:views=8", "--low", "1000", "--high", "1500")
    assert run(folder, *scaled, "--method", "pinv", "--out", there).exit_code == 0
    np.testing.assert_allclose(1000 + 500 * np.load(here), np.load(there), atol=1e-6)


@pytest.mark.parametrize(
    ("text", "make"),
    [
        ("fft:mask=gaussian1d,acceleration=2", lambda: MaskedFFT(gaussian1d((16, 16), 2.0), real=True)),
        ("fft", lambda: MaskedFFT(gaussian1d((16, 16), 2.0, seed=7), real=True)),
        ("sense:maps=@maps.npy", lambda: Sense(birdcage(3, 16), uniform2d((16, 16), 2.0), real=True)),
        ("inpainting", lambda: Inpainting(uniform2d((16, 16), 2.0, seed=3))),
        ("fft:mask=@mask.npy,real=false", lambda: MaskedFFT(uniform2d((16, 16), 2.0))),
        (
            "sense:maps=@maps.npy,mask=@mask.npy",
            lambda: Sense(birdcage(3, 16), uniform2d((16, 16), 2.0), real=True),
        ),
        ("blur:deviation=0.7", lambda: Blur((16, 16), gaussian_kernel(0.7))),
        ("super:factor=2", lambda: SuperResolution((16, 16), 2)),
        ("inpainting:mask=@mask.npy", lambda: Inpainting(uniform2d((16, 16), 2.0))),
        ("radon:views=6,span=120", lambda: Radon(16, 6, span=120.0)),
    ],
)
def test_every_operator_is_read_from_text(folder, image, text, make):
    np.save(folder / "mask.npy", uniform2d((16, 16), 2.0))
    np.save(folder / "maps.npy", birdcage(3, 16).numpy())
    A = make()
    np.save(folder / "y.npy", A.A(image.astype(complex) if A.complex_image else image))
    found = run(folder, "@y.npy", "--operator", text, "--method", "cg:tol=0.01", "--json")
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["metrics"]["residual"] < 0.03


def test_coil_maps_are_estimated_where_none_are_given(folder, image):
    A = Sense(birdcage(3, 16), gaussian1d((16, 16), 2.0, 0.25))
    np.save(folder / "y.npy", A.A(image + 0.1 + 0j))
    text = "sense:mask=gaussian1d,acceleration=2,centre=0.25,real=false"
    assert run(
        folder, "@y.npy", "--operator", text, "--method", "cg", "--steps", "20", "--out", "@x.png"
    ).exit_code in (0, 1)
    assert (folder / "x.png").exists()


def test_estimated_maps_leave_a_real_image(folder):
    x = (ellipses(1, 64, 4)[0].numpy() + 1) / 2
    coils = birdcage(4, 64).numpy() * np.exp(0.7j)  # the scanner's phase is nobody's
    np.save(folder / "k.npy", Sense(coils, gaussian1d((64, 64), 4.0, 0.16)).A(x + 0j))
    np.save(folder / "x.npy", x)
    found = run(folder, "@k.npy", "--operator", "sense", "--truth", "@x.npy", "--json")
    assert json.loads(found.stdout)["metrics"]["psnr"] > 35


def test_what_the_mask_measures_is_told(folder, image):
    """Black pixels may be taken for holes: the share lets a user see it."""
    known = np.random.default_rng(0).random(image.shape) < 0.5
    np.save(folder / "holes.npy", np.where(known, image + 1.0, 0.0))
    found = run(folder, "@holes.npy", "--operator", "inpainting", "--steps", "5", "--out", "@filled.npy")
    assert f"The mask measures {100 * known.mean():.3g} % of the places" in found.stdout


def test_a_mask_that_is_not_the_datas_is_told(folder, image):
    np.save(folder / "k.npy", MaskedFFT(gaussian1d((16, 16), 4.0)).A(image + 0j))
    np.save(folder / "other.npy", gaussian1d((16, 16), 2.0))  # measures more than there is
    for operator in ("fft:mask=@other.npy", "sense:mask=@other.npy,maps=@maps.npy"):
        np.save(folder / "maps.npy", birdcage(1, 16).numpy())
        np.save(folder / "k.npy", MaskedFFT(gaussian1d((16, 16), 4.0)).A(image + 0j)[None])
        assert "Leave mask out" in str(run(folder, "@k.npy", "--operator", operator).exception)
    np.save(folder / "far.npy", MaskedFFT(1 - gaussian1d((16, 16), 4.0)).A(image + 0j)[None])
    assert "the middle of the data is not measured" in str(
        run(folder, "@far.npy", "--operator", "sense").exception
    )


def test_a_grey_picture_is_read_and_a_coloured_one_refused(folder, image):
    Image = pytest.importorskip("PIL.Image")
    y = Blur((16, 16), gaussian_kernel(0.7)).A(image)
    Image.fromarray(np.round(255 * y).astype(np.uint8)).save(folder / "y.png")
    Image.fromarray(np.round(65535 * y).astype(np.uint16)).save(folder / "fine.png")
    for name, gap in (("y", 0.05), ("fine", 0.05)):
        words = (f"@{name}.png", "--operator", "blur:deviation=0.7", "--truth", "@image.npy", "--json")
        assert json.loads(run(folder, *words).stdout)["metrics"]["rmse"] < 2 * gap
    Image.fromarray(np.stack([np.round(255 * y).astype(np.uint8)] * 3, -1) * np.uint8([1, 1, 0])).save(
        folder / "colour.png"
    )
    (folder / "broken.png").write_bytes(b"no picture")
    for name, words in (("colour", "in colour"), ("broken", "Cannot read"), ("none", "No file")):
        assert words in str(run(folder, f"@{name}.png", "--operator", "blur").exception)


def test_an_image_of_another_kind_than_the_denoisers_is_told(folder):
    np.save(folder / "loud.npy", 1000.0 * np.load(folder / "sinogram.npy"))
    found = run(folder, "@loud.npy", "--operator", "radon:views=8", "--method", "dds:steps=3")
    assert "unlike those that the denoiser has learned" in " ".join(found.output.split())


def test_a_volume_is_solved_slice_by_slice_with_variation_along_z(folder):
    found = run(
        folder,
        "@volume.npy",
        "--operator",
        "radon:views=8",
        "--volume",
        "--method",
        "dds:steps=3,tv=0.001",
        "--json",
    )
    assert json.loads(found.stdout)["operator"] == "SliceStack", found.output


def test_methods_are_compared(folder):
    found = run(folder, *RADON, "--truth", "@image.npy", "--method", "tv", "--method", "fbp", verb="compare")
    assert found.exit_code == 0
    assert "rmse" in found.output


def test_what_does_not_go_together_is_said_in_a_line(folder):
    cases = [
        ((*RADON[:1], "--operator", "radn:views=8"), "Did you mean 'radon'"),
        ((*RADON[:1], "--operator", "radon"), "radon:views=VALUE"),
        ((*RADON[:1], "--operator", "radon:views=9"), "the operator measures (9, 16)"),
        ((*RADON[:1], "--operator", "radon:views=x"), "views needs a whole number"),
        ((*RADON[:1], "--operator", "radon:angles=8"), "No option of radon 'angles'"),
        ((*RADON[:1], "--operator", "fft:mask=gauss"), "Did you mean 'gaussian"),
        (("@words.npy", "--operator", "blur"), "expected real numbers"),
        (("@nan.npy", "--operator", "blur"), "NaN"),
        ((*RADON, "--low", "1", "--high", "0"), "low < high"),
        ((*RADON, "--volume"), "expected 3 dimensions"),
        ((*RADON, "--method", "dds:model=none"), "No denoiser 'none'"),
        ((*RADON, "--method", "dds:gamma=0"), "gamma > 0"),
        ((*RADON, "--out", "@x.txt"), ".png"),
        ((*RADON, "--truth", "@volume.npy"), "truth has shape"),
    ]
    for arguments, words in cases:
        found = run(folder, *arguments)
        assert found.exit_code == 2 or found.exception, found.output
        assert words in " ".join((found.output + str(found.exception)).split()), (
            arguments,
            found.output,
            found.exception,
        )


def test_pictures_are_what_another_reader_sees(rng):
    PIL = pytest.importorskip("PIL.Image")
    values = rng.uniform(-0.5, 1.5, (5, 7))
    grey = np.asarray(PIL.open(io.BytesIO(png(values, 0.0, 1.0))))
    np.testing.assert_array_equal(grey, np.round(255 * np.clip(values, 0, 1)).astype(np.uint8))
    np.testing.assert_array_equal(side_by_side(np.stack([values, 1j * values]))[:, 7:], np.abs(values))
