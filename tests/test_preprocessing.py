"""How pictures become `pixel_values` is decided once for a run, from its pictures, and is the same ever after."""

import io
import json
import pickle
import struct
import zlib

import numpy as np
import PIL.Image
import pytest
import torch
from conftest import make_clip, scramble
from peft import PeftModel, get_peft_model
from transformers import CLIPImageProcessor

import peft_mmrl
from peft_mmrl import MMRLConfig, Preprocessing, read_picture
from peft_mmrl.data import PictureError, PictureFacts, TrainTransform, examine_picture


PROCESSORS = {
    "crop": {},
    "smaller crop": {"size": {"shortest_edge": 40}},
    "crop of a square": {"size": {"height": 40, "width": 40}},
    "larger crop": {"size": {"shortest_edge": 24}},
    "crop alone": {"do_resize": False},
    "squeeze": {"size": {"height": 32, "width": 24}, "do_center_crop": False},
}


def processor(**changes):
    return CLIPImageProcessor(**{"size": {"shortest_edge": 32}, "crop_size": 32, **changes})


def encode(values, format="TIFF"):
    file = io.BytesIO()
    PIL.Image.fromarray(values).save(file, format)
    return file.getvalue()


def ramp(low, high, dtype, size=(40, 50)):
    return np.linspace(low, high, size[0] * size[1]).reshape(size).astype(dtype)


def chosen(images, fit=None):
    return Preprocessing.choose(processor(), [examine_picture(image) for image in images], fit)


def grey(picture):
    return np.asarray(picture)[..., 0].astype(int)


# --- grey of more than 8 bits -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "dtype"),
    [
        (0, 255, np.uint16), (0, 1023, np.uint16), (3, 4090, np.uint16), (28000, 31000, np.uint16),
        (0, 65535, np.uint16), (-1000, 3000, np.int32), (0, 70000, np.int32),
        (0, 1, np.float32), (270.5, 310.25, np.float32), (500, 8000, np.float32), (-0.02, 0.03, np.float32),
    ],
)  # fmt: skip
def test_deep_grey_keeps_its_contrast_whatever_its_range(low, high, dtype):
    images = [encode(ramp(low, high, dtype)), encode(ramp((low + high) / 2, high, dtype))]
    preprocess, notes = chosen(images)
    whole, upper_half = (grey(preprocess.decode(image)) for image in images)
    assert whole.min() == 0 and whole.max() == 255 and len(np.unique(whole)) > 200
    assert 125 <= upper_half.min() <= 131 and upper_half.max() == 255  # alike in all pictures of the run
    assert "2 pictures are grey of more than 8 bits" in notes[0]


def test_full_sixteen_bits_look_as_without_a_range():
    image = encode(ramp(0, 65535, np.uint16), "PNG")
    difference = grey(chosen([image])[0].decode(image)) - grey(read_picture(image))
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("stray", [65535, np.nan, np.inf, -np.inf, 1e30, -9999])
def test_defects_of_a_sensor_do_not_set_the_range(stray):
    values = ramp(200, 1000, np.float32)
    values[20, 20] = stray
    assert chosen([encode(values)])[0].value_range == pytest.approx((200, 1000), abs=2)


def test_other_pictures_have_no_range_and_do_not_change_that_of_deep_ones(pictures):
    assert chosen(pictures)[0].value_range is None
    deep = encode(ramp(10, 20, np.float32))
    assert chosen([deep, *pictures])[0].value_range == chosen([deep])[0].value_range
    preprocess = chosen([deep])[0]
    assert np.array_equal(np.asarray(preprocess.decode(pictures[0])), np.asarray(pictures[0]))


def test_a_blank_picture_has_a_range_and_is_flat():
    preprocess, _ = chosen([encode(np.full((8, 8), 77, np.uint16))])
    assert preprocess.value_range[0] == 77
    _, notes = chosen([encode(np.full((8, 8), 77, np.uint16)), encode(ramp(0, 4000, np.uint16))])
    assert "1 of them have hardly any contrast" in notes[0]


def test_a_picture_without_a_single_number_is_named():
    with pytest.raises(PictureError, match="no numbers"):
        examine_picture(encode(np.full((4, 4), np.nan, np.float32)))


def test_values_beyond_the_range_of_the_run_are_clipped_and_counted():
    preprocess = Preprocessing(processor(), value_range=(100, 200))
    for low, high, is_beyond in (
        (100, 200, False),
        (98, 203, False),
        (120, 130, False),
        (0, 150, True),
        (150, 900, True),
    ):
        picture = preprocess.decode(encode(ramp(low, high, np.uint16)))
        assert preprocess.is_beyond(picture.info["values"]) == is_beyond
    assert grey(picture).max() == 255 and (grey(picture) == 255).mean() > 0.9
    assert "3 pictures hold values beyond 100 (black) and 200 (white)" in preprocess.warning(3)
    plain = Preprocessing(processor())
    assert plain.is_beyond((0, 1)) and not plain.is_beyond(None)
    assert "there were none in training" in plain.warning(1)


