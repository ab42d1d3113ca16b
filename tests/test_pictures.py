"""Pictures of every kind are read alike, and what cannot be read says why."""

import io
import pickle
import re
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import PIL.Image
import PIL.ImageFile
import pytest
import torch
from PIL import ImageCms, ImageDraw, PngImagePlugin

from peft_mmrl.data import PictureError, PictureFacts, examine_picture, read_picture
from peft_mmrl.data.pictures import FORMATS


def gradient(mode="RGB", size=(40, 30)):
    ramp = PIL.Image.linear_gradient("L").resize(size)
    return PIL.Image.merge("RGB", (ramp, ramp.rotate(90), ramp.rotate(180))).convert(mode)


def disc(ground):
    """A red disc on a ground of RGBA."""
    picture = PIL.Image.new("RGBA", (32, 32), ground)
    ImageDraw.Draw(picture).ellipse((4, 4, 27, 27), fill=(255, 0, 0, 255))
    return picture


def encode(picture, format="PNG", **options):
    file = io.BytesIO()
    picture.save(file, format, **options)
    return file.getvalue()


def pixels(image):
    picture = read_picture(image)
    assert picture.mode == "RGB"
    return np.asarray(picture).astype(int)


def reason(image):
    with pytest.raises(PictureError) as error:
        read_picture(image)
    return error.value


@pytest.mark.parametrize(
    ("mode", "format"),
    [
        ("RGB", "PNG"), ("L", "PNG"), ("P", "PNG"), ("1", "PNG"), ("RGB", "JPEG"), ("CMYK", "JPEG"),
        ("YCbCr", "JPEG"), ("CMYK", "TIFF"), ("LAB", "TIFF"), ("RGB", "WEBP"), ("RGB", "BMP"), ("P", "GIF"),
    ],
)  # fmt: skip
def test_modes_and_formats(mode, format):
    source = gradient("RGB" if mode == "LAB" else mode)
    if mode == "LAB":
        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        source = ImageCms.profileToProfile(source, *profiles, outputMode="LAB")
    expected = source.convert("RGB") if mode in ("L", "1", "P") else gradient()
    assert np.abs(pixels(encode(source, format)) - np.asarray(expected).astype(int)).mean() < 8


def test_sixteen_bit_grey_keeps_its_upper_eight_bits(tmp_path):
    values = np.array([[0, 255, 256, 0x1234, 65535]], dtype=np.uint16)
    expected = [0, 0, 1, 0x12, 255]
    encoded = [
        encode(PIL.Image.fromarray(values)),
        encode(PIL.Image.fromarray(values.astype(">u2")), "TIFF"),
        encode(PIL.Image.fromarray(values.astype(np.int32)), "TIFF"),
        b"P5 5 1 65535\n" + values.astype(">u2").tobytes(),
    ]
    for content in encoded:
        assert pixels(content)[0, :, 0].tolist() == expected


def test_grey_of_floats():
    for values in ([0, 0.5, 1.0, np.nan], [0, 127.6, 300.0, -np.inf]):
        content = encode(PIL.Image.fromarray(np.array([values], dtype=np.float32)), "TIFF")
        assert pixels(content)[0, :, 1].tolist() == [0, 128, 255, 0]


def test_transparent_pictures_are_laid_on_white():
    transparent, flat = disc((0, 0, 0, 0)), disc("white").convert("RGB")
    palette = PIL.Image.new("P", (32, 32), 0)
    palette.putpalette([0, 0, 0, 255, 0, 0])
    ImageDraw.Draw(palette).ellipse((4, 4, 27, 27), fill=1)
    for content in (encode(transparent), encode(transparent, "WEBP", lossless=True), encode(palette, transparency=0)):
        assert np.array_equal(pixels(content), np.asarray(flat))
    content = encode(transparent.convert("LA"))
    assert np.array_equal(pixels(content), np.asarray(flat.convert("L").convert("RGB")))
    keyed = encode(disc("black").convert("RGB"), transparency=(0, 0, 0))
    assert np.array_equal(pixels(keyed), np.asarray(flat))


