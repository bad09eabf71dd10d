"""What models that tell the class of a picture share: its size, and the way from pixels to logits."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional
from transformers.modeling_outputs import ImageClassifierOutput

from krause_dynamics._arguments import COUNT
from krause_dynamics.models.blocks import Block, KrauseModel, Trail
from krause_dynamics.models.configuration import KrauseConfig, sides


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
        return sides(self.image_size)

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width in patches."""
        height, width = self.pixels
        return height // self.patch_size, width // self.patch_size

    def check_pixels(self, pixel_values: Any) -> None:
        """A batch of pictures is of this size.

        Raises:
            TypeError: Not a floating tensor.
            ValueError: Another size.
        """
        wanted = (self.num_channels, *self.pixels)
        if not isinstance(pixel_values, Tensor) or not pixel_values.is_floating_point():
            kind = pixel_values.dtype if isinstance(pixel_values, Tensor) else type(pixel_values).__name__
            raise TypeError(
                f"pixel_values must be a floating tensor (batch, *{wanted}), got {kind}; bytes: pixels.float() / 255, "
                "scaled as in training"
            )
        if pixel_values.ndim != 4 or tuple(pixel_values.shape[1:]) != wanted:
            raise ValueError(
                f"pixel_values must be (batch, *{wanted}), got {tuple(pixel_values.shape)}; resize them, or build the "
                "model with another image_size"
            )


class PictureClassifier(KrauseModel):
    """Patches, layers, and a head that reads them; the rest is a subclass's."""

    config: Any
    main_input_name = "pixel_values"
    layers: nn.ModuleList
    head: nn.Linear

    def embedded(self, pixel_values: Tensor) -> Tensor:
        """Tokens before the first layer."""
        raise NotImplementedError

    def read(self, x: Tensor) -> Tensor:
        """What the head reads of the tokens after the last layer, (batch, width)."""
        raise NotImplementedError

    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> ImageClassifierOutput | tuple[Any, ...]:
        """Logits of the classes.

        Args:
            pixel_values: Pictures (batch, channels, height, width).
            labels: Classes (batch,), or their shares (batch, classes) as mixup makes them.
            output_attentions: Return the weights of each layer before dropout, (batch, heads, tokens, tokens); inside
                windows (batch * windows, heads, w^2, w^2), as transformers' Swin does.
            output_hidden_states: Return the tokens before each layer and after the last, (batch, tokens, width).
            return_dict: A dictionary (default) or a tuple.

        Raises:
            ValueError: Pictures of another size.
        """
        self.config.check_pixels(pixel_values)
        x = self.embedded(pixel_values)
        trail = Trail(self.config, output_hidden_states, output_attentions, x)
        for layer in self.layers:
            x = trail.through(layer, x) if isinstance(layer, Block) else trail.past(layer(x))
        logits = self.head(self.read(x))
        loss: Any = None if labels is None else functional.cross_entropy(logits, labels)
        output = ImageClassifierOutput(loss=loss, logits=logits, **trail.outputs)  # type: ignore[arg-type]
        return output.to_tuple() if return_dict is False else output
