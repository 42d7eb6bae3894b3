"""Hard parameter sharing, as course notes write it: the features come back beside a list with one output per task."""

import torch.nn.functional as F
from torch import nn


class HardSharing(nn.Module):
    def __init__(self, in_dim=16, shared_dim=32, task_dims=(3, 2, 1)):
        super().__init__()
        self.shared_1 = nn.Linear(in_dim, shared_dim)
        self.shared_2 = nn.Linear(shared_dim, shared_dim)
        self.towers = nn.ModuleList([nn.Linear(shared_dim, dim) for dim in task_dims])

    def forward(self, inputs):
        shared = F.relu(self.shared_2(F.relu(self.shared_1(inputs))))
        task1, task2, task3 = [tower(shared) for tower in self.towers]
        return shared, [task1, task2, task3]


def build():
    return HardSharing()
