"""Near copies are found, and different pictures are not taken for copies."""

import io

import digits
import numpy as np
import PIL.Image
import pytest
from PIL import ImageChops, ImageDraw

from peft_mmrl.data.looks import find_alike, look_of, middle_of


def scene(number, size=96, rough=1.5):
    """A picture with a photo's spectrum: much of it in few waves."""
    rng = np.random.default_rng(number)
    waves = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size)))
    waves[0, 0] = 1
    noise = rng.normal(size=(3, size, size)) + 1j * rng.normal(size=(3, size, size))
    values = np.fft.ifft2(noise / waves**rough).real
    values = 128 + 50 * (values - values.mean()) / values.std()
    return PIL.Image.fromarray(values.clip(0, 255).astype(np.uint8).transpose(1, 2, 0))


def product(number, size=120, colour=None):
    """A coloured thing in the middle of a large white ground."""
    picture = PIL.Image.new("RGB", (size, size), "white")
    radius = 10 + 3 * (number % 7)
    colour = colour or tuple(np.random.default_rng(number).integers(0, 200, 3).tolist())
    ImageDraw.Draw(picture).ellipse((60 - radius, 50 - radius, 60 + radius, 50 + radius), fill=colour)
    return picture


def digit(number):
    return digits.scan_to_image(digits.load_sklearn_digits().images[number]).convert("RGB")


def same(one, two):
    return len(find_alike([look_of(one)], [middle_of(look_of(two))])) > 0


def as_jpeg(picture, quality=75):
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return PIL.Image.open(file).convert("RGB")


@pytest.mark.parametrize("draw", [scene, product, digit])
@pytest.mark.parametrize("shift", [(1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1)])
def test_frames_that_are_shifted_by_a_pixel_are_nearly_equal(draw, shift):
    for number in range(5):
        assert same(draw(number), ImageChops.offset(draw(number), *shift))


@pytest.mark.parametrize("draw", [scene, product])
def test_copies_in_other_sizes_and_qualities_are_nearly_equal(draw):
    for number in range(5):
        picture = draw(number)
        copies = as_jpeg(picture), picture.resize((2 * picture.width, 2 * picture.height)), picture.convert("RGB")
        assert all(same(picture, copy) and same(copy, picture) for copy in copies)


def test_large_pictures_are_compared_too():
    picture = scene(0, 600)
    assert same(picture, ImageChops.offset(picture, 1, 1))
    assert same(picture, picture.resize((300, 300)))


def alike(pictures):
    looks = [look_of(picture) for picture in pictures]
    return [(one, two) for one, two in find_alike(looks, list(map(middle_of, looks))).tolist() if one < two]


@pytest.mark.parametrize("size", [28, 32, 64])
def test_of_a_thousand_handwritten_digits_hardly_any_is_taken_for_another(size):
    scans = digits.load_sklearn_digits().images[:1000]
    pictures = [digits.scan_to_image(scan).resize((size, size)).convert("RGB") for scan in scans]
    assert len({number for pair in alike(pictures) for number in pair}) <= 10


def test_different_scenes_and_things_in_other_colours_are_different():
    assert alike([scene(number) for number in range(60)]) == []
    assert alike([scene(number, rough=2) for number in range(60)]) == []
    assert alike([product(0, colour=colour) for colour in ("red", "green", "blue", "black", "orange", "purple")]) == []


def test_even_pictures_are_told_apart_by_colour():
    colours = ["red", "green", "blue", "black", "white", "grey", "lightgrey", (100, 100, 100), (120, 100, 100)]
    assert alike([PIL.Image.new("RGB", (8, 8), colour) for colour in colours]) == []
    assert alike([PIL.Image.new("RGB", size, "red") for size in ((8, 8), (40, 30), (1, 1), (300, 1))]) != []


def test_many_even_pictures_take_no_time():
    rng = np.random.default_rng(0)
    looks = [
        look_of(PIL.Image.new("RGB", (8, 8), tuple(colour))) for colour in rng.integers(0, 256, (500, 3)).tolist()
    ]
    assert len(find_alike(looks, list(map(middle_of, looks)))) >= 500


def test_no_pictures():
    assert find_alike([], []).shape == (0, 2)
    assert find_alike([], [middle_of(look_of(scene(0)))]).shape == (0, 2)
    assert find_alike([look_of(scene(0))], []).shape == (0, 2)
