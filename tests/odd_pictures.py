"""Pictures that are easily read in two ways, and files that are none."""

import numpy as np
import PIL.Image
from PIL import ImageDraw


def stroke(mode="L", size=(40, 40), ground=0, ink=255):
    """Something that is no square, no mirror image and not its own turned picture."""
    picture = PIL.Image.new(mode, size, ground)
    draw = ImageDraw.Draw(picture)
    width, height = size
    draw.line([(width // 8, height // 8), (width // 8, height - 5), (width - 5, height - 5)], fill=ink, width=4)
    return picture


def write_kinds(folder):
    """Pictures of every kind, in a folder; their paths."""
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    stroke().save(folder / "turned.jpg", exif=exif)
    stroke("RGBA", ground=(0, 0, 0, 0), ink=(0, 0, 0, 255)).save(folder / "logo.png")
    palette = stroke("P", ground=0, ink=1)
    palette.putpalette([0, 0, 0, 90, 90, 90])
    palette.save(folder / "palette.gif", transparency=0)
    PIL.Image.fromarray(np.asarray(stroke()).astype(np.uint16) * 16).save(folder / "twelve_bits.png")
    PIL.Image.fromarray(np.asarray(stroke()).astype(np.float32) / 10 + 290).save(folder / "kelvin.tif")
    stroke(size=(120, 40)).save(folder / "long.png")
    stroke("CMYK", ground=(0, 0, 0, 0), ink=(0, 255, 0, 0)).save(folder / "print.jpg")
    return sorted(folder.iterdir())


def write_unreadable(folder):
    """Files that are called pictures and are none, or damaged."""
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "words.png").write_text("words")
    (folder / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(20))
    (folder / "new.avif").write_bytes(b"\0\0\0\x18ftypavif" + bytes(20))
    (folder / "drawing.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    stroke(size=(90, 90)).save(folder / "whole.png")
    (folder / "cut.png").write_bytes((folder / "whole.png").read_bytes()[:-60])
    PIL.Image.fromarray(np.full((4, 4), np.nan, dtype=np.float32)).save(folder / "nothing.tif")
