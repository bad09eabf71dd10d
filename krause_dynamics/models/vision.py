"""KViT: a vision transformer whose patches hear their neighbours in the picture."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from krause_dynamics.interaction import Grid, RandomKeys
from krause_dynamics.interaction.neighbourhoods import Neighbourhood
from krause_dynamics.models.blocks import attention, blocks
from krause_dynamics.models.classifiers import PictureClassifier, PictureConfig
from krause_dynamics.models.configuration import SUPPORTS
from krause_dynamics.nn.parts import whole

CLS = 1  # tokens before the patches


class KrauseViTConfig(PictureConfig):
    """KViT; the defaults are the paper's ViT-S on CIFAR-10.

    Args:
        metric: Shape of the neighbourhood of `window` patches around a patch: ``"manhattan"`` (with 1 the cross of five
            of CIFAR) or ``"chebyshev"`` (with 2 the 5 x 5 of ImageNet). CLS hears all and is heard by all.
        read_out: The head reads the CLS token, ``"cls"``, or the ``"mean"`` of the patches. The token is there in both,
            so that the arms differ in nothing else.

    `PictureConfig` and `KrauseConfig` have the other keys; ``num_labels`` is transformers'. The support may also be
    ``"window+top_k+cls_exempt"``: the row of CLS, which published top-k leaves k of all patches, keeps them all.
    """

    model_type = "kvit"
    supports: ClassVar[tuple[str, ...]] = (*SUPPORTS, "window+top_k+cls_exempt")

    sigma: float | None = 2.5
    attention_top_k_last: int | None = 4
    norm: str = "post"
    metric: str = "manhattan"
    read_out: str = "cls"

    def check(self) -> None:
        """As for pictures; the neighbourhood names an unknown metric."""
        super().check()
        if self.read_out not in ("cls", "mean"):
            raise ValueError(f"read_out must be 'cls' or 'mean', got {self.read_out!r}")
        self.nearby()

    @property
    def prefix(self) -> int:
        """Tokens before the patches, which hear all and are heard by all: CLS and the first tokens."""
        return CLS + (self.first_tokens if self.hears("first_tokens") else 0)

    @property
    def exempt(self) -> int:
        """Leading tokens that select nobody."""
        return self.prefix if self.hears("cls_exempt") else 0

    def nearby(self) -> Grid:
        """Patches within `window` of one another, and the tokens before them."""
        height, width = self.grid
        return Grid(height, width, radius=self.window, metric=self.metric, prefix=self.prefix)  # type: ignore[arg-type]

    def random(self) -> Neighbourhood:
        """As many random patches as an inner patch has near ones, and the tokens before them."""
        height, width = self.grid
        degree = self.nearby().reach.cells if self.degree is None else self.degree
        return RandomKeys(degree, self.random_seed, tokens=self.prefix + height * width, prefix=self.prefix)


class KrauseViT(PictureClassifier):
    """KViT with a head for classes (2602.11534): patches, a CLS token, learned positions, blocks of `KrauseAttention`.

    Args:
        config: Sizes, score and support.

    Examples:
        >>> model = KrauseViT(KrauseViTConfig(hidden_size=12, num_hidden_layers=2, num_labels=10))
        >>> model(torch.rand(1, 3, 32, 32)).logits.shape
        torch.Size([1, 10])
    """

    config_class = KrauseViTConfig
    config: KrauseViTConfig

    def __init__(self, config: KrauseViTConfig) -> None:
        super().__init__(config)
        width = config.hidden_size
        self.patch_embedding = nn.Conv2d(config.num_channels, width, config.patch_size, config.patch_size)
        self.prefix_embedding = nn.Embedding(config.prefix, width)
        height, across = config.grid
        self.position_embedding = nn.Embedding(config.prefix + height * across, width)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = blocks(config, (attention(config, i) for i in range(config.num_hidden_layers)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, config.num_labels or 0)
        self.post_init()

    def embedded(self, pixel_values: Tensor) -> Tensor:
        """CLS, first tokens and patches with their positions, (batch, tokens, width)."""
        patches = self.patch_embedding(pixel_values).flatten(2).transpose(1, 2)
        first = whole(self.prefix_embedding, patches).expand(patches.shape[0], -1, -1)
        tokens = torch.cat([first, patches], 1) + whole(self.position_embedding, patches)
        return self.dropout(tokens)  # type: ignore[no-any-return]

    def read(self, x: Tensor) -> Tensor:
        """What the head reads, (batch, width)."""
        x = self.norm(x)
        return x[:, 0] if self.config.read_out == "cls" else x[:, self.config.prefix :].mean(1)
