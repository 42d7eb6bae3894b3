import warnings

import pytest
import torch

from polyhead.models.decoders import Segmentation
from polyhead.models.losses import segmentation_loss
from polyhead.models.network import MultiTaskNetwork
from polyhead.models.trunks.resnet import ResNet


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def network(size, widths=(8, 16, 24), stem="small"):
    torch.manual_seed(0)
    trunk = ResNet((1,) * len(widths), widths, stem=stem, maps=True)
    return MultiTaskNetwork(trunk, {"region": Segmentation(list(trunk.channels.values()), 4, size, width=8)})


@pytest.mark.parametrize("size", [(16, 16), (24, 16), (15, 21)])
@pytest.mark.parametrize(("widths", "stem"), [((8, 16, 24), "small"), ((8,), "small"), ((8, 16), "imagenet")])
def test_every_pixel_gets_its_logits(size, widths, stem):
    output = network(size, widths, stem)(image=noise(2, 3, *size))["region"]
    assert output.shape == (2, 4, *size)


def test_the_names_of_the_maps():
    assert Segmentation((8, 16), 4, (16, 16)).feature == ("layer1", "layer2")
    assert Segmentation((8, 16), 4, (16, 16), feature=["layer2", "layer4"]).feature == ("layer2", "layer4")


@pytest.mark.parametrize(("channels", "feature"), [((8, 16), ("layer1",)), ((), None), ((8,), "m")])
def test_names_and_channels_must_agree(channels, feature):
    with pytest.raises(ValueError, match="one of each") as caught:
        Segmentation(channels, 4, (16, 16), feature)
    assert str(caught.value) == f"channels {channels} and feature {feature!r}: give one of each per map"


def test_a_pyramid_of_one_value_per_map_is_summed():
    """Laterals of ones, a smoothing that only passes: the logits are the sum of the maps, each enlarged."""
    head = Segmentation((1, 1, 1), 2, (4, 4), width=1).eval()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.zero_()
        for lateral in head.lateral:
            lateral.weight.fill_(1)
        head.smooth[0].weight[0, 0, 1, 1] = 1
        head.smooth[1].weight.fill_((1 + head.smooth[1].eps) ** 0.5)
        head.classify.weight[1] = 1
    fine, middle, coarse = torch.arange(16.0).view(1, 1, 4, 4), torch.tensor([[[[0.0, 100], [200, 300]]]]), 1000.0
    output = head(fine, middle, torch.full((1, 1, 1, 1), coarse))
    expected = fine + middle.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3) + coarse
    torch.testing.assert_close(output[:, 1:], expected)
    assert output[:, 0].abs().max() == 0


def test_every_map_gets_a_gradient():
    maps = [noise(2, depth, side, side).requires_grad_() for depth, side in ((8, 8), (16, 4), (24, 2))]
    Segmentation((8, 16, 24), 3, (8, 8))(*maps).square().sum().backward()
    assert all(found.grad.abs().max() > 0 for found in maps)


def test_it_learns_the_regions_that_its_maps_hold():
    torch.manual_seed(0)
    coarse = noise(8, 4, 2, 2)
    region = (coarse[:, 0] > 0).long().repeat_interleave(4, dim=1).repeat_interleave(4, dim=2)
    maps, head = (noise(8, 4, 4, 4, seed=1), coarse), Segmentation((4, 4), 2, (8, 8), width=8)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.03)
    for _ in range(60):
        optimizer.zero_grad()
        segmentation_loss(head(*maps), region, dice=0.5).backward()
        optimizer.step()
    assert (head.eval()(*maps).argmax(dim=1) == region).float().mean() > 0.95


@pytest.mark.parametrize("size", [(16, 16), (15, 21)])
def test_a_traced_and_an_exported_graph_take_other_batches(size):
    model = network(size).eval()
    trunk, head, example = model.trunk, model.heads["region"], noise(2, 3, *size)

    class Graph(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.trunk, self.head = trunk, head

        def forward(self, image):
            maps = self.trunk(image)
            return self.head(*(maps[name] for name in self.head.feature))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch.jit is deprecated in favour of torch.export
        traced = torch.jit.trace(Graph(), (example,))
    program = torch.export.export(Graph(), (example,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},)).module()
    for batch in (1, 5):
        image = noise(batch, 3, *size, seed=batch)
        expected = model(image=image)["region"]
        torch.testing.assert_close(traced(image), expected)
        torch.testing.assert_close(program(image), expected, rtol=1e-4, atol=1e-5)
