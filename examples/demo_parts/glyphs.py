"""Glyphs for the demo's pretraining: which characters are drawn, from which fonts, and what they are called.

All pictures come from the TrueType fonts that matplotlib ships (DejaVu, STIX, Computer Modern). A *concept*
is what a caption names ("digit three", "capital letter a", "greek small letter alpha", "rightwards arrow"); a
*glyph* is one drawing of a concept in one font, with the attributes that are true of it (bold, serif, ...).
"""

import string
import unicodedata
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont

from peft_mmrl.data.progress import progress_bar


FONT_DIR = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
# Left out: fonts of boxes (LastResort), of extensible brackets (cmex10, STIXSiz*), and of symbols without
# Unicode names (cmsy10, STIXNonUni*).
SKIPPED_FONTS = ("LastResort", "cmex10", "cmsy10", "STIXSiz", "STIXNonUni")
OPEN_VOCABULARY_FONTS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif", "STIXGeneral", "STIXGeneralBol")
MATHEMATICAL_FONTS = ("DejaVuSans", "STIXGeneral")
MATHEMATICAL_LETTERS = range(0x1D400, 0x1D6A4)
MATHEMATICAL_DIGITS = range(0x1D7CE, 0x1D800)

DIGIT_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
OTHER_NUMBER_WORDS = [
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
    "twenty",
    "thirty",
    "forty",
    "fifty",
    "sixty",
    "seventy",
    "eighty",
    "ninety",
    "hundred",
    "thousand",
    "half",
    "third",
    "thirds",
    "quarter",
    "quarters",
    "fifths",
    "sixth",
    "sixths",
    "eighth",
    "eighths",
]
# Names with these words show a digit in disguise, or need a ground that a single drawing does not have.
SKIPPED_WORDS = {
    *DIGIT_WORDS, *OTHER_NUMBER_WORDS,
    "digit", "digits", "number", "circled", "combining", "turned", "braille",
}  # fmt: skip
MAX_NAME_WORDS = 7

GREEK_LETTERS = "αβγδεζηθικλμνξοπρστυφχψωΓΔΘΛΞΠΣΦΨΩ"  # capitals that look like Latin ones are left out
SIGN_NAMES = {
    "!": ("exclamation mark",), '"': ("quotation mark", "double quote"), "#": ("hash sign", "number sign"),
    "$": ("dollar sign",), "%": ("percent sign",), "&": ("ampersand", "and sign"), "'": ("apostrophe",),
    "(": ("left parenthesis", "opening bracket"), ")": ("right parenthesis", "closing bracket"),
    "*": ("asterisk",), "+": ("plus sign",), ",": ("comma",), "-": ("hyphen",), ".": ("full stop", "dot"),
    "/": ("slash",), ":": ("colon",), ";": ("semicolon",), "<": ("less-than sign",), "=": ("equals sign",),
    ">": ("greater-than sign",), "?": ("question mark",), "@": ("at sign",), "[": ("left square bracket",),
    "\\": ("backslash",), "]": ("right square bracket",), "^": ("caret",), "_": ("underscore",),
    "`": ("grave accent", "backtick"), "{": ("left curly bracket",), "|": ("vertical line", "vertical bar"),
    "}": ("right curly bracket",), "~": ("tilde",), "£": ("pound sign",), "€": ("euro sign",),
    "¥": ("yen sign",),
}  # fmt: skip

FONT_SIZE = 96  # pixels; glyphs are drawn large, then scaled down
CANVAS = 64  # side of a stored glyph in pixels
GLYPH_SIDE = 44  # long side of the strokes on the canvas in pixels
MAX_ENLARGEMENT = 3.0  # a full stop stays small


@dataclass(frozen=True)
class Concept:
    """What a caption can name.

    Attributes:
        group: "digit", "letter", "sign" (Greek letters and signs) or "other"; sampling shares are per group.
        family: Key shared by the concepts that a loose name fits, such as the two cases of a letter.
        names: Phrases true of this concept alone.
        loose_names: Phrases true of every concept of the family.
    """

    group: str
    family: str
    names: tuple[str, ...]
    loose_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Glyph:
    """One character of one font: `concept` it shows, and the `attributes` true of its drawing."""

    font: str
    character: str
    concept: Concept
    attributes: frozenset[str]


def list_fonts() -> list[str]:
    """Names (file stems) of the fonts that are used, 24 with matplotlib 3.x, in alphabetical order."""
    stems = sorted(path.stem for path in FONT_DIR.glob("*.ttf"))
    return [stem for stem in stems if not stem.startswith(SKIPPED_FONTS)]


def font_attributes(font: str) -> frozenset[str]:
    """Attributes of a font, read from its file name."""
    attributes = set()
    if "Bol" in font or font == "cmb10":
        attributes.add("bold")
    if any(part in font for part in ("Oblique", "Ita", "cmti", "cmmi")):
        attributes.add("italic")
    if "Mono" in font or font == "cmtt10":
        attributes.add("monospaced")
    elif "Sans" in font or font == "cmss10":
        attributes.add("sans")
    else:
        attributes.add("serif")
    return frozenset(attributes)


