"""Image files of every kind become the patches that the vision tower expects, or an error that names them."""

from __future__ import annotations

import dataclasses
import io
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from regrpo_jax.data.image_settings import ImageSettings
from regrpo_jax.data.images import (
    FilePatches,
    ImageError,
    PatchedImage,
    cached_image,
    load_image,
    open_image,
    pack_images,
    patch_positions,
    window_ids,
)
from regrpo_jax.models.config import VisionConfig

SETTINGS = ImageSettings()
ORIENTATION = 0x0112  # EXIF
# EXIF orientation -> how a viewer turns what is stored.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
INVERSE = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}  # the other turns undo themselves


def drawing(width: int = 84, height: int = 56) -> Image.Image:
    """An image whose every pixel differs."""
    pixels = np.random.default_rng(7).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def restored(image: PatchedImage, settings: ImageSettings = SETTINGS) -> np.ndarray:
    """The bytes of patches put back at their positions.  # [frame, height, width, channel]"""
    size, frames = settings.patch_size, settings.temporal_patch_size
    rows, columns = image.positions.max(axis=0) + 1
    pixels = np.full((frames, rows * size, columns * size, 3), np.nan)
    for patch, (row, column) in zip(image.patches, image.positions, strict=True):
        place = (slice(row * size, (row + 1) * size), slice(column * size, (column + 1) * size))
        pixels[:, place[0], place[1]] = patch.reshape(3, frames, size, size).transpose(1, 2, 3, 0)
    return 255 * (pixels * settings.image_std + settings.image_mean)