def test_the_first_frame_of_an_animation():
    frames = [PIL.Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    for format in ("GIF", "PNG", "WEBP", "TIFF"):
        options = {"lossless": True} if format == "WEBP" else {}
        content = encode(frames[0], format, save_all=True, append_images=frames[1:], **options)
        assert pixels(content)[4, 4].tolist() == [255, 0, 0], format


def test_exif_orientation_is_applied_once():
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # a quarter turn to the right
    content = encode(gradient(), exif=exif)
    turned = np.asarray(gradient().transpose(PIL.Image.Transpose.ROTATE_270))
    assert np.array_equal(pixels(content), turned)
    assert np.array_equal(pixels(PIL.Image.open(io.BytesIO(content))), turned)
    assert np.array_equal(pixels(read_picture(content)), turned)


def test_damaged_exif_data_do_not_matter():
    content = encode(gradient(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12")
    with pytest.warns(UserWarning, match="EXIF"):
        assert pixels(content).shape == (30, 40, 3)


def test_a_path_an_extension_that_lies_and_a_column_s_value(tmp_path):
    path = tmp_path / "x.JPG"
    path.write_bytes(encode(gradient()))
    in_column = [{"path": str(path), "bytes": None}, {"path": "gone.jpg", "bytes": path.read_bytes()}]
    for image in (path, str(path), *in_column):
        assert np.array_equal(pixels(image), np.asarray(gradient()))


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (2, 2)])
def test_tiny_pictures(size):
    assert read_picture(encode(gradient(size=size))).size == size


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"these are words, not pixels", "not a picture"),
        (encode(gradient(), "JPEG")[:600], "damaged"),
        (encode(gradient(size=(200, 200)))[:400], "damaged"),
        (encode(gradient("P"), "GIF")[:300], "damaged|not a picture"),
        (struct.pack(">I", 24) + b"ftypheic" + bytes(40), "pip install pillow-heif"),
        (struct.pack(">I", 24) + b"ftypavif" + bytes(40), "AVIF"),
    ],
)
def test_what_cannot_be_read_says_why(content, message, tmp_path):
    path = tmp_path / "x.jpg"
    path.write_bytes(content)
    error = reason(path)
    assert str(error).startswith(f"{path}: ")
    assert error.path == str(path)
    assert re.search(message, error.reason)


def test_files_that_cannot_be_opened(tmp_path):
    assert "no such file" in reason(tmp_path / "gone.png").reason
    assert "cannot be opened" in reason(tmp_path).reason
    assert "cannot be opened" in reason("nul\0.png").reason


def test_beyond_the_size_limit(monkeypatch, tmp_path):
    content = encode(PIL.Image.new("1", (60, 50)))
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 1000)
    assert "limit of 2000 pixels" in reason({"bytes": content, "path": "scan.png"}).reason
    assert PIL.Image.MAX_IMAGE_PIXELS == 1000


def test_text_in_a_picture_is_no_error():
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "x" * 1000)
    assert pixels(encode(gradient(), pnginfo=info)).shape == (30, 40, 3)


@pytest.mark.parametrize("image", [None, 3, {"bytes": None, "path": None}, torch.zeros(3, 4, 4)])
def test_something_else_is_no_picture(image):
    with pytest.raises(TypeError, match="`image`"):
        read_picture(image)


def test_the_error_survives_worker_processes():
    error = pickle.loads(pickle.dumps(PictureError("the file is empty", "cat/a.jpg")))
    assert (error.path, error.reason, str(error)) == ("cat/a.jpg", "the file is empty", "cat/a.jpg: the file is empty")
    assert str(PictureError("as torch raises it again")) == "as torch raises it again"


