import pytest
import torch
from torch import nn

from polyhead.models.trunks.mlp import MLP
from polyhead.models.trunks.resnet import BasicBlock, ResNet, resnet18


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def big():
    torch.manual_seed(0)
    return resnet18().eval()


def norm_names(prefix):
    return [f"{prefix}.{n}" for n in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")]


def torchvision_names(blocks, downsampled):
    """The names in torchvision's published ResNet state dicts, without `fc`, in their order."""
    names = ["conv1.weight", *norm_names("bn1")]
    for stage, count in enumerate(blocks, start=1):
        for block in range(count):
            place = f"layer{stage}.{block}"
            for i in (1, 2):
                names += [f"{place}.conv{i}.weight", *norm_names(f"{place}.bn{i}")]
            if block == 0 and stage in downsampled:
                names += [f"{place}.downsample.0.weight", *norm_names(f"{place}.downsample.1")]
    return names


# MLP


@pytest.mark.parametrize("widths", [(8,), (16, 8), (5, 7, 3)])
@pytest.mark.parametrize("shape", [(6,), (2, 3), (1, 2, 3)])
def test_mlp_flattens_each_row_and_ends_at_its_last_width(widths, shape):
    trunk = MLP(6, widths)
    assert trunk(noise(4, *shape)).shape == (4, widths[-1])
    assert trunk.out_features == widths[-1]


def test_mlp_has_one_linear_layer_per_width():
    linear = [module for module in MLP(6, (5, 7, 3)).modules() if isinstance(module, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linear] == [(6, 5), (5, 7), (7, 3)]


def test_mlp_is_linear_and_relu_once_per_width():
    trunk, x = MLP(6, (5, 3)), noise(4, 6)
    first, second = (module for module in trunk.modules() if isinstance(module, nn.Linear))
    hidden = (x @ first.weight.T + first.bias).clamp(min=0)
    torch.testing.assert_close(trunk(x), (hidden @ second.weight.T + second.bias).clamp(min=0))
    assert (trunk(x) >= 0).all()


def test_mlp_drops_features_in_training_only():
    trunk, x = MLP(6, (400,), dropout=0.5), noise(4, 6)
    whole = trunk.eval()(x)
    assert torch.equal(trunk(x), whole)
    torch.manual_seed(0)
    dropped = trunk.train()(x)
    positive = whole > 0
    share = (dropped[positive] == 0).float().mean()
    assert 0.4 < share < 0.6
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], 2 * whole[kept])


def test_mlp_without_dropout_is_the_same_in_training():
    trunk, x = MLP(6, (5,)), noise(4, 6)
    assert torch.equal(trunk.train()(x), trunk.eval()(x))


def test_mlp_without_widths_is_refused():
    with pytest.raises(ValueError, match=r"^an MLP trunk needs at least one width, got none$"):
        MLP(6, ())


# ResNet


def test_resnet18_has_the_published_number_of_parameters(big):
    # torchvision's resnet18 has 11 689 512, of which fc has 512 * 1000 + 1000.
    assert sum(p.numel() for p in big.parameters()) == 11_689_512 - 513_000 == 11_176_512
    assert big.out_features == 512


def test_resnet18_has_the_published_names_and_no_others(big):
    expected = torchvision_names((2, 2, 2, 2), downsampled={2, 3, 4})
    assert "layer2.0.downsample.0.weight" in expected
    assert len(expected) == 120  # torchvision's 122 without fc.weight and fc.bias
    assert list(big.state_dict()) == expected


def test_resnet18_has_the_published_shapes(big):
    shapes = {name: tuple(tensor.shape) for name, tensor in big.state_dict().items()}
    assert shapes["conv1.weight"] == (64, 3, 7, 7)
    assert shapes["layer1.0.conv1.weight"] == (64, 64, 3, 3)
    assert shapes["layer2.0.conv1.weight"] == (128, 64, 3, 3)
    assert shapes["layer2.0.downsample.0.weight"] == (128, 64, 1, 1)
    assert shapes["layer4.1.conv2.weight"] == (512, 512, 3, 3)
    assert shapes["layer4.1.bn2.running_var"] == (512,)