class TestModes:
    """Whatever the file is like, its pixels arrive upright, in RGB, with all of their greys."""

    @pytest.mark.parametrize("mode", ("RGB", "RGBA", "P", "L", "LA", "1", "CMYK", "I;16"))
    def test_shapes_and_types(self, tmp_path: Path, mode: str) -> None:
        path = tmp_path / f"drawing.{'jpg' if mode == 'CMYK' else 'png'}"
        wide = Image.fromarray(np.asarray(drawing().convert("L"), np.uint16))
        (wide if mode == "I;16" else drawing().convert(mode)).save(path)
        with Image.open(path) as saved:
            assert saved.mode == mode
        image = load_image(path, SETTINGS)
        assert image.merged_grid == (2, 3) and image.num_tokens == 6
        assert image.patches.shape == (24, 3 * 2 * 14 * 14) and image.patches.dtype == np.float32
        assert image.positions.shape == (24, 2) and image.positions.dtype == np.int32
        assert np.isfinite(image.patches).all()

    def test_pixels_are_exact_and_normalised(self, tmp_path: Path) -> None:
        drawing().save(tmp_path / "drawing.png")
        for frame in restored(load_image(tmp_path / "drawing.png", SETTINGS)):
            np.testing.assert_allclose(frame, np.asarray(drawing()), atol=1e-3)

    def test_one_frame_of_smaller_patches(self, tmp_path: Path) -> None:
        settings = dataclasses.replace(SETTINGS, patch_size=4, temporal_patch_size=1, merge_size=3, min_pixels=1)
        drawing(24, 36).save(tmp_path / "drawing.png")
        image = load_image(tmp_path / "drawing.png", settings)
        assert image.merged_grid == (3, 2) and image.patches.shape == (54, 48)
        np.testing.assert_allclose(restored(image, settings)[0], np.asarray(drawing(24, 36)), atol=1e-3)

    @pytest.mark.parametrize("mode", ("RGBA", "LA"))
    def test_transparency_is_on_white(self, tmp_path: Path, mode: str) -> None:
        black = Image.new("L", (3, 1), 0).convert(mode)
        for column, alpha in enumerate((0, 51, 255)):
            black.putpixel((column, 0), (*[0] * (len(mode) - 1), alpha))
        black.save(tmp_path / "clear.png")
        seen = np.asarray(open_image(tmp_path / "clear.png"))
        np.testing.assert_array_equal(seen, [[[255] * 3, [204] * 3, [0] * 3]])

    @pytest.mark.parametrize("kind", ("PNG", "GIF"))
    @pytest.mark.parametrize("transparent", (False, True))
    def test_palettes(self, tmp_path: Path, kind: str, transparent: bool) -> None:
        indices = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), "P")
        indices.putpalette([250, 0, 0, 0, 250, 0, 0, 0, 250])
        indices.save(tmp_path / "palette", kind, **({"transparency": 1} if transparent else {}))
        green = [255, 255, 255] if transparent else [0, 250, 0]
        seen = np.asarray(open_image(tmp_path / "palette"))
        np.testing.assert_array_equal(seen, [[[250, 0, 0], green], [[0, 0, 250], green]])

    def test_a_transparent_grey(self, tmp_path: Path) -> None:
        Image.fromarray(np.array([[10, 20]], np.uint8)).save(tmp_path / "grey.png", transparency=20)
        np.testing.assert_array_equal(np.asarray(open_image(tmp_path / "grey.png")), [[[10] * 3, [255] * 3]])

    def test_one_bit(self, tmp_path: Path) -> None:
        Image.fromarray(np.array([[True, False]])).save(tmp_path / "fax.png")
        np.testing.assert_array_equal(np.asarray(open_image(tmp_path / "fax.png")), [[[255] * 3, [0] * 3]])

    @pytest.mark.parametrize("kind", ("PNG", "TIFF", "PPM", "JPEG2000"))
    def test_sixteen_bits_are_scaled_and_do_not_clip(self, tmp_path: Path, kind: str) -> None:
        greys = np.arange(256, dtype=np.uint16).reshape(16, 16)
        options = {"irreversible": False} if kind == "JPEG2000" else {}
        Image.fromarray(greys * 257).save(tmp_path / "deep", kind, **options)
        seen = np.asarray(open_image(tmp_path / "deep"))
        np.testing.assert_array_equal(seen, np.repeat(greys[..., None], 3, axis=-1))

    @pytest.mark.parametrize("mode", ("F", "I"))
    def test_numbers_without_a_white_are_refused(self, tmp_path: Path, mode: str) -> None:
        drawing().convert("L").convert(mode).save(tmp_path / "depth.tiff")
        with pytest.raises(ImageError, match=rf"depth\.tiff: .* {mode} numbers without a known white; save them as 8"):
            load_image(tmp_path / "depth.tiff", SETTINGS)

    def test_inks(self, tmp_path: Path) -> None:
        Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "print.jpg", quality=100)
        red = np.asarray(open_image(tmp_path / "print.jpg")).reshape(-1, 3).mean(axis=0)
        np.testing.assert_allclose(red, [255, 0, 0], atol=3)

    @pytest.mark.parametrize("kind", ("PNG", "TIFF"))
    @pytest.mark.parametrize("orientation", (1, *TURNS))
    def test_a_rotation_tag_is_honoured(self, tmp_path: Path, orientation: int, kind: str) -> None:
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        turn = INVERSE.get(orientation, TURNS.get(orientation))
        stored = drawing() if turn is None else drawing().transpose(turn)
        stored.save(tmp_path / "stored", kind, exif=exif)
        drawing().save(tmp_path / "upright.png")
        first, second = load_image(tmp_path / "stored", SETTINGS), load_image(tmp_path / "upright.png", SETTINGS)
        assert first.merged_grid == second.merged_grid == (2, 3)
        np.testing.assert_array_equal(first.patches, second.patches)

    def test_a_film_shows_its_first_frame(self, tmp_path: Path) -> None:
        frames = [Image.new("RGB", (56, 56), colour) for colour in ("red", "lime", "blue")]
        frames[0].save(tmp_path / "film.gif", save_all=True, append_images=frames[1:])
        with Image.open(tmp_path / "film.gif") as film:
            assert film.n_frames == 3
        assert (np.asarray(open_image(tmp_path / "film.gif")) == [255, 0, 0]).all()


