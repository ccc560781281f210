"""Every encoding, letterboxing and normalisation, against the plain way to do it."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airside_perception.camera.preprocess import (
    ENCODINGS,
    Letterbox,
    Preprocessor,
    image_size,
    to_bgr,
)
from airside_perception.card import CameraCard
from airside_perception.errors import MessageError
from airside_perception.messages.incoming import CHANNELS, PLANAR
from airside_perception.types import Image

Cards = Callable[..., CameraCard]


def picture(height: int = 90, width: int = 160, seed: int = 0) -> np.ndarray:
    """A BGR picture of blocks of 2 x 2 equal pixels: half-size colour planes lose nothing."""
    blocks = np.random.default_rng(seed).integers(0, 255, (height // 2, width // 2, 3), np.uint8)
    return blocks.repeat(2, axis=0).repeat(2, axis=1)


def planes_of(bgr: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Y, U, V of BT.601, video range, from its definition."""
    b, g, r = (bgr[..., i].astype(np.float64) / 255 for i in range(3))
    y = 16 + 65.481 * r + 128.553 * g + 24.966 * b
    u = 128 - 37.797 * r - 74.203 * g + 112.0 * b
    v = 128 + 112.0 * r - 93.786 * g - 18.214 * b
    return tuple(np.rint(plane).astype(np.uint8) for plane in (y, u, v))