def mathematical_attributes(character: str) -> frozenset[str]:
    """Attributes of a mathematical alphanumeric symbol, read from its Unicode name: any font draws it so."""
    name = unicodedata.name(character)
    words = {"bold": "BOLD", "italic": "ITALIC", "sans": "SANS-SERIF", "monospaced": "MONOSPACE",
             "script": "SCRIPT", "fraktur": "FRAKTUR"}  # fmt: skip
    return frozenset(attribute for attribute, word in words.items() if word in name)


def common_concept(character: str) -> Concept | None:
    """The concept of a digit, Latin letter, Greek letter or sign; None for any other character."""
    if character in string.digits:
        word = DIGIT_WORDS[int(character)]
        return Concept("digit", f"digit {word}", (word, character))
    if character in string.ascii_letters:
        case, letter = ("capital" if character.isupper() else "small"), character.lower()
        return Concept("letter", f"letter {letter}", (f"{case} letter {letter}",), (f"letter {letter}",))
    if character in GREEK_LETTERS:
        case = "capital" if character.isupper() else "small"
        letter = unicodedata.name(character).split()[-1].lower()
        names = (f"greek {case} letter {letter}", f"{case} {letter}")
        return Concept("sign", f"greek {letter}", names, (f"greek letter {letter}", letter))
    if character in SIGN_NAMES:
        return Concept("sign", SIGN_NAMES[character][0], SIGN_NAMES[character])
    return None


def open_concept(character: str) -> Concept | None:
    """The concept of any other character, by its Unicode name; None if the name is of no use as a caption."""
    name = unicodedata.name(character, "").lower()
    words = name.replace("-", " ").split()
    if not words or unicodedata.category(character)[0] in "ZC":
        return None
    if len(words) > MAX_NAME_WORDS or SKIPPED_WORDS.intersection(words) or any(map(str.isdigit, name)):
        return None
    # U+2010 is another "hyphen", U+2038 another "caret".
    if any(name in names for names in SIGN_NAMES.values()):
        return None
    return Concept("other", name, (name,))


def name_glyph(font: str, character: str) -> Glyph | None:
    """The glyph of a character in a font; None if it is not one to pretrain on."""
    if ord(character) in MATHEMATICAL_LETTERS or ord(character) in MATHEMATICAL_DIGITS:
        concept = common_concept(unicodedata.normalize("NFKC", character))
        if concept is None or font not in MATHEMATICAL_FONTS:
            return None
        return Glyph(font, character, concept, mathematical_attributes(character))
    # Computer Modern has other characters at other code points, and cmmi10 old-style digits.
    if font.startswith("cm") and character not in string.ascii_letters + string.digits:
        return None
    if font == "cmmi10" and character in string.digits:
        return None
    concept = common_concept(character)
    if concept is None and font in OPEN_VOCABULARY_FONTS:
        concept = open_concept(character)
    return None if concept is None else Glyph(font, character, concept, font_attributes(font))


def list_glyphs(fonts: list[str]) -> list[Glyph]:
    """All glyphs of `fonts`, with all fonts about 17,000 of 5,100 concepts."""
    glyphs = []
    for font in fonts:
        codes = sorted(FT2Font(str(FONT_DIR / f"{font}.ttf")).get_charmap())
        glyphs += [name_glyph(font, chr(code)) for code in codes]
    return [glyph for glyph in glyphs if glyph is not None]


def draw_glyph(character: str, font: ImageFont.FreeTypeFont) -> np.ndarray | None:
    """Draw a character in white on black.

    Returns:
        uint8 array (64, 64), the strokes centred with a long side of 44 pixels; None if nothing was drawn.
    """
    canvas = Image.new("L", (4 * FONT_SIZE, 4 * FONT_SIZE))
    ImageDraw.Draw(canvas).text((FONT_SIZE, FONT_SIZE), character, fill=255, font=font)
    box = canvas.getbbox()
    if box is None:
        return None
    strokes = canvas.crop(box)
    scale = min(GLYPH_SIDE / max(strokes.size), MAX_ENLARGEMENT)
    width, height = (max(1, round(side * scale)) for side in strokes.size)
    strokes = strokes.resize((width, height), Image.Resampling.LANCZOS)
    picture = Image.new("L", (CANVAS, CANVAS))
    picture.paste(strokes, ((CANVAS - width) // 2, (CANVAS - height) // 2))
    return np.asarray(picture)


def draw_glyphs(glyphs: list[Glyph]) -> tuple[list[Glyph], np.ndarray]:
    """Draw `glyphs`; those without strokes are dropped.

    Returns:
        The glyphs that were drawn, and their pictures as a uint8 array (number of glyphs, 64, 64).
    """
    # The basic layout draws each character on its own and needs no text-shaping library.
    layout = ImageFont.Layout.BASIC
    fonts = {
        name: ImageFont.truetype(str(FONT_DIR / f"{name}.ttf"), FONT_SIZE, layout_engine=layout)
        for name in {glyph.font for glyph in glyphs}
    }
    drawn, pictures = [], []
    for glyph in progress_bar(glyphs, desc="drawing glyphs"):
        picture = draw_glyph(glyph.character, fonts[glyph.font])
        if picture is not None:
            drawn.append(glyph)
            pictures.append(picture)
    return drawn, np.stack(pictures)
