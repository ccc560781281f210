"""Images drawn into the input of a network on the device, against OpenCV and the preprocessor.

On x86-64 both are equal bit for bit where the input is float32. Other builds of OpenCV resize and
convert with other instructions; there a pixel may differ by 1 of 255.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest

from airside_perception.camera.gpu_image import BEYOND, SOURCES, ImageKernels, InputLayout, taps
from airside_perception.camera.preprocess import ENCODINGS, Letterbox, Preprocessor, image_size
from airside_perception.card import CameraCard
from airside_perception.cuda.kernels import compile_source
from airside_perception.engine.base import TensorSpec
from airside_perception.engine.buffers import DeviceTensor, memory_shape, padded_channels, unpack
from airside_perception.errors import DeviceError, EngineError
from airside_perception.types import Image

Cards = Callable[..., CameraCard]
EXACT = platform.machine() in ('x86_64', 'AMD64')
LAYOUTS = [('linear', np.float32), ('linear', np.float16), ('hwc8', np.float16)]
NOISE = np.random.default_rng(0)


def data_of(encoding: str, height: int, width: int, seed: int = 0) -> np.ndarray:
    """Random bytes in the shape of an encoding, read-only as those of a message are."""
    kind = ENCODINGS[encoding]
    rows = height * 3 // 2 if kind.planar else height
    shape = (rows, width) if kind.channels == 1 else (rows, width, kind.channels)
    data = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    data.flags.writeable = False
    return data


def scenery(height: int, width: int) -> np.ndarray:
    """A BGR picture with a sky, a horizon, edges, a texture and the noise of a sensor."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    sky = np.stack([220 - 60 * y / height, 180 - 70 * y / height, 120 + 40 * x / width], axis=-1)
    road = 70 + 30 * np.sin(x / 3)[..., None] * np.cos(y / 5)[..., None] + np.zeros(3)
    picture = np.where((y < height * (0.4 + 0.1 * x / width))[..., None], sky, road)
    picture[height // 2 : height * 3 // 4, width // 3 : width // 2] = (30, 30, 200)
    picture += np.random.default_rng(1).normal(0, 4, picture.shape)
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def draw(
    queue: Any,
    card: CameraCard,
    image: Image,
    layout: str = 'linear',
    dtype: Any = np.float32,
    border: bool = True,
) -> np.ndarray:
    """The input [3, H, W] that the kernels make of an image, and 7 where they wrote nothing."""
    shape = (1, 3, card.height, card.width)
    spec = TensorSpec(card.input_name, shape, np.dtype(dtype))
    before = np.full(memory_shape(shape, layout), 7, dtype)
    memory = queue.upload(before)
    tensor = DeviceTensor(
        spec, memory.address, layout, shape, padded_channels(shape, layout), before.nbytes
    )
    letterbox = Letterbox.fit(*image_size(image), card)
    kernels = ImageKernels(queue, card, tensor, image.encoding, letterbox)
    block = np.concatenate([image.data.reshape(-1), np.full(BEYOND, 255, np.uint8)])
    pixels = queue.upload(block)
    if border:
        kernels.draw_border()
    kernels.enqueue(np.uint64(pixels.address))
    after = queue.download(memory)
    if layout != 'linear':
        padding = after[..., 3:]
        assert not padding[padding != 7].any()
        if border:
            assert (padding == 0).all()
    return unpack(after, shape, layout)[0]


def check(queue: Any, card: CameraCard, image: Image, layout: str, dtype: Any) -> None:
    expected = Preprocessor(card, dtype)(image)[0][0].astype(np.float64)
    found = draw(queue, card, image, layout, dtype).astype(np.float64)
    pixel = 0 if EXACT else 1.01 / min(card.std)
    if dtype == np.float16:  # the specification rounds the product, then the sum
        pixel += 2 * np.spacing(np.abs(expected).max().astype(np.float16)).astype(np.float64)
    np.testing.assert_allclose(found, expected, rtol=0, atol=pixel)


@pytest.mark.parametrize(
    ('encoding', 'layout', 'dtype'),
    [
        *((encoding, 'linear', np.float32) for encoding in SOURCES),
        *((encoding, *layout) for encoding in ('rgb8', 'nv12') for layout in LAYOUTS[1:]),
    ],
)
def test_every_encoding_and_layout(
    queue: Any, make_card: Cards, encoding: str, layout: str, dtype: Any
) -> None:
    mean, std = (103.5, 116.25, 123.675), (57.375, 57.12, 58.395)
    for i, (height, width) in enumerate(((128, 192), (90, 162), (52, 334), (90, 162))):
        card = make_card(color=('bgr', 'rgb')[i % 2], mean=mean, std=std, centered=i > 1)
        image = Image(0, 'camera', data_of(encoding, height, width, i), encoding)
        check(queue, card, image, layout, dtype)


SINGLE = pytest.param(
    (1, 1),
    marks=pytest.mark.skipif(
        cv2.__version__ < '4.5.5', reason='OpenCV 4.5.4 refuses arrays of one pixel'
    ),
)


@pytest.mark.parametrize(
    'size',
    [SINGLE, (1, 50), (50, 1), (2, 2), (3, 5), (64, 96), (63, 95), (65, 97), (32, 48), (256, 384)],
)
def test_every_size(queue: Any, make_card: Cards, size: tuple[int, int]) -> None:
    image = Image(0, 'camera', data_of('bgr8', *size))
    check(queue, make_card(centered=True), image, 'linear', np.float32)
    image = Image(0, 'camera', data_of('mono8', *size), 'mono8')
    check(queue, make_card(), image, 'linear', np.float32)


def test_a_width_that_four_pixels_do_not_divide(queue: Any, make_card: Cards) -> None:
    card = make_card(height=30, width=46, centered=True)
    for layout, dtype in LAYOUTS:
        check(queue, card, Image(0, 'camera', data_of('bgr8', 77, 83)), layout, dtype)


@pytest.mark.parametrize('size', [(360, 640), (375, 1242), (480, 640), (481, 643)])
def test_pictures_of_cameras(queue: Any, make_card: Cards, size: tuple[int, int]) -> None:
    """A whole input of 384 x 640, as it is."""
    card = make_card(height=384, width=640)
    picture = scenery(*size)
    for pixels in (picture, NOISE.integers(0, 256, picture.shape, dtype=np.uint8)):
        image = Image(0, 'camera', pixels)
        expected = Preprocessor(card)(image)[0][0]
        difference = np.abs(draw(queue, card, image) - expected)
        assert difference.max() <= (0 if EXACT else 1)


def test_yuv_pictures(queue: Any, make_card: Cards) -> None:
    picture = scenery(120, 180)
    planes = cv2.cvtColor(picture, cv2.COLOR_BGR2YUV_I420)
    u, v = planes[120:150].reshape(60, 90), planes[150:].reshape(60, 90)
    data = np.concatenate([planes[:120], np.stack([u, v], axis=-1).reshape(60, 180)])
    image = Image(0, 'camera', data, 'nv12')
    check(queue, make_card(), image, 'linear', np.float32)
    input_ = draw(queue, make_card(), image)  # the colours are those of the picture
    small = cv2.resize(picture, (96, 64)).transpose(2, 0, 1).astype(np.float64)
    assert np.abs(input_ - small).mean() < 10


@pytest.mark.parametrize(('source', 'target'), [(1280, 640), (1242, 640), (7, 96), (1, 5), (9, 9)])
@pytest.mark.parametrize('across', [True, False])
def test_taps_are_those_of_the_definition(source: int, target: int, across: bool) -> None:
    table = taps(source, target, across=across)
    first = (table >> np.uint64(1) & np.uint64(0x7FFFFFFF)).astype(int)
    second = first + (table & np.uint64(1)).astype(int)
    weights = [(table >> np.uint64(shift) & np.uint64(0xFFFF)).astype(int) for shift in (32, 48)]
    assert (weights[0] + weights[1] == 2048).all()
    centre = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)
    place = (first * weights[0] + second * weights[1]) / 2048
    np.testing.assert_allclose(place, centre, atol=1 / 2048 + 1e-4)
    assert 0 <= first.min() <= second.max() < source