def alternating(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Columns in turns from two planes."""
    return np.where(np.arange(first.shape[1]) % 2 == 0, first, second)


def encode(bgr: np.ndarray, encoding: str) -> np.ndarray:
    """A picture in a ROS encoding, each written from its definition."""
    if encoding in ('bgr8', 'rgb8'):
        return bgr if encoding == 'bgr8' else np.ascontiguousarray(bgr[..., ::-1])
    if encoding in ('bgra8', 'rgba8'):
        alpha = np.full((*bgr.shape[:2], 1), 77, np.uint8)
        return np.concatenate([encode(bgr, encoding.replace('a', '')), alpha], axis=2)
    y, u, v = planes_of(bgr)
    if encoding == 'mono8':
        return y
    if encoding in ('nv12', 'nv21'):
        first, second = (u, v) if encoding == 'nv12' else (v, u)
        return np.concatenate([y, alternating(first[::2], second[::2])])
    colour = alternating(u, v)
    return np.stack((y, colour) if 'yuy' in encoding else (colour, y), axis=2)


def plain_letterbox(bgr: np.ndarray, card: CameraCard) -> np.ndarray:
    """The ordinary way: resize, paste on a canvas, convert, normalise, transpose."""
    ratio = min(card.height / bgr.shape[0], card.width / bgr.shape[1])
    height, width = int(bgr.shape[0] * ratio), int(bgr.shape[1] * ratio)
    small = cv2.resize(bgr, (width, height), interpolation=cv2.INTER_LINEAR)
    canvas = np.full((card.height, card.width, 3), card.pad, np.uint8)
    top = (card.height - height) // 2 if card.centered else 0
    left = (card.width - width) // 2 if card.centered else 0
    canvas[top : top + height, left : left + width] = small
    if card.color == 'rgb':
        canvas = canvas[..., ::-1]
    values = (canvas.astype(np.float64) - card.mean) / card.std
    return values.transpose(2, 0, 1)[None]


def test_what_messages_read_is_what_networks_take() -> None:
    assert {name: encoding.channels for name, encoding in ENCODINGS.items()} == CHANNELS
    assert {name for name, encoding in ENCODINGS.items() if encoding.planar} == set(PLANAR)


@pytest.mark.parametrize('encoding', [name for name in ENCODINGS if name != 'mono8'])
def test_every_encoding_gives_the_picture(make_card: Cards, encoding: str) -> None:
    bgr, card = picture(), make_card()
    image = Image(0, 'camera', encode(bgr, encoding), encoding)
    tensor, _ = Preprocessor(card)(image)
    assert (tensor.dtype, tensor.shape) == (np.float32, (1, 3, 64, 96))
    error = np.abs(tensor - plain_letterbox(bgr, card))
    rounding = 0 if ENCODINGS[encoding].convert < 0 else 4  # of Y, U and V to whole numbers
    assert error.max() <= rounding
    assert image_size(image) == (90, 160)
    assert np.abs(to_bgr(image).astype(int) - bgr).max() <= rounding


def test_a_grey_image_fills_all_channels(make_card: Cards) -> None:
    grey, card = picture()[..., 0].copy(), make_card(color='rgb')
    image = Image(0, 'camera', grey, 'mono8')
    tensor, _ = Preprocessor(card)(image)
    expected = plain_letterbox(np.repeat(grey[..., None], 3, 2), card)
    np.testing.assert_array_equal(tensor, expected)
    np.testing.assert_array_equal(to_bgr(image)[..., 2], grey)


@pytest.mark.parametrize('color', ['bgr', 'rgb'])
@pytest.mark.parametrize('centered', [False, True])
@pytest.mark.parametrize('shape', [(90, 160), (160, 90), (64, 96), (31, 47), (1, 500), (500, 1)])
def test_letterbox_and_normalisation(
    make_card: Cards, color: str, centered: bool, shape: tuple[int, int]
) -> None:
    card = make_card(
        color=color, centered=centered, pad=100, mean=(123.7, 116.3, 103.5), std=(58.4, 57.1, 57.4)
    )
    bgr = np.random.default_rng(3).integers(0, 255, (*shape, 3), np.uint8)
    if min(shape) == 1:  # less than one row or column is left: one is kept
        tensor, letterbox = Preprocessor(card)(Image(0, 'camera', bgr))
        assert min(letterbox.inner_height, letterbox.inner_width) == 1
        assert np.isfinite(tensor).all()
        return
    tensor, _ = Preprocessor(card)(Image(0, 'camera', bgr))
    np.testing.assert_allclose(tensor, plain_letterbox(bgr, card), atol=1e-5)


def test_half_precision_input(make_card: Cards) -> None:
    card = make_card(std=(255.0, 255.0, 255.0))
    tensor, _ = Preprocessor(card, np.float16)(Image(0, 'camera', picture()))
    assert tensor.dtype == np.float16
    np.testing.assert_allclose(tensor, plain_letterbox(picture(), card), atol=1e-3)


def test_one_buffer_serves_images_of_different_sizes(make_card: Cards) -> None:
    card = make_card()
    preprocess = Preprocessor(card)
    first, _ = preprocess(Image(0, 'camera', picture(200, 100)))
    wide = picture(20, 90)
    second, _ = preprocess(Image(0, 'camera', wide))
    assert first is second
    np.testing.assert_array_equal(second, plain_letterbox(wide, card))
    third, _ = preprocess(Image(0, 'camera', picture(20, 90, seed=8)))
    np.testing.assert_array_equal(third, plain_letterbox(picture(20, 90, seed=8), card))


def test_images_that_are_views_of_a_message(make_card: Cards) -> None:
    padded = np.random.default_rng(0).integers(0, 255, (40, 60 * 3 + 12), np.uint8)
    padded.flags.writeable = False
    view = np.lib.stride_tricks.as_strided(padded, (40, 60, 3), (192, 3, 1), writeable=False)
    tensor, _ = Preprocessor(make_card())(Image(0, 'camera', view))
    np.testing.assert_array_equal(tensor, plain_letterbox(view.copy(), make_card()))


@pytest.mark.parametrize(
    ('shape', 'encoding', 'message'),
    [
        ((4, 4, 3), 'bayer_rggb8', "'bayer_rggb8' is not known; known are bgr8, rgb8, .*nv12"),
        ((4, 4, 3), 'BGR8', "'BGR8' is not known"),
        ((4, 4), 'bgr8', r'bgr8 image has data of shape \(4, 4\), expected \[H, W, 3\]'),
        ((4, 4, 3), 'mono8', r'mono8 .* expected \[H, W\]'),
        ((4, 4, 3), 'rgba8', r'expected \[H, W, 4\]'),
        ((4, 5, 2), 'yuyv', 'yuyv .* needs an even width'),
        ((4, 4, 2), 'nv12', r'nv12 .* expected \[H, W\]'),
        ((5, 4), 'nv12', r'nv12 .* whole colour planes \(H \* 3 / 2\)'),
        ((6, 5), 'nv21', 'nv21 .* needs an even width'),
    ],
)
def test_data_that_contradicts_its_encoding_is_refused(
    make_card: Cards, shape: tuple[int, ...], encoding: str, message: str
) -> None:
    image = Image(0, 'camera', np.zeros(shape, np.uint8), encoding)
    for use in (Preprocessor(make_card()), image_size, to_bgr):
        with pytest.raises(MessageError, match=message):
            use(image)


@given(
    height=st.integers(20, 3000),
    width=st.integers(20, 3000),
    centered=st.booleans(),
    size=st.sampled_from([(416, 416), (384, 1248), (640, 640)]),
)
def test_the_image_fills_its_place_in_the_input(
    height: int, width: int, centered: bool, size: tuple[int, int]
) -> None:
    card = CameraCard(
        '', '', 'yolox', ('a',), {}, {}, height=size[0], width=size[1], centered=centered
    )
    box = Letterbox.fit(height, width, card)
    place = np.array([[box.left, box.top, box.left + box.inner_width, box.top + box.inner_height]])
    np.testing.assert_allclose(box.to_image(place), [[0, 0, width, height]], atol=1e-9)
    assert (place >= 0).all()
    assert (place <= [[size[1], size[0], size[1], size[0]]]).all()
    assert size[1] - box.inner_width <= 2 or size[0] - box.inner_height <= 2


def test_boxes_are_cut_off_at_the_image() -> None:
    box = Letterbox(100, 200, 50, 100)
    clipped = box.clip(np.array([[-5.0, 20.0, 500.0, 101.0], [10.0, 10.0, 20.0, 20.0]]))
    assert clipped.tolist() == [[0, 20, 200, 100], [10, 10, 20, 20]]