def deep_colours(brightest):
    """A PNG of 16 bits per colour, which Pillow reads but does not write."""
    pixels = np.linspace(0, brightest, 6 * 5 * 3).reshape(6, 15).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    chunks = {b"IHDR": struct.pack(">IIBBBBB", 5, 6, 16, 2, 0, 0, 0), b"IDAT": zlib.compress(rows), b"IEND": b""}
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks.items()
    )


def test_sixteen_bits_per_colour_are_taken_where_they_are_used_and_refused_where_they_are_not():
    full, dark = deep_colours(65535), deep_colours(4095)
    assert examine_picture(full).brightest > 60000
    assert chosen([full, dark])[0].value_range is None
    with pytest.raises(ValueError, match="1 pictures have 16 bits per colour, but use 12 of them"):
        chosen([dark])


# --- pictures that are not square ---------------------------------------------------------------------------------


def marked(width=96, height=32):
    """Grey with a white mark on the left and a black one on the right."""
    picture = PIL.Image.new("RGB", (width, height), "grey")
    side = max(width, height) // 8
    picture.paste("white", (0, 0, side, side))
    picture.paste("black", (width - side, height - side, width, height))
    return picture


@pytest.mark.parametrize("size", [(96, 32), (30, 90), (400, 20), (64, 40)])
@pytest.mark.parametrize("kind", PROCESSORS)
@pytest.mark.parametrize("fit", ["pad", "squeeze"])
def test_padded_and_squeezed_pictures_show_their_ends(fit, kind, size):
    picture = PIL.Image.new("RGB", size, "grey")
    short = min(size)
    picture.paste("white", (0, 0, short, short))
    picture.paste("black", (size[0] - short, size[1] - short, *size))
    pixels = Preprocessing(processor(do_normalize=False, **PROCESSORS[kind]), fit)(picture)
    assert pixels.max() > 0.9 and pixels.min() < 0.1
    assert pixels.shape == (3, 32, 24 if kind == "squeeze" else 32)


@pytest.mark.parametrize("fit", ["crop", "pad", "squeeze"])
def test_pictures_are_fitted_as_the_image_processor_resamples(fit):
    """Nearest neighbours, whose number is 0, make no colours that were not there."""
    picture = PIL.Image.fromarray(np.indices((64, 64)).sum(0).astype(np.uint8) % 2 * 255).convert("RGB")
    fitted = {way: Preprocessing(processor(resample=way), fit).fitted(picture, (24, 24)) for way in (0, 3)}
    assert set(np.unique(fitted[0])) == {0, 255}
    assert len(np.unique(fitted[3])) > 2


def test_cropped_pictures_do_not():
    for fit in (None, "crop"):
        pixels = Preprocessing(processor(do_normalize=False), fit)(marked())
        assert pixels.max() - pixels.min() < 0.1
    squeezing = processor(do_normalize=False, **PROCESSORS["squeeze"])
    pixels = Preprocessing(squeezing, "crop")(marked())
    assert pixels.max() - pixels.min() < 0.1


def test_padding_keeps_proportions_and_adds_the_mean_colour():
    pixels = Preprocessing(processor(), "pad")(PIL.Image.new("RGB", (90, 30), "white"))
    rows = (pixels > 1).all(dim=0).all(dim=1).nonzero().flatten().tolist()
    assert rows == list(range(10, 21)) or rows == list(range(11, 22))
    assert pixels[:, :9].abs().max() < 0.02


@pytest.mark.parametrize("kind", PROCESSORS)
@pytest.mark.parametrize("fit", [None, "crop", "pad", "squeeze"])
def test_what_is_read_needs_the_image_processor_as_it_stands_and_nothing_else(fit, kind):
    preprocess = Preprocessing(processor(**PROCESSORS[kind]), fit)
    for picture in (marked(), marked(33, 80), marked(32, 32)):
        expected = preprocess(picture)
        given = preprocess.read(picture)
        assert torch.equal(preprocess.image_processor(given, return_tensors="pt")["pixel_values"][0], expected)


def test_without_a_choice_it_is_what_the_image_processor_does(pictures):
    for kind in PROCESSORS.values():
        own = processor(**kind)
        expected = own(pictures[0], return_tensors="pt")["pixel_values"][0]
        assert torch.equal(Preprocessing(own)(pictures[0]), expected)


@pytest.mark.parametrize("fit", ["pad", "squeeze"])
def test_training_sees_the_ends_too(fit):
    transform = TrainTransform(Preprocessing(processor(do_normalize=False), fit), scale=(0.9, 1), flip=False)
    torch.manual_seed(0)
    views = [transform(marked()) for _ in range(10)]
    assert all(view.max() > 0.8 and view.min() < 0.2 for view in views)
    whole = TrainTransform(Preprocessing(processor(), fit), scale=(1, 1), flip=False)(marked())
    assert (whole - Preprocessing(processor(), fit)(marked())).abs().mean() < 0.1


