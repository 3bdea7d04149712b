"""Folders of pictures: every kind that cameras and programs write, and what is refused."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from PIL import Image

from thalweg.core import InvalidParameter, InvalidProblem, MissingExtra, UnreadableFile
from thalweg.datasets import image_files, load_images


@pytest.fixture
def quarters():
    """Four quarters of one colour each, so that turning shows: 80 x 40, rows before columns."""
    grid = np.zeros((40, 80, 3), np.uint8)
    grid[:20, :40], grid[:20, 40:] = (255, 0, 0), (0, 255, 0)
    grid[20:, :40], grid[20:, 40:] = (0, 0, 255), (255, 255, 255)
    return grid


def corners(pixels):
    """The colours of the four corners, clockwise from the top left."""
    return [tuple(int(v) for v in pixels[:, i, j]) for i, j in ((0, 0), (0, -1), (-1, -1), (-1, 0))]


RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


@pytest.mark.parametrize("ending", ["png", "bmp", "ppm", "tiff", "gif", "webp", "PNG"])
def test_kinds_of_files_give_the_same_pixels(tmp_path, quarters, ending):
    options = {"lossless": True} if ending == "webp" else {}
    Image.fromarray(quarters).save(tmp_path / f"a.{ending}", **options)
    found = load_images(tmp_path, size=8)
    assert found.X.shape == (1, 3, 8, 8)
    assert found.X.dtype == np.uint8
    assert corners(found.X[0]) == [RED, GREEN, WHITE, BLUE]
    assert found.labels == ("",)


@pytest.mark.parametrize(
    ("orientation", "clockwise"),
    [
        (1, [RED, GREEN, WHITE, BLUE]),
        (2, [GREEN, RED, BLUE, WHITE]),
        (3, [WHITE, BLUE, RED, GREEN]),
        (6, [BLUE, RED, GREEN, WHITE]),
        (8, [GREEN, WHITE, BLUE, RED]),
    ],
)
def test_a_camera_held_on_its_side_is_turned_back(tmp_path, quarters, orientation, clockwise):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(quarters).save(tmp_path / "a.png", exif=exif)
    assert corners(load_images(tmp_path, size=8).X[0]) == clockwise


def test_grey_is_the_weighted_sum_of_the_colours(tmp_path, quarters):
    Image.fromarray(quarters).save(tmp_path / "a.png")
    found = load_images(tmp_path, size=8, grey=True)
    assert found.X.shape == (1, 1, 8, 8)
    luma = [0.299 * 255, 0.587 * 255, 255, 0.114 * 255]  # ITU-R 601
    assert np.array(corners(found.X[0])).ravel() == pytest.approx(luma, abs=1)
    Image.fromarray(quarters[..., 0]).save(tmp_path / "a.png")  # one grey channel becomes three alike
    both = load_images(tmp_path, size=8).X[0]
    np.testing.assert_array_equal(both[0], both[2])


def test_areas_are_averaged_where_a_picture_is_made_smaller(tmp_path):
    board = (255 * (np.indices((64, 64)).sum(0) % 2)).astype(np.uint8)
    Image.fromarray(board).save(tmp_path / "a.png")
    assert np.abs(load_images(tmp_path, size=8).X.astype(int) - 127).max() <= 4


def test_sixteen_bits_are_rounded_and_not_cut(tmp_path):
    ramp = np.tile(np.linspace(0, 65535, 16).astype(np.uint16), (16, 1))
    Image.fromarray(ramp).save(tmp_path / "a.png")
    found = load_images(tmp_path, size=16, grey=True).X[0, 0, 0]
    np.testing.assert_allclose(found, np.linspace(0, 255, 16), atol=1)


def test_what_is_transparent_is_put_on_white(tmp_path):
    rgba = np.zeros((8, 8, 4), np.uint8)
    rgba[:, :4] = (200, 0, 0, 255)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    found = corners(load_images(tmp_path, size=8).X[0])
    assert found[0] == (200, 0, 0)
    assert found[1] == WHITE


def test_labels_are_the_folders_and_the_order_is_that_of_the_names(tmp_path, quarters):
    for name in ("dog/b.png", "cat/deep/a.png", "cat/z.png", "loose.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(quarters).save(tmp_path / name)
    for name in (".DS_Store", "cat/Thumbs.db", ".git/config"):  # left by other programs
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    found = load_images(tmp_path, size=8)
    assert found.files == ("cat/deep/a.png", "cat/z.png", "dog/b.png", "loose.png")
    assert found.labels == ("cat", "cat", "dog", "")
    assert list(found.files) == image_files(tmp_path)


def test_of_a_phones_picture_with_a_preview_the_first_one_is_taken(tmp_path, quarters):
    preview = Image.fromarray(np.zeros_like(quarters))
    Image.fromarray(quarters).save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[preview])
    assert load_images(tmp_path, size=8).X.max() == 255


def test_damaged_pictures_are_named_and_refused(tmp_path, quarters):
    Image.fromarray(quarters).save(tmp_path / "good.png")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:2000])
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "empty.bmp").write_bytes(b"")
    frames = [Image.fromarray(quarters), Image.fromarray(quarters[::-1])]
    frames[0].save(tmp_path / "film.gif", save_all=True, append_images=frames[1:])
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "depth.tiff")
    with pytest.raises(UnreadableFile) as caught:
        load_images(tmp_path)
    for name in (
        "cut.png",
        "text.jpg",
        "empty.bmp",
        "film.gif (2 frames",
        "depth.tiff (pixels are fractions",
    ):
        assert name in str(caught.value)
    assert "good.png" not in str(caught.value)


def test_folders_that_are_none_or_hold_other_files_are_refused(tmp_path, quarters):
    with pytest.raises(UnreadableFile, match="is no folder"):
        load_images(tmp_path / "none")
    with pytest.raises(InvalidProblem, match="holds no pictures"):
        load_images(tmp_path)
    Image.fromarray(quarters).save(tmp_path / "a.png")
    for i in range(7):
        (tmp_path / f"notes{i}.txt").write_text("x")
    with pytest.raises(InvalidProblem, match=r"notes0.txt.* and 2 more, of no ending that is read"):
        load_images(tmp_path)


def test_a_size_out_of_range_and_a_missing_library_are_told(tmp_path, quarters, monkeypatch):
    Image.fromarray(quarters).save(tmp_path / "a.png")
    with pytest.raises(InvalidParameter, match="4 <= size <= 1024"):
        load_images(tmp_path, size=2)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(MissingExtra, match=r'Pillow is not installed. pip install "thalweg\[images\]"'):
        load_images(tmp_path)
