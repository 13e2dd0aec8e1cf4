"""A small classifier of 28x28 digits, whose hidden layer is what image sets are compared by."""

from __future__ import annotations

from torch import Tensor, nn


class DigitClassifier(nn.Module):
    """Two stages of two 3x3 convolutions with max pooling, then a hidden layer of features."""

    def __init__(self, *, feature_size: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i, o in ((1, 16), (16, 32)):
            layers += [
                nn.Conv2d(i, o, 3, padding=1, bias=False),
                nn.BatchNorm2d(o),
                nn.ReLU(),
                nn.Conv2d(o, o, 3, padding=1, bias=False),
                nn.BatchNorm2d(o),
                nn.ReLU(),
                nn.MaxPool2d(2),
            ]
        self.stages = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3))
        self.hidden = nn.Sequential(nn.Linear(32 * 7 * 7, feature_size), nn.ReLU())
        self.head = nn.Linear(feature_size, 10)

    def features(self, image: Tensor) -> Tensor:
        """Return `float32[N, feature_size]` of `image: float32[N, 1, 28, 28], -1 to 1`."""
        found: Tensor = self.hidden(self.stages(image))
        return found

    def forward(self, image: Tensor) -> Tensor:
        """Return `logits: float32[N, 10]` of `image: float32[N, 1, 28, 28], -1 to 1`."""
        logits: Tensor = self.head(self.features(image))
        return logits
