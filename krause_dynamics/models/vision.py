"""KViT: a vision transformer whose patches hear their neighbours in the picture."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.modeling_outputs import ImageClassifierOutput

from krause_dynamics._arguments import COUNT
from krause_dynamics.interaction import Grid, RandomKeys
from krause_dynamics.interaction.neighbourhoods import Neighbourhood
from krause_dynamics.models.blocks import KrauseModel, attention, blocks
from krause_dynamics.models.configuration import SUPPORTS, KrauseConfig

CLS = 1  # tokens before the patches


class PictureConfig(KrauseConfig):
    """What models of pictures share.

    Args:
        image_size: (height, width) in pixels, or one number for a square.
        patch_size: Side of a patch; divides both.
        num_channels: Channels of a pixel.
    """

    image_size: int | list[int] | tuple[int, int] = 32
    patch_size: int = 4
    num_channels: int = 3

    def counts(self) -> tuple[str, ...]:
        """Names of the keys that are whole numbers of at least 1."""
        return (*super().counts(), "patch_size", "num_channels")

    def check(self) -> None:
        """As `KrauseConfig.check`, and that patches tile the picture."""
        super().check()
        for length in self.pixels:
            COUNT.read("image_size", length)
            if length % self.patch_size:
                raise ValueError(f"patch_size must divide image_size, got {self.patch_size} and {self.image_size}")

    @property
    def pixels(self) -> tuple[int, int]:
        """Height and width in pixels."""
        size = self.image_size
        height, width = (size, size) if isinstance(size, int) else size
        return height, width

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width in patches."""
        height, width = self.pixels
        return height // self.patch_size, width // self.patch_size

    def check_pixels(self, pixel_values: Any) -> None:
        """A batch of pictures is of this size.

        Raises:
            ValueError: It is not.
        """
        wanted = (self.num_channels, *self.pixels)
        if pixel_values.ndim != 4 or tuple(pixel_values.shape[1:]) != wanted:
            raise ValueError(
                f"pixel_values must be (batch, *{wanted}), got {tuple(pixel_values.shape)}; resize them, or build the "
                "model with another image_size"
            )


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


class KrauseViT(KrauseModel):
    """KViT with a head for classes (2602.11534): patches, a CLS token, learned positions, blocks of `KrauseAttention`.

    Args:
        config: Sizes, score and support.

    Example:
        >>> model = KrauseViT(KrauseViTConfig(hidden_size=12, num_hidden_layers=2, num_labels=10))
        >>> model(torch.rand(1, 3, 32, 32)).logits.shape
        torch.Size([1, 10])
    """

    config_class = KrauseViTConfig
    config: KrauseViTConfig
    main_input_name = "pixel_values"

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

    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> ImageClassifierOutput | tuple[Any, ...]:
        """Logits of the classes.

        Args:
            pixel_values: Pictures (batch, channels, height, width).
            labels: Classes (batch,), or their shares (batch, classes) as mixup makes them.
            output_hidden_states: Return the tokens before each layer and after the last.
            return_dict: A dictionary (default) or a tuple.

        Raises:
            ValueError: Pictures of another size.
        """
        self.config.check_pixels(pixel_values)
        patches = self.patch_embedding(pixel_values).flatten(2).transpose(1, 2)
        first = self.prefix_embedding.weight.expand(patches.shape[0], -1, -1)
        x = self.dropout(torch.cat([first, patches], 1) + self.position_embedding.weight)
        states = [x]
        for layer in self.layers:
            x = layer(x)
            states.append(x)
        x = self.norm(x)
        logits = self.head(x[:, 0] if self.config.read_out == "cls" else x[:, self.config.prefix :].mean(1))
        return classified(self.config, logits, labels, states, output_hidden_states, return_dict)


def classified(
    config: KrauseConfig,
    logits: Tensor,
    labels: Tensor | None,
    states: list[Tensor],
    output_hidden_states: bool | None,
    return_dict: bool | None,
) -> ImageClassifierOutput | tuple[Any, ...]:
    """Logits as transformers hands them out, with the cross entropy where labels are given."""
    wanted = config.output_hidden_states if output_hidden_states is None else output_hidden_states
    output = ImageClassifierOutput(
        loss=None if labels is None else functional.cross_entropy(logits, labels),
        logits=logits, hidden_states=tuple(states) if wanted else None,
    )  # type: ignore[arg-type]  # fmt: skip
    return output.to_tuple() if return_dict is False else output