@pytest.mark.parametrize("pixels", [224, 64])
def test_resnet18_gives_512_features_at_any_size(big, pixels):
    with torch.inference_mode():
        assert big(noise(2, 3, pixels, pixels)).shape == (2, 512)


def test_resnet18_takes_any_number_of_channels():
    with torch.inference_mode():
        assert resnet18(in_channels=1).eval()(noise(1, 1, 64, 64)).shape == (1, 512)


def stage_sizes(trunk, x):
    sizes = []
    for name, module in trunk.named_children():
        if name.startswith("layer"):
            module.register_forward_hook(lambda _m, _i, out: sizes.append(tuple(out.shape[1:])))
    with torch.inference_mode():
        trunk.eval()(x)
    return sizes


@pytest.mark.parametrize(
    ("stem", "sizes"),
    [
        ("small", [(4, 32, 24), (8, 16, 12), (16, 8, 6)]),
        ("imagenet", [(4, 8, 6), (8, 4, 3), (16, 2, 2)]),
    ],
)
def test_each_stage_but_the_first_halves_the_resolution(stem, sizes):
    trunk = ResNet((1, 2, 1), (4, 8, 16), in_channels=2, stem=stem)
    assert stage_sizes(trunk, noise(1, 2, 32, 24)) == sizes


def test_the_small_stem_is_a_3x3_convolution_that_keeps_the_names():
    trunk = ResNet((1, 1), (4, 4), in_channels=1, stem="small")
    assert trunk.state_dict()["conv1.weight"].shape == (4, 1, 3, 3)
    assert list(trunk.state_dict()) == torchvision_names((1, 1), downsampled={2})


def test_features_are_the_mean_over_the_pixels_of_the_last_stage():
    trunk, last = ResNet((1, 1), (4, 8), stem="small").eval(), []
    trunk.layer2.register_forward_hook(lambda _m, _i, out: last.append(out))
    features = trunk(noise(2, 3, 8, 8))
    torch.testing.assert_close(features, last[0].mean(dim=(2, 3)))
    assert features.shape == (2, trunk.out_features) == (2, 8)


def test_a_block_adds_its_input_to_what_it_computes():
    block, x = BasicBlock(4, 4, stride=1).eval(), noise(2, 4, 6, 6)
    nn.init.zeros_(block.conv2.weight)
    assert block.downsample is None
    torch.testing.assert_close(block(x), x.clamp(min=0))


def test_a_block_is_two_convolutions_beside_the_identity():
    block, x = BasicBlock(3, 5, stride=2).eval(), noise(2, 3, 6, 6)
    for norm in (block.bn1, block.bn2, block.downsample[1]):
        nn.init.normal_(norm.bias)
    inner = block.bn2(block.conv2(block.bn1(block.conv1(x)).clamp(min=0)))
    torch.testing.assert_close(block(x), (inner + block.downsample(x)).clamp(min=0))
    assert block(x).shape == (2, 5, 3, 3)


def test_a_row_has_the_same_features_alone_and_in_a_batch():
    trunk, x = ResNet((1, 1), (4, 8), stem="small").eval(), noise(5, 3, 8, 8)
    with torch.inference_mode():
        torch.testing.assert_close(torch.cat([trunk(row[None]) for row in x]), trunk(x))


@pytest.mark.parametrize(
    ("blocks", "widths", "message"),
    [
        ((2, 2), (64,), "blocks (2, 2) and widths (64,): give one of each per stage"),
        ((2,), (64, 128), "blocks (2,) and widths (64, 128): give one of each per stage"),
        ((), (), "blocks () and widths (): give one of each per stage"),
    ],
)
def test_blocks_and_widths_must_go_together(blocks, widths, message):
    with pytest.raises(ValueError, match="per stage") as caught:
        ResNet(blocks, widths)
    assert str(caught.value) == message


@pytest.mark.parametrize("stem", ["large", "", "Small", None])
def test_an_unknown_stem_is_told_the_known_ones(stem):
    with pytest.raises(ValueError, match="stem") as caught:
        ResNet((1,), (4,), stem=stem)
    assert str(caught.value) == f"stem {stem!r} is not known (stems: imagenet, small)"