class TestSizes:
    """Resized by the processor; `tests/parity/test_image_processor.py` compares many sizes with it."""

    def test_other_sizes_are_resized_to_whole_merge_groups(self, tmp_path: Path) -> None:
        drawing(100, 50).save(tmp_path / "drawing.png")
        image = load_image(tmp_path / "drawing.png", SETTINGS)
        assert image.merged_grid == (2, 4)
        resized = drawing(100, 50).resize((112, 56), Image.Resampling.BICUBIC)
        np.testing.assert_allclose(restored(image)[0], np.asarray(resized), atol=1e-3)

    def test_a_picture_of_the_generated_corpus_keeps_its_size(self, tmp_path: Path) -> None:
        drawing(56, 56).save(tmp_path / "card.png")
        assert load_image(tmp_path / "card.png", SETTINGS.within(4 * 784, 512 * 784)).merged_grid == (2, 2)

    def test_a_panorama_is_shrunk(self, tmp_path: Path) -> None:
        Image.new("L", (20_000, 2_000)).save(tmp_path / "panorama.png")
        image = load_image(tmp_path / "panorama.png", SETTINGS.within(784, 512 * 784))
        assert image.merged_grid == (7, 71) and image.num_tokens <= 512

    @pytest.mark.parametrize("size", ((20_000, 90), (402, 2), (2, 402), (201, 1)))
    def test_an_elongated_image(self, tmp_path: Path, size: tuple[int, int]) -> None:
        Image.new("RGB", size).save(tmp_path / "ribbon.png")
        with pytest.raises(ImageError, match=rf"ribbon\.png: {size[0]}x{size[1]} pixels is too elongated; crop"):
            load_image(tmp_path / "ribbon.png", SETTINGS)


