"""What FCN and DeepLab share: a backbone, a head on its last map, and an auxiliary head."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn.functional import interpolate

_AUX = "aux_classifier."


class Segmenter(nn.Module):
    """A backbone and a head; logits come at the input's own size.

    Parameter names are torchvision's (`backbone`, `classifier`, `aux_classifier`), so its
    checkpoints load strictly where the backbone is one of its own.
    """

    def __init__(
        self,
        backbone: nn.Module,
        classifier: nn.Module,
        aux_classifier: nn.Module | None = None,
        *,
        aux_map: int = -2,
    ) -> None:
        """Join the parts.

        Args:
            backbone: gives a list of feature maps, finest first.
            classifier: makes logits of the last map.
            aux_classifier: makes logits of an earlier map, only for the loss of a training.
            aux_map: which map the auxiliary head reads.
        """
        super().__init__()
        self.backbone = backbone
        self.classifier = classifier
        self.aux_classifier = aux_classifier
        self.aux_map = aux_map

    def forward(self, x: Tensor) -> Tensor:
        """Return `logits: float32[N, classes, H, W]` of `x: float32[N, 3, H, W]`."""
        return _resize(self.classifier(self.backbone(x)[-1]), x)

    def with_aux(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits of both heads, for a training with an auxiliary loss.

        Raises:
            ValueError: the net was built without an auxiliary head.
        """
        if self.aux_classifier is None:
            raise ValueError("this net has no auxiliary head; build it with aux=True")
        maps = self.backbone(x)
        return (
            _resize(self.classifier(maps[-1]), x),
            _resize(self.aux_classifier(maps[self.aux_map]), x),
        )

    def load_pretrained(self, state: Mapping[str, Tensor], *, drop_aux: bool = False) -> None:
        """Load a state dict strictly, on request without its auxiliary head.

        Raises:
            RuntimeError: a key or shape does not fit.
        """
        self.load_state_dict(
            {k: v for k, v in state.items() if not (drop_aux and k.startswith(_AUX))}
        )


def _resize(x: Tensor, like: Tensor) -> Tensor:
    return interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)