# --- what is opened ---------------------------------------------------------------------------------------------

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"
OTHERS = {
    "EPS": EPS,
    "PSD": b"8BPS\0\1" + bytes(40),
    "PDF": b"%PDF-1.7\n" + bytes(40),
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    "FITS": b"SIMPLE  =                    T" + bytes(80),
    **{format: encode(gradient(), format) for format in ("TGA", "PCX", "ICO", "SGI", "DDS")},
}


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("extension", ["png", "jpg", "eps", ""])
def test_other_formats_are_refused_whatever_they_are_called(kind, extension, tmp_path, monkeypatch):
    def reached(*arguments, **kwargs):
        raise AssertionError("a file was handed to another program or decoder")

    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", reached)
    monkeypatch.setattr("subprocess.Popen", reached)
    for name, (_, accept) in list(PIL.Image.OPEN.items()):
        if name not in FORMATS:
            monkeypatch.setitem(PIL.Image.OPEN, name, (reached, accept))
    path = tmp_path / f"x.{extension}"
    path.write_bytes(OTHERS[kind])
    for look in (read_picture, examine_picture):
        for image in (path, OTHERS[kind], {"bytes": OTHERS[kind], "path": "x.png"}):
            with pytest.raises(PictureError, match="not opened"):
                look(image)


def test_a_picture_that_somebody_else_has_opened_is_not_decoded_either(monkeypatch):
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", None)
    assert "EPS" in reason(PIL.Image.open(io.BytesIO(EPS))).reason
    icon = PIL.Image.open(io.BytesIO(OTHERS["PCX"]))
    icon.load()  # who does that knows what it is
    assert read_picture(icon).size == (40, 30)


@pytest.mark.parametrize("length", range(16))
def test_the_first_bytes_of_anything_are_no_error_of_another_kind(length):
    for content in (*OTHERS.values(), bytes(16), b"\xff" * 16):
        with pytest.raises(PictureError):
            read_picture(content[:length])


# --- what is found out beforehand -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"words", "not a picture"),
        (encode(gradient(size=(200, 200)))[:400], "damaged"),
        (encode(gradient(size=(1000, 700)), "JPEG", quality=95)[:-3000], "damaged"),
        (encode(gradient(size=(1000, 700)), "JPEG", progressive=True)[:-500], "damaged"),
    ],
)
def test_an_examination_finds_what_reading_finds(content, message):
    for look in (read_picture, examine_picture):
        with pytest.raises(PictureError, match=message):
            look(content)


def test_an_examination_says_what_a_picture_is_like():
    assert examine_picture(encode(gradient(size=(1000, 700)), "JPEG")) == PictureFacts(1000, 700)
    assert examine_picture(encode(gradient("L", size=(40, 10)))).elongation == 4


def test_large_jpeg_files_are_examined_in_an_eighth_of_their_size(monkeypatch):
    sizes = []
    load = PIL.ImageFile.ImageFile.load
    monkeypatch.setattr(PIL.ImageFile.ImageFile, "load", lambda self: sizes.append(self.size) or load(self))
    examine_picture(encode(gradient(size=(2400, 1200)), "JPEG"))
    assert sizes[0] == (300, 150)


def test_of_large_pictures_one_at_a_time_is_held(monkeypatch):
    held, most, load = [], [], PIL.ImageFile.ImageFile.load

    def slow_load(self):
        held.append(id(self))
        most.append(len(held))
        time.sleep(0.01)
        held.remove(id(self))
        return load(self)

    monkeypatch.setattr(PIL.ImageFile.ImageFile, "load", slow_load)
    content = encode(gradient())
    for limit, expected in ((100, {1}), (10000, {2})):
        monkeypatch.setattr("peft_mmrl.data.pictures.LARGE", limit)
        with ThreadPoolExecutor(2) as pool, ThreadPoolExecutor(1) as large:
            list(pool.map(partial(examine_picture, large=large), [content] * 6))
        assert {max(most)} == expected
        most.clear()