def test_the_border_is_drawn_alone(queue: Any, make_card: Cards) -> None:
    card = make_card(pad=100, mean=(10.0, 20.0, 30.0), std=(2.0, 4.0, 5.0), centered=True)
    image = Image(0, 'camera', data_of('bgr8', 64, 48))
    for layout, dtype in LAYOUTS:
        with_border = draw(queue, card, image, layout, dtype)
        assert (with_border[:, :, :24] == np.reshape([45, 20, 14], (3, 1, 1))).all()
        without = draw(queue, card, image, layout, dtype, border=False)
        assert (without[:, :, :24] == 7).all()
        assert (without[:, :, 72:] == 7).all()
        np.testing.assert_array_equal(without[:, :, 24:72], with_border[:, :, 24:72])


def test_nothing_behind_the_image_matters(queue: Any, make_card: Cards) -> None:
    """The bytes behind it are 255 in these tests: a black image stays black."""
    for encoding in ('bgr8', 'rgba8', 'mono8'):
        kind = ENCODINGS[encoding]
        shape = (63, 95) if kind.channels == 1 else (63, 95, kind.channels)
        image = Image(0, 'camera', np.zeros(shape, np.uint8), encoding)
        input_ = draw(queue, make_card(pad=0), image)
        assert not input_.any()


@pytest.mark.parametrize('layout', ['chw4', 'hwc4', 'chw16', 'chw32'])
def test_layouts_of_other_devices(queue: Any, make_card: Cards, layout: str) -> None:
    card = make_card(mean=(1.0, 2.0, 3.0))
    check(queue, card, Image(0, 'camera', data_of('bgr8', 70, 110)), layout, np.float16)


@pytest.mark.parametrize(
    ('layout', 'dtype'),
    [('hwc8', np.float32), ('linear', np.float64), ('linear', np.int8), ('chw2', np.float16)],
)
def test_other_layouts_are_refused(layout: str, dtype: Any) -> None:
    shape = (1, 3, 64, 96)
    spec = TensorSpec('images', shape, np.dtype(dtype))
    tensor = DeviceTensor(spec, 0, layout, shape, padded_channels(shape, layout), 0)
    with pytest.raises(EngineError, match=f'images: .* has the layout {layout}; images are'):
        InputLayout.of(tensor)


@pytest.mark.parametrize('arch', ['sm_87', 'sm_90'])
@pytest.mark.parametrize('layout', ['FP32', 'FP16', 'PADDED -DCHANNELS=8'])
def test_every_variant_compiles_for_the_gpu(arch: str, layout: str) -> None:
    for source in sorted(set(SOURCES.values())):
        compiles('image.cu', f'-DSOURCE={source} -DLAYOUT={layout}', arch)
    for options in ('-DHALF=0 -DACTIVATED=0', '-DHALF=1 -DACTIVATED=1'):
        compiles('yolox.cu', options, arch)


def compiles(name: str, options: str, arch: str) -> None:
    try:
        cubin = compile_source(name, tuple(options.split()), arch)
    except DeviceError as error:
        if 'cannot be compiled here' not in str(error):
            raise
        pytest.skip(str(error))
    assert cubin[:4] == b'\x7fELF'
