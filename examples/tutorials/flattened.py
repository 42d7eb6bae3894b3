"""A picture laid out as 768 numbers, 768 -> 256 -> 256 with ReLU, and two classifiers on top."""

from torch import nn


class FlattenedTrunk(nn.Module):
    def __init__(self, classes=10):
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Linear(768, 256),
            nn.ReLU(),
            nn.Linear(256, 256),
            nn.ReLU(),
        )
        self.object = nn.Linear(256, classes)
        self.indoors = nn.Linear(256, 2)

    def forward(self, image):
        x = image.view(image.size(0), -1)
        x = self.trunk(x)
        return {"object": self.object(x), "indoors": self.indoors(x)}


def build():
    return FlattenedTrunk()
