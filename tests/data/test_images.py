"""Image files of every kind become the patches that the vision tower expects."""

from __future__ import annotations

import io
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from regrpo_jax.data.images import CHANNEL_MEAN, CHANNEL_STD, PatchedImage, cut_patches, fitted_size, load_image
from regrpo_jax.errors import UserError
from regrpo_jax.models.config import VisionConfig

VISION = VisionConfig(
    depth=1, embed_dim=16, num_heads=1, intermediate_size=64
)  # 14-pixel patches, two frames, 2 x 2 merged
MANY_PIXELS = 10**6
ROTATED = 6  # EXIF: stored lying on its left side


def drawing(width: int = 84, height: int = 56) -> Image.Image:
    """An image whose every pixel differs."""
    pixels = np.random.default_rng(7).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def restored(image: PatchedImage, config: VisionConfig) -> np.ndarray:
    """The pixels of patches put back at their positions.  # [frame, height, width, channel]"""
    size = config.patch_size
    rows, columns = image.positions.max(axis=0) + 1
    pixels = np.full((config.temporal_patch_size, rows * size, columns * size, config.in_channels), np.nan)
    for patch, (row, column) in zip(image.patches, image.positions, strict=True):
        frames = patch.reshape(config.in_channels, config.temporal_patch_size, size, size)
        place = (slice(row * size, (row + 1) * size), slice(column * size, (column + 1) * size))
        pixels[:, place[0], place[1]] = frames.transpose(1, 2, 3, 0)
    return pixels


class TestFiles:
    """Whatever the file is like, its pixels arrive upright, in RGB."""

    @pytest.mark.parametrize("mode", ("RGB", "RGBA", "P", "L", "LA", "1", "CMYK", "I;16", "F"))
    def test_modes(self, tmp_path: Path, mode: str) -> None:
        suffix = {"CMYK": "jpg", "F": "tiff"}.get(mode, "png")
        path = tmp_path / f"drawing.{suffix}"
        source = drawing().convert("L") if mode in ("I;16", "F") else drawing()
        (Image.fromarray(np.asarray(source, np.uint16)) if mode == "I;16" else source.convert(mode)).save(path)
        with Image.open(path) as saved:
            assert saved.mode == mode
        image = load_image(path, VISION, max_pixels=MANY_PIXELS)
        assert image.merged_grid == (2, 3) and image.num_tokens == 6
        assert image.patches.shape == (24, VISION.patch_dim) and image.patches.dtype == np.float32
        assert image.positions.shape == (24, 2) and image.positions.dtype == np.int32
        assert np.isfinite(image.patches).all()

    def test_pixels_are_exact_and_normalised(self, tmp_path: Path) -> None:
        drawing().save(tmp_path / "drawing.png")
        image = load_image(tmp_path / "drawing.png", VISION, max_pixels=MANY_PIXELS)
        pixels = restored(image, VISION) * CHANNEL_STD + CHANNEL_MEAN
        for frame in pixels:
            np.testing.assert_allclose(frame * 255, np.asarray(drawing()), atol=1e-3)

    def test_transparency_is_dropped_and_not_blended(self, tmp_path: Path) -> None:
        drawing().save(tmp_path / "opaque.png")
        seen_through = drawing()
        seen_through.putalpha(3)
        seen_through.save(tmp_path / "clear.png")
        opaque, clear = (
            load_image(tmp_path / name, VISION, max_pixels=MANY_PIXELS) for name in ("opaque.png", "clear.png")
        )
        np.testing.assert_array_equal(opaque.patches, clear.patches)

    def test_a_rotation_tag_is_honoured(self, tmp_path: Path) -> None:
        exif = Image.Exif()
        exif[0x0112] = ROTATED
        drawing().save(tmp_path / "lying.png", exif=exif)
        drawing().rotate(-90, expand=True).save(tmp_path / "upright.png")
        lying, upright = (
            load_image(tmp_path / name, VISION, max_pixels=MANY_PIXELS) for name in ("lying.png", "upright.png")
        )
        assert lying.merged_grid == (3, 2)
        np.testing.assert_array_equal(lying.patches, upright.patches)

    def test_other_sizes_are_resized_to_whole_merge_groups(self, tmp_path: Path) -> None:
        drawing(100, 50).save(tmp_path / "drawing.png")
        image = load_image(tmp_path / "drawing.png", VISION, max_pixels=MANY_PIXELS)
        assert image.merged_grid == (2, 4)
        resized = drawing(100, 50).resize((112, 56), Image.Resampling.BICUBIC)
        pixels = restored(image, VISION)[0] * CHANNEL_STD + CHANNEL_MEAN
        np.testing.assert_allclose(pixels * 255, np.asarray(resized), atol=1e-3)


