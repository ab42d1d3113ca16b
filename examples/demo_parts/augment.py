"""Augmentation for the demo's pretraining: clean glyphs become what a pen and a coarse scanner make of them.

Everything works on a whole batch in torch. Random sizes follow the caller's `torch.manual_seed`.
"""

import math

import torch
import torch.nn.functional as F
from digits import IMAGE_SIZE
from torch import Tensor


IMAGE_MEAN, IMAGE_STD = 0.3, 0.33
SCAN_SIZE, SCAN_LEVELS = 8, 16  # the resolution and the grey levels of scikit-learn's handwritten digits

TILT_DEGREES = 14.0  # a picture is called tilted beyond this rotation
LARGE_SCALE, TINY_SCALE = 1.28, 0.95  # a picture is called large above, tiny below this magnification


def chance(probability: float, batch: int) -> Tensor:
    """Boolean (batch, 1, 1, 1), each true with `probability`."""
    return torch.rand(batch, 1, 1, 1) < probability


def uniform(low: float, high: float, batch: int) -> Tensor:
    """Uniform numbers (batch, 1, 1, 1)."""
    return low + (high - low) * torch.rand(batch, 1, 1, 1)


def change_thickness(images: Tensor) -> tuple[Tensor, Tensor]:
    """Dilate strokes by one to three pixels, or erode them by one.

    Returns:
        Images (B, 1, 64, 64) and the change in pixels (B,): 0, 1, 2, 3, or -1 for erosion.
    """
    draw = torch.rand(len(images))
    # Dilated once with p .20, twice .17, three times .14; eroded .12.
    change = (draw < 0.51).long() + (draw < 0.31).long() + (draw < 0.14).long() - (draw > 0.88).long()
    images = images.clone()
    for pixels in (1, 2, 3):
        thicker = change >= pixels
        images[thicker] = F.max_pool2d(images[thicker], 3, stride=1, padding=1)
    thinner = change < 0
    images[thinner] = -F.max_pool2d(-images[thinner], 3, stride=1, padding=1)
    return images, change


def warp(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rotate, shear, scale, stretch, shift and bend.

    Returns:
        Images (B, 1, 32, 32), rotation in degrees (B,), positive to the right, and magnification (B,).
    """
    batch = len(images)
    degrees = 9 * torch.randn(batch)
    shear = 0.22 * torch.randn(batch)
    # The sampling grid is scaled, so .72 magnifies by 1.39: strokes fill 60 to 95 % of the picture's side.
    zoom = 0.72 + (1.15 - 0.72) * torch.rand(batch)
    aspect = torch.exp(0.16 * torch.randn(batch)).sqrt()
    cos, sin = torch.cos(degrees * math.pi / 180), torch.sin(degrees * math.pi / 180)
    # Rows of theta = zoom * stretch @ shear @ rotation: output coordinates -> input coordinates.
    theta = torch.zeros(batch, 2, 3)
    theta[:, 0, 0] = zoom * aspect * (cos - shear * sin)
    theta[:, 0, 1] = zoom * aspect * (sin + shear * cos)
    theta[:, 1, 0] = -zoom / aspect * sin
    theta[:, 1, 1] = zoom / aspect * cos
    theta[:, :, 2] = 2 * 0.05 * torch.randn(batch, 2)  # coordinates run from -1 to 1
    grid = F.affine_grid(theta, [batch, 1, IMAGE_SIZE, IMAGE_SIZE], align_corners=False)
    for cells, strength in ((4, 0.085), (7, 0.03)):
        bend = torch.randn(batch, 2, cells, cells) * uniform(0, strength, batch)
        bend = F.interpolate(bend, size=IMAGE_SIZE, mode="bicubic")  # (B, 2, 32, 32)
        grid = grid + bend.permute(0, 2, 3, 1)  # (B, 32, 32, 2)
    return F.grid_sample(images, grid, align_corners=False), degrees, 1 / zoom


def scan(images: Tensor) -> Tensor:
    """What an 8x8 scanner sees of (B, 1, 32, 32), enlarged again as the handwritten digits are."""
    coarse = F.adaptive_avg_pool2d(images, SCAN_SIZE) * uniform(0.9, 1.4, len(images))
    coarse = (coarse.clamp(0, 1) * SCAN_LEVELS).round() / SCAN_LEVELS
    return F.interpolate(coarse, size=IMAGE_SIZE, mode="bicubic").clamp(0, 1)


def change_tones(images: Tensor) -> tuple[Tensor, Tensor]:
    """Blur, gamma, contrast, brightness, noise, inversion.

    Returns:
        Images (B, 1, 32, 32) with values 0 to 1, and whether each was inverted (B,).
    """
    batch = len(images)
    blurred = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    images = torch.where(chance(0.35, batch), blurred, images)
    images = images ** torch.exp(0.25 * torch.randn(batch, 1, 1, 1))
    images = images * uniform(0.6, 1.05, batch) + uniform(0, 0.12, batch)
    images = images + uniform(0, 0.08, batch) * torch.randn_like(images)
    inverted = chance(0.2, batch)
    images = images.clamp(0, 1)
    return torch.where(inverted, 1 - images, images), inverted.flatten()


@torch.no_grad()
def augment(pictures: Tensor) -> tuple[Tensor, list[set[str]]]:
    """Augment and normalise glyphs.

    Args:
        pictures: uint8 (B, 64, 64), white on black.

    Returns:
        `pixel_values` (B, 3, 32, 32) as the demo's image processor makes them, and for each picture the
        attributes that the augmentation made true.
    """
    images = pictures[:, None].float() / 255  # (B, 1, 64, 64)
    images, change = change_thickness(images)
    images, degrees, magnification = warp(images)
    images = torch.where(chance(0.6, len(images)), scan(images), images)
    images, inverted = change_tones(images)

    attributes = [set() for _ in range(len(images))]
    claims = {
        "bold": change >= 2,
        "thin": change < 0,
        "left": degrees < -TILT_DEGREES,
        "right": degrees > TILT_DEGREES,
        "large": magnification > LARGE_SCALE,
        "tiny": magnification < TINY_SCALE,
        "black": inverted,
        "white": ~inverted,
    }
    for attribute, holds in claims.items():
        for index in holds.nonzero().flatten().tolist():
            attributes[index].add(attribute)
    pixel_values = (images - IMAGE_MEAN) / IMAGE_STD
    return pixel_values.expand(-1, 3, -1, -1), attributes
