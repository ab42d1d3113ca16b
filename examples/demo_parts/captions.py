"""Captions and tokenizer for the demo's pretraining.

A caption is a template around a phrase ("a photo of the bold digit three."). Next to its words it carries
what they claim (a concept or only its family, and attributes), so that the loss knows every picture that a
caption is true of.
"""

import json
import random
from collections.abc import Iterable
from dataclasses import dataclass

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from .glyphs import Concept


TEMPLATES = (
    "{}", "{}.", "a photo of {}", "a photo of {}.", "a picture of {}", "an image of {}.", "a scan of {}",
    "a drawing of {}", "a sketch of {}.", "a close-up of {}", "a blurry photo of {}",
    "a low resolution scan of {}", "a print of {}.", "someone wrote {}", "someone drew {}.", "this is {}.",
    "here is {}", "{} on paper",
)  # fmt: skip
# Attribute -> how it is put into words. The position in this table is the attribute's bit.
ATTRIBUTE_PHRASES = {
    "bold": "bold {}", "thin": "thin {}", "italic": "italic {}", "serif": "serif {}", "sans": "sans serif {}",
    "monospaced": "monospaced {}", "script": "script {}", "fraktur": "fraktur {}", "large": "large {}",
    "tiny": "tiny {}", "black": "black {}", "white": "white {}", "left": "{} tilted to the left",
    "right": "{} tilted to the right",
}  # fmt: skip
ATTRIBUTE_BITS = {attribute: 1 << position for position, attribute in enumerate(ATTRIBUTE_PHRASES)}

DIGIT_KINDS = ("digit", "number", "numeral", "figure", "")
WORD_SHARE = 0.75  # of the digits' captions say "three", the others "3"
LOOSE_SHARE = 0.4  # of the letters' captions leave the case open
ATTRIBUTE_SHARE = 0.5  # of the captions name one or two attributes

CONTEXT_LENGTH = 32
NUM_MERGES = 1000
BOS_TOKEN, EOS_TOKEN = "<|startoftext|>", "<|endoftext|>"


@dataclass(frozen=True)
class Caption:
    """A caption and what it claims: if `loose`, only the family of its concept; `attributes` is a bit set."""

    text: str
    loose: bool
    attributes: int


def attribute_bits(attributes: Iterable[str]) -> int:
    """Bit set of attribute names."""
    return sum(ATTRIBUTE_BITS[attribute] for attribute in set(attributes))


def add_article(phrase: str, rng: random.Random) -> str:
    """Put "the", "a"/"an" or nothing before a phrase."""
    article = rng.choice(("the", "the", "a", "a", ""))
    if article == "a" and phrase[0] in "aeiou":
        article = "an"
    return f"{article} {phrase}".strip()


def name_concept(concept: Concept, rng: random.Random) -> tuple[str, bool]:
    """A phrase for a concept, and whether it names the family only."""
    if concept.group == "digit":
        word, numeral = concept.names
        kind = rng.choice(DIGIT_KINDS)
        return f"{kind} {word if rng.random() < WORD_SHARE else numeral}".strip(), False
    if concept.loose_names and rng.random() < LOOSE_SHARE:
        return rng.choice(concept.loose_names), True
    return rng.choice(concept.names), False


def write_caption(concept: Concept, attributes: int, rng: random.Random) -> Caption:
    """Write a random caption of a picture.

    Args:
        concept: What the picture shows.
        attributes: Bit set of all attributes true of the picture; the caption names at most two of them.
        rng: Source of randomness.
    """
    phrase, loose = name_concept(concept, rng)
    named = []
    true_attributes = [attribute for attribute, bit in ATTRIBUTE_BITS.items() if attributes & bit]
    if true_attributes and rng.random() < ATTRIBUTE_SHARE:
        named = rng.sample(true_attributes, min(rng.choice((1, 2)), len(true_attributes)))
    for attribute in named:
        phrase = ATTRIBUTE_PHRASES[attribute].format(phrase)
    text = rng.choice(TEMPLATES).format(add_article(phrase, rng))
    return Caption(text, loose, attribute_bits(named))


def train_tokenizer(texts: Iterable[str]) -> CLIPTokenizer:
    """Train a CLIP tokenizer on `texts`.

    The vocabulary has CLIP's layout: 256 bytes, the same 256 with the end-of-word mark, the merges (1,000
    with enough text), and the two special tokens. Since every byte is in it, any text can be tokenised.
    """
    clip = CLIPTokenizer().backend_tokenizer  # only for CLIP's normaliser and pre-tokenizer
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.normalizer, bpe.pre_tokenizer = clip.normalizer, clip.pre_tokenizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=2 * len(alphabet) + NUM_MERGES,
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    merges = [tuple(pair) for pair in json.loads(bpe.to_str())["model"]["merges"]][:NUM_MERGES]

    tokens = alphabet + [f"{byte}</w>" for byte in alphabet] + ["".join(pair) for pair in merges]
    tokens += [BOS_TOKEN, EOS_TOKEN]
    vocab = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=CONTEXT_LENGTH)