class TestBadFiles:
    """The error is a UserError and names the file."""

    def test_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"gone\.png: no such image file"):
            load_image(tmp_path / "gone.png", VISION, max_pixels=MANY_PIXELS)

    @pytest.mark.parametrize(
        "content",
        (b"", b"no image at all", b"P6\n0 5\n255\n", b"P6\n0 0\n255\n", b"GIF89a" + bytes(20)),
        ids=("empty", "text", "no width", "no size", "empty gif"),
    )
    def test_a_file_that_is_no_image(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "broken.img"
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"broken\.img: not a readable image"):
            load_image(path, VISION, max_pixels=MANY_PIXELS)

    def test_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=f"{tmp_path}: not a readable image"):
            load_image(tmp_path, VISION, max_pixels=MANY_PIXELS)

    def test_a_header_that_promises_billions_of_pixels(self, tmp_path: Path) -> None:
        buffer = io.BytesIO()
        drawing().save(buffer, "BMP")
        content = bytearray(buffer.getvalue())
        content[18:26] = (300_000).to_bytes(4, "little") * 2  # width and height
        (tmp_path / "bomb.bmp").write_bytes(content)
        with pytest.raises(UserError, match=r"bomb\.bmp: not a readable image"):
            load_image(tmp_path / "bomb.bmp", VISION, max_pixels=MANY_PIXELS)

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
                image = load_image(path, VISION, max_pixels=MANY_PIXELS)
            except UserError as error:
                refused += 1
                assert str(path) in str(error)
            else:
                assert image.num_tokens >= 1
        assert refused

    @pytest.mark.parametrize("size", ((402, 2), (2, 402), (201, 1)))
    def test_an_elongated_image(self, tmp_path: Path, size: tuple[int, int]) -> None:
        Image.new("RGB", size).save(tmp_path / "ribbon.png")
        with pytest.raises(UserError, match=rf"ribbon\.png: {size[0]}x{size[1]} pixels is too elongated"):
            load_image(tmp_path / "ribbon.png", VISION, max_pixels=MANY_PIXELS)


class TestSizes:
    """Sides are multiples of a merge group, within the budget."""

    @given(height=st.integers(1, 4000), width=st.integers(1, 4000), tokens=st.integers(1, 600))
    def test_budget_units_and_aspect(self, height: int, width: int, tokens: int) -> None:
        assume(max(height, width) <= 200 * min(height, width))
        rows, columns = (
            side / 28 for side in fitted_size(height, width, VISION, max_pixels=tokens * 784, path="x.png")
        )
        assert rows == int(rows) >= 1 and columns == int(columns) >= 1
        assert rows * columns <= tokens
        # An image whose rounded size fits is not shrunk, even where its exact area is over the budget.
        shrunk = max(1.0, (height * width / (tokens * 784)) ** 0.5)
        if height / shrunk >= 28 and width / shrunk >= 28:
            near = [
                abs(rows - height / scale / 28) <= 1 and abs(columns - width / scale / 28) <= 1
                for scale in (1.0, shrunk)
            ]
            assert any(near)

    @pytest.mark.parametrize(
        ("size", "tokens", "expected"),
        (((56, 84), 6, (56, 84)), ((56, 84), 5, (28, 56)), ((10, 10), 4, (28, 28)), ((2800, 14), 4, (112, 28))),
    )
    def test_examples(self, size: tuple[int, int], tokens: int, expected: tuple[int, int]) -> None:
        assert fitted_size(*size, VISION, max_pixels=tokens * 784, path="x.png") == expected
        assert fitted_size(*reversed(size), VISION, max_pixels=tokens * 784, path="x.png") == expected[::-1]


class TestPatches:
    """Patches, their positions and their order."""

    @given(
        size=st.integers(1, 4),
        merge=st.integers(1, 3),
        frames=st.integers(1, 2),
        rows=st.integers(1, 3),
        columns=st.integers(1, 3),
    )
    def test_patches_put_back_give_the_pixels(
        self, size: int, merge: int, frames: int, rows: int, columns: int
    ) -> None:
        config = VisionConfig(1, 16, 1, 64, patch_size=size, temporal_patch_size=frames, spatial_merge_size=merge)
        shape = (rows * merge * size, columns * merge * size, 3)
        pixels = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
        image = cut_patches(pixels, config)
        assert image.merged_grid == (rows, columns)
        assert image.patches.shape == (rows * columns * merge**2, config.patch_dim)
        for frame in restored(image, config):
            np.testing.assert_array_equal(frame, pixels)

    @given(merge=st.integers(1, 3), rows=st.integers(1, 3), columns=st.integers(1, 3))
    def test_merge_groups_are_neighbours_in_reading_order(self, merge: int, rows: int, columns: int) -> None:
        config = VisionConfig(1, 16, 1, 64, patch_size=2, spatial_merge_size=merge)
        image = cut_patches(np.zeros((rows * merge * 2, columns * merge * 2, 3), np.float32), config)
        expected = [
            (row * merge + inner_row, column * merge + inner_column)
            for row in range(rows)
            for column in range(columns)
            for inner_row in range(merge)
            for inner_column in range(merge)
        ]
        assert [tuple(position) for position in image.positions.tolist()] == expected