class TestBadFiles:
    """The error is an ImageError and names the file."""

    def test_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(ImageError, match=r"gone\.png: no such image file"):
            load_image(tmp_path / "gone.png", SETTINGS)

    @pytest.mark.parametrize(
        "content",
        (b"", b"no image at all", b"P6\n0 5\n255\n", b"P6\n0 0\n255\n", b"GIF89a" + bytes(20)),
        ids=("empty", "text", "no width", "no size", "empty gif"),
    )
    def test_a_file_that_is_no_image(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "broken.png"
        path.write_bytes(content)
        with pytest.raises(ImageError, match=r"broken\.png: not a readable image"):
            load_image(path, SETTINGS)

    def test_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(ImageError, match=f"{tmp_path}: not a readable image"):
            load_image(tmp_path, SETTINGS)

    def test_a_header_that_promises_billions_of_pixels(self, tmp_path: Path) -> None:
        buffer = io.BytesIO()
        drawing().save(buffer, "BMP")
        content = bytearray(buffer.getvalue())
        content[18:26] = (300_000).to_bytes(4, "little") * 2  # width and height
        (tmp_path / "bomb.bmp").write_bytes(content)
        with pytest.raises(ImageError, match=r"bomb\.bmp: not a readable image"):
            load_image(tmp_path / "bomb.bmp", SETTINGS)

    @pytest.mark.parametrize("kind", ("PNG", "JPEG"))
    @given(share=st.floats(0, 0.95))
    def test_a_truncated_file_is_refused(
        self, tmp_path_factory: pytest.TempPathFactory, kind: str, share: float
    ) -> None:
        buffer = io.BytesIO()
        drawing().save(buffer, kind)
        whole, path = buffer.getvalue(), tmp_path_factory.getbasetemp() / f"cut.{kind}"
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(ImageError, match=rf"cut\.{kind}: not a readable image"):
            load_image(path, SETTINGS)

    @pytest.mark.filterwarnings("ignore")
    @pytest.mark.parametrize("kind", ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"))
    def test_damage_is_an_error_or_an_image(self, tmp_path: Path, kind: str) -> None:
        buffer = io.BytesIO()
        drawing().save(buffer, kind)
        whole, path, chance = buffer.getvalue(), tmp_path / "damaged.img", random.Random(3)
        refused = 0
        for trial in range(60):
            content = bytearray(whole[: chance.randrange(len(whole))] if trial % 2 else whole)
            for _ in range(4):
                if content:
                    content[chance.randrange(min(len(content), 200))] = chance.randrange(256)
            path.write_bytes(content)
            try:
                image = load_image(path, SETTINGS.within(784, 64 * 784))
            except ImageError as error:
                refused += 1
                assert str(path) in str(error)
            else:
                assert image.num_tokens >= 1
        assert refused


class TestPositions:
    """Where patches stand."""

    @given(merge=st.integers(1, 3), rows=st.integers(1, 3), columns=st.integers(1, 3))
    def test_merge_groups_are_neighbours_in_reading_order(self, merge: int, rows: int, columns: int) -> None:
        expected = [
            (row * merge + inner_row, column * merge + inner_column)
            for row in range(rows)
            for column in range(columns)
            for inner_row in range(merge)
            for inner_column in range(merge)
        ]
        positions = patch_positions(rows * merge, columns * merge, merge)
        assert positions.dtype == np.int32
        assert [tuple(position) for position in positions.tolist()] == expected


class TestWindows:
    """Squares from an image's upper left corner, smaller ones where the image ends."""

    @given(
        grids=st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), max_size=3),
        merged_side=st.integers(1, 4),
    )
    def test_windows_are_those_of_a_naive_loop(self, grids: list[tuple[int, int]], merged_side: int) -> None:
        side = 2 * merged_side
        vision = VisionConfig(1, 16, 1, 64, patch_size=2, gated=True, window_size=2 * side)
        assert vision.window_patches == side
        images = []
        for rows, columns in grids:
            positions = patch_positions(2 * rows, 2 * columns, 2)
            patches = np.zeros((len(positions), vision.patch_dim), np.float32)
            images.append(PatchedImage(patches, positions, (rows, columns)))
        packed = pack_images(images, vision)
        naive, number = np.zeros(len(packed.patches), np.int32), 0
        for image, (rows, columns) in enumerate(grids, start=1):
            for top in range(0, 2 * rows, side):
                for left in range(0, 2 * columns, side):
                    number += 1
                    for patch, (row, column) in enumerate(packed.positions):
                        inside = top <= row < top + side and left <= column < left + side
                        if packed.segment_ids[patch] == image and inside:
                            naive[patch] = number
        np.testing.assert_array_equal(packed.window_ids, naive)
        assert packed.window_ids.dtype == np.int32

    @given(grids=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=3))
    def test_without_windows_an_image_is_one(self, grids: list[tuple[int, int]]) -> None:
        positions = np.concatenate([patch_positions(2 * rows, 2 * columns, 2) for rows, columns in grids])
        ids = np.repeat(np.arange(len(grids)) + 1, [4 * rows * columns for rows, columns in grids])
        np.testing.assert_array_equal(window_ids(positions, ids, 0), ids)


def test_patches_of_files_are_made_when_they_are_looked_at(tmp_path: Path) -> None:
    settings = ImageSettings(min_pixels=4 * 28 * 28, max_pixels=16 * 28 * 28, temporal_patch_size=1)
    paths = [str(tmp_path / name) for name in ("one.png", "two.png")]
    for path, size in zip(paths, ((60, 90), (120, 60)), strict=True):
        Image.effect_noise(size, 80).save(path)
    whole = np.concatenate([load_image(path, settings).patches for path in paths])
    made = FilePatches(tuple(paths), settings, (len(whole), whole.shape[1]))
    assert len(made) == len(whole) and made.shape == whole.shape
    np.testing.assert_array_equal(np.asarray(made), whole)
    assert not [value for value in vars(made).values() if isinstance(value, np.ndarray)]  # nothing is kept
    Image.effect_noise((300, 300), 80).save(paths[1])
    cached_image.cache_clear()
    with pytest.raises(ImageError, match=r"two\.png: an image changed its size"):
        np.asarray(made)
