"""The trained weights of MMRL and MMRL++ (section 3 of both papers), one small module per symbol.

PEFT, transformers and Trainer cut the names of adapter weights as `<tuner layer>.mmrl_<what>.<adapter>.<leaf>`, so
each module here holds its parameters itself and has no children. The maps of all L adapted layers of a tower are
stacked in one parameter. They are multiplied with `bmm`, not `@`: that rounds otherwise where no gradient is needed,
and a loaded adapter would differ from the trained one in the last bit.
"""

from __future__ import annotations

import math

import torch
from torch import nn


LEAVES = ("weight", "bias", "A", "B")  # names of the parameters of all modules here


class RepTokens(nn.Module):
    """The shared representation space R, `weight` (K, d_r), normal with std 0.02."""

    def __init__(self, num_rep_tokens: int, rep_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_rep_tokens, rep_dim))
        nn.init.normal_(self.weight, std=0.02)

    def forward(self) -> torch.Tensor:
        return self.weight


class Aligner(nn.Module):
    """MMRL's maps F_i(x) = W_i x + b_i: `weight` (L, d_out, d_r), `bias` (L, d_out).

    Every layer starts as a copy of one default `nn.Linear` draw.
    """

    def __init__(self, num_layers: int, rep_dim: int, hidden_size: int) -> None:
        super().__init__()
        draw = nn.Linear(rep_dim, hidden_size)
        self.weight = nn.Parameter(draw.weight.detach().repeat(num_layers, 1, 1))
        self.bias = nn.Parameter(draw.bias.detach().repeat(num_layers, 1))

    def forward(self, rep_tokens: torch.Tensor) -> torch.Tensor:
        """R (K, d_r) -> T_i of all adapted layers (L, K, d_out)."""
        rep_tokens = rep_tokens.expand(len(self.weight), -1, -1)  # (L, K, d_r)
        return torch.baddbmm(self.bias.unsqueeze(1), rep_tokens, self.weight.transpose(1, 2))


class SharedResidualAligner(nn.Module):
    """MMRL++'s maps F_i(x) = (W + A_i B_i) x + b_i.

    `weight` W (d_out, d_r) is shared, `A` (L, d_out, r) starts kaiming-uniform, `B` (L, r, d_r) at zero, `bias`
    (L, d_out); W and every b_i start as one default `nn.Linear` draw.
    """

    def __init__(self, num_layers: int, rep_dim: int, hidden_size: int, rank: int) -> None:
        super().__init__()
        draw = nn.Linear(rep_dim, hidden_size)
        self.weight = nn.Parameter(draw.weight.detach().clone())
        self.bias = nn.Parameter(draw.bias.detach().repeat(num_layers, 1))
        self.A = nn.Parameter(torch.empty(num_layers, hidden_size, rank))
        self.B = nn.Parameter(torch.zeros(num_layers, rank, rep_dim))
        for matrix in self.A.detach():
            nn.init.kaiming_uniform_(matrix, a=math.sqrt(5))

    def forward(self, rep_tokens: torch.Tensor) -> torch.Tensor:
        """R (K, d_r) -> T_i of all adapted layers (L, K, d_out)."""
        shared = rep_tokens @ self.weight.T  # (K, d_out)
        rep_tokens = rep_tokens.expand(len(self.A), -1, -1)  # (L, K, d_r)
        residual = torch.bmm(torch.bmm(rep_tokens, self.B.transpose(1, 2)), self.A.transpose(1, 2))  # (L, K, d_out)
        return shared + residual + self.bias.unsqueeze(1)


class RepProjection(nn.Module):
    """MMRL's representation projection P_r, `weight` (d_v, d), normal with std d_v^-1/2."""

    def __init__(self, hidden_size: int, projection_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(hidden_size, projection_dim))
        nn.init.normal_(self.weight, std=hidden_size**-0.5)

    def forward(self, pooled: torch.Tensor, frozen_projection: nn.Module) -> torch.Tensor:
        """Mean representation token (B, d_v) -> f_r (B, d). The frozen projection is not used."""
        return pooled @ self.weight.to(pooled.dtype)


class ResidualRepProjection(nn.Module):
    """MMRL++'s representation projection P_v + A B: `A` (d_v, q) kaiming-uniform, `B` (q, d) zero."""

    def __init__(self, hidden_size: int, projection_dim: int, rank: int) -> None:
        super().__init__()
        self.A = nn.Parameter(torch.empty(hidden_size, rank))
        self.B = nn.Parameter(torch.zeros(rank, projection_dim))
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))

    def forward(self, pooled: torch.Tensor, frozen_projection: nn.Module) -> torch.Tensor:
        """Mean representation token (B, d_v) -> f_r (B, d), added to what the frozen projection P_v gives."""
        residual = (pooled @ self.A.to(pooled.dtype)) @ self.B.to(pooled.dtype)
        return frozen_projection(pooled) + residual
