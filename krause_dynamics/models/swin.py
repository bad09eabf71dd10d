"""KSwin: attention inside windows of the picture, shifted by half a window in every other block."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from krause_dynamics._arguments import COUNT
from krause_dynamics.interaction import Everyone
from krause_dynamics.interaction.neighbourhoods import Neighbourhood
from krause_dynamics.models.blocks import Block, drop_rates
from krause_dynamics.models.classifiers import PictureClassifier, PictureConfig
from krause_dynamics.nn import KrauseAttention

APART = -100.0  # added between regions that a shift has brought together, as in Swin: weights of e^-100


class KrauseSwinConfig(PictureConfig):
    """KSwin; the defaults are the paper's Swin-T on pictures of 32 x 32.

    Args:
        depths: Blocks of each stage; between stages the map is halved and its width doubled.
        heads: Heads of each stage.
        window: Side w of a window in patches; divides every map that is larger.

    `hidden_size` and `intermediate_size` are the widths of the first stage; `num_hidden_layers` and
    `num_attention_heads` follow from the stages. `PictureConfig` and `KrauseConfig` have the other keys; a Gaussian
    measures queries and keys divided by sqrt(d_h), so that its default sigma is d_h^(-1/4).
    """

    model_type = "kswin"
    supports: ClassVar[tuple[str, ...]] = ("window", "window+top_k")

    hidden_size: int = 96
    depths: tuple[int, ...] | list[int] = (2, 2, 6, 2)
    heads: tuple[int, ...] | list[int] = (3, 6, 12, 24)
    num_hidden_layers: int | None = None  # type: ignore[assignment]
    num_attention_heads: int | None = None  # type: ignore[assignment]
    window: int = 4
    support: str = "window"
    sigma_per_head: bool = True

    def check(self) -> None:
        """As for pictures, and that stages, heads and windows fit one another."""
        if len(self.depths) != len(self.heads) or not self.depths:
            raise ValueError(f"depths and heads must name the same stages, got {self.depths} and {self.heads}")
        for number in (*self.depths, *self.heads):
            COUNT.read("depths and heads", number)
        for name, follows in (("num_hidden_layers", sum(self.depths)), ("num_attention_heads", self.heads[0])):
            if getattr(self, name) not in (None, follows):
                raise ValueError(f"{name} follows from the stages and must be {follows}, got {getattr(self, name)}")
            setattr(self, name, follows)
        super().check()
        for size, width, heads in self.stages:
            if width % heads:
                raise ValueError(f"heads must divide the width of their stage, got {heads} and {width}")
            if min(size) >= self.window and any(length % self.window for length in size):
                raise ValueError(f"window must divide maps of {size} patches, got {self.window}; change image_size")

    @property
    def stages(self) -> list[tuple[tuple[int, int], int, int]]:
        """(height, width) of the map, width of the tokens, and heads of each stage."""
        (height, across), stages = self.grid, []
        for i, heads in enumerate(self.heads):
            stages.append(((height, across), self.hidden_size * 2**i, heads))
            height, across = (height + 1) // 2, (across + 1) // 2
        return stages

    def nearby(self) -> Neighbourhood:
        """All of the window, which is all that a token meets."""
        return Everyone()


class WindowAttention(nn.Module):
    """`KrauseAttention` in w x w windows of a map, with a bias learned for each relative position.

    A map smaller than the window is one window, without bias and shift. The shift is made wherever the map is not
    smaller, also where it is exactly one window (torchvision's Swin does not shift there).

    Args:
        config: Score, support and window.
        layer: Which block, counted over all stages.
        size: (height, width) of the map.
        width: Width of the tokens.
        heads: Number of heads.
        shift: Whether to move windows by half their side.
    """

    index: Tensor | None
    apart: Tensor | None

    def __init__(
        self, config: KrauseSwinConfig, layer: int, size: tuple[int, int], width: int, heads: int, shift: bool
    ) -> None:
        super().__init__()
        words = config.scores[config.score]
        learned, gaussian = words.get("learn_sigma", True), words["score"] == "gaussian"
        fits = min(size) >= config.window
        self.size, self.side = size, (config.window, config.window) if fits else size
        self.shift = config.window // 2 if shift and fits else 0
        scale = (width // heads) ** -0.5 if gaussian else 1.0
        natural = (width // heads) ** -0.25 if gaussian else None
        self.rule = KrauseAttention(
            width, heads, config.neighbourhood(layer), project_scale=scale,
            sigma=(natural if config.sigma is None else config.sigma) if learned else None,
            sigma_per_head=config.sigma_per_head and learned, dropout=config.attention_dropout, **words,
        )  # fmt: skip
        self.position_bias = nn.Embedding((2 * config.window - 1) ** 2, heads) if fits else None
        self.register_buffer("index", None, persistent=False)
        self.register_buffer("apart", None, persistent=False)
        self.reset_buffers()

    def reset_buffers(self) -> None:
        """Rows of the table of biases, and -100 between regions of a shifted map; no file holds them."""
        device = self.rule.q_proj.weight.device
        if self.position_bias is not None:
            self.index = relative_positions(self.side[0]).to(device)
        if self.shift:
            apart = regions_differ(self.size, self.side[0], self.shift)
            self.apart = torch.where(apart, APART, 0.0)[:, None].to(device)

    def forward(self, x: Tensor, *, return_weights: Any = False) -> Any:
        """A map (batch, height, width, d) -> the same, and weights (batch * windows, heads, w^2, w^2) if asked for."""
        moved = x.roll((-self.shift, -self.shift), (1, 2)) if self.shift else x
        down, across = (length // side for length, side in zip(self.size, self.side, strict=True))
        windows = moved.unflatten(1, (down, self.side[0])).unflatten(3, (across, self.side[1]))
        windows = windows.transpose(2, 3).flatten(3, 4).flatten(0, 2)
        bias = self._pair_bias(x.shape[0], down * across)
        out: Any = self.rule(windows, pair_bias=bias, return_weights=return_weights)
        out, weights = out if return_weights else (out, None)
        out = out.unflatten(0, (-1, down, across)).unflatten(3, self.side).transpose(2, 3).flatten(3, 4).flatten(1, 2)
        out = out.roll((self.shift, self.shift), (1, 2)) if self.shift else out
        return (out, weights) if return_weights else out

    def _pair_bias(self, batch: int, windows: int) -> Tensor | None:
        """(1 or batch * windows, heads, w^2, w^2): of relative positions, and -100 between regions of a shifted map."""
        if self.position_bias is None:
            return None
        assert self.index is not None
        bias = self.position_bias(self.index).permute(2, 0, 1)[None]
        return bias if self.apart is None else (self.apart + bias).repeat(batch, 1, 1, 1)


def relative_positions(side: int) -> Tensor:
    """Row of the table of biases for each pair of a window, (side^2, side^2); 0 is the largest step up and left."""
    place = torch.arange(side)
    step = place[:, None] - place + side - 1
    return (step[:, None, :, None] * (2 * side - 1) + step[None, :, None, :]).reshape(side**2, side**2)


def regions_differ(size: tuple[int, int], side: int, shift: int) -> Tensor:
    """Pairs of each window of a shifted map that were not neighbours before: (windows, side^2, side^2)."""
    rows, columns = ((torch.arange(n) >= n - side).int() + (torch.arange(n) >= n - shift) for n in size)
    region = (3 * rows[:, None] + columns).unflatten(0, (-1, side)).unflatten(2, (-1, side))
    region = region.transpose(1, 2).reshape(-1, side**2)
    return region[:, :, None] != region[:, None]


class Merge(nn.Module):
    """Halve a map: the four tokens of a square, normalised together and projected to twice the width.

    Args:
        width: Width of the tokens.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * width)
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, height, width, d) -> (batch, ceil(height / 2), ceil(width / 2), 2 d), padded with 0 where odd."""
        x = nn.functional.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        parts = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.reduction(self.norm(torch.cat(parts, -1)))  # type: ignore[no-any-return]


class KrauseSwin(PictureClassifier):
    """KSwin with a head for classes: Swin (Liu et al. 2103.14030) on the layer (2602.11534).

    Args:
        config: Sizes, score and support.

    Examples:
        >>> model = KrauseSwin(KrauseSwinConfig(hidden_size=8, depths=(1, 2), heads=(1, 2), num_labels=10))
        >>> model(torch.rand(1, 3, 32, 32)).logits.shape
        torch.Size([1, 10])
    """

    config_class = KrauseSwinConfig
    config: KrauseSwinConfig

    def __init__(self, config: KrauseSwinConfig) -> None:
        super().__init__(config)
        self.patch_embedding = nn.Conv2d(config.num_channels, config.hidden_size, config.patch_size, config.patch_size)
        self.patch_norm = nn.LayerNorm(config.hidden_size)
        self.dropout = nn.Dropout(config.dropout)
        rates = drop_rates(config)
        self.layers = nn.ModuleList()
        assert config.intermediate_size is not None
        for stage, (size, width, heads) in enumerate(config.stages):
            if stage:
                self.layers.append(Merge(width // 2))
            hidden = width * config.intermediate_size // config.hidden_size
            for i in range(config.depths[stage]):
                layer = sum(config.depths[:stage]) + i
                mixer = WindowAttention(config, layer, size, width, heads, shift=i % 2 == 1)
                self.layers.append(Block(config, mixer, width, hidden, rates[layer]))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, config.num_labels or 0)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Fresh weights, and the buffers that no file holds."""
        super()._init_weights(module)
        if isinstance(module, WindowAttention):
            module.reset_buffers()

    def embedded(self, pixel_values: Tensor) -> Tensor:
        """The map of patches, (batch, height, width, d)."""
        return self.dropout(self.patch_norm(self.patch_embedding(pixel_values).permute(0, 2, 3, 1)))  # type: ignore[no-any-return]

    def read(self, x: Tensor) -> Tensor:
        """The mean of the last map, (batch, d)."""
        return self.norm(x).mean((1, 2))  # type: ignore[no-any-return]