def test_very_long_pictures_take_no_memory():
    for fit in ("crop", "pad", "squeeze"):
        assert Preprocessing(CLIPImageProcessor(), fit)(PIL.Image.new("RGB", (60000, 1))).shape == (3, 224, 224)


def facts(*sizes):
    return [PictureFacts(width, height) for width, height in sizes]


def test_a_note_says_what_is_never_seen_and_most_decide():
    long, square = (90, 30), (40, 30)
    preprocess, notes = Preprocessing.choose(processor(), facts(long, (30, 90), square))
    assert preprocess.fit == "squeeze"
    assert "2 of 3 pictures are far from square" in notes[0] and "never sees 67%" in notes[0]
    preprocess, notes = Preprocessing.choose(processor(), facts(long, square, square))
    assert preprocess.fit == "crop" and "1 of 3 pictures" in notes[0] and "--fit pad" in notes[0]
    preprocess, notes = Preprocessing.choose(processor(), facts(long, long), "crop")
    assert preprocess.fit == "crop" and "2 of 2 pictures" in notes[0]
    for fit in ("pad", "squeeze"):
        preprocess, notes = Preprocessing.choose(processor(), facts(square, long, square), fit)
        assert (preprocess.fit, notes) == (fit, [])
    assert Preprocessing.choose(processor(), facts(square, (30, 45)))[1] == []
    own = processor(**PROCESSORS["squeeze"])
    assert Preprocessing.choose(own, facts(long, long)) == (Preprocessing(own, "squeeze"), [])


# --- the decision itself ------------------------------------------------------------------------------------------


def test_equal_is_what_makes_the_same_of_every_picture():
    plain = Preprocessing(processor())
    assert plain == Preprocessing(processor(), "crop") and hash(plain) == hash(Preprocessing(processor(), "crop"))
    for other in (
        Preprocessing(processor(), "pad"),
        Preprocessing(processor(), value_range=(0, 1)),
        Preprocessing(processor(image_mean=[0, 0, 0])),
        Preprocessing(processor(crop_size=24)),
    ):
        assert plain != other and plain.to_dict() != other.to_dict()
    assert json.loads(json.dumps(plain.to_dict())) == plain.to_dict()
    assert pickle.loads(pickle.dumps(plain)) == plain


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"fit": "stretch"}, ValueError, "`fit` must be one of crop, pad, squeeze"),
        ({"fit": 3}, TypeError, "`fit`"),
        ({"value_range": (3, 1)}, ValueError, "`value_range` must hold two numbers, the smaller first"),
        ({"value_range": [1]}, ValueError, "`value_range`"),
        ({"value_range": (0, "a")}, TypeError, r"`value_range\[1\]` must be a finite number"),
        ({"value_range": (0, float("inf"))}, ValueError, r"`value_range\[1\]`"),
        ({"value_range": 5}, TypeError, "`value_range`"),
    ],
)
def test_wrong_values_are_refused_alike_by_config_and_preprocessing(kwargs, error, message):
    for make in (MMRLConfig, lambda **kwargs: Preprocessing(processor(), **kwargs)):
        with pytest.raises(error, match=message):
            make(**kwargs)


def test_it_is_saved_with_the_adapter_and_old_adapters_are_read_as_before(tokenizer, tmp_path):
    config = MMRLConfig(rep_dim=16, **Preprocessing(processor(), "pad", (0, 1023)).config)
    model = scramble(get_peft_model(make_clip(), config))
    model.set_classes(["cat", "dog"], tokenizer)
    model.save_pretrained(tmp_path / "new")
    loaded = PeftModel.from_pretrained(make_clip(), tmp_path / "new")
    assert Preprocessing.of(loaded, processor()) == Preprocessing(processor(), "pad", (0, 1023))
    assert Preprocessing.of(MMRLConfig.from_pretrained(tmp_path / "new"), processor()).fit == "pad"
    content = json.loads((tmp_path / "new" / "adapter_config.json").read_text())
    del content["fit"], content["value_range"]
    (tmp_path / "new" / "adapter_config.json").write_text(json.dumps(content))
    old = PeftModel.from_pretrained(make_clip(), tmp_path / "new")
    assert Preprocessing.of(old, processor()) == Preprocessing(processor())


def test_each_adapter_of_a_model_has_its_own():
    model = get_peft_model(make_clip(), MMRLConfig(rep_dim=16, fit="pad"))
    model.add_adapter("other", MMRLConfig(rep_dim=16, value_range=[0, 5]))
    assert Preprocessing.of(model, processor()).fit == "pad"
    model.set_adapter("other")
    assert Preprocessing.of(model, processor()) == Preprocessing(processor(), value_range=(0, 5))


def test_the_public_names_are_there():
    assert {"Preprocessing", "read_picture"} <= set(peft_mmrl.__all__)
