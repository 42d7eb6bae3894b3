"""A network of your own: it knows nothing of Polyhead. Forward returns one tensor per task."""

from torch import nn


class WineNet(nn.Module):
    """12 chemical measurements of a wine; two tasks on one trunk."""

    def __init__(self):
        super().__init__()
        self.scale = nn.BatchNorm1d(12)
        self.trunk = nn.Sequential(nn.Linear(12, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
        self.cultivar = nn.Linear(64, 3)
        self.alcohol = nn.Linear(64, 1)

    def forward(self, measurements):
        features = self.trunk(self.scale(measurements))
        return {"cultivar": self.cultivar(features), "alcohol": self.alcohol(features).squeeze(1)}


def build():
    """What --factory names: the untrained network."""
    return WineNet()
