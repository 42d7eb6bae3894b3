import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from polyhead.models.trunks.pretrained import PretrainedError
from polyhead.models.trunks.resnet import BasicBlock, Bottleneck, ResNet, resnet18, resnet34, resnet50


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def big():
    torch.manual_seed(0)
    return resnet18().eval()


def norm(prefix, channels):
    names = ("weight", "bias", "running_mean", "running_var")
    return {**{f"{prefix}.{name}": (channels,) for name in names}, f"{prefix}.num_batches_tracked": ()}


def torchvision(blocks, convolutions, expansion, widths=(64, 128, 256, 512), stem=(3, 7)):
    """Names and shapes in torchvision's published ResNet state dicts, without `fc`, in their order.

    `convolutions` are the kernels in a block; each but the last gives the stage's width, the last `expansion` times it.
    """
    channels, kernel = stem
    shapes = {"conv1.weight": (widths[0], channels, kernel, kernel), **norm("bn1", widths[0])}
    before = widths[0]
    for stage, (count, width) in enumerate(zip(blocks, widths, strict=True), start=1):
        for block in range(count):
            place, inner = f"layer{stage}.{block}", before
            for i, size in enumerate(convolutions, start=1):
                out = width * expansion if i == len(convolutions) else width
                shapes |= {f"{place}.conv{i}.weight": (out, inner, size, size), **norm(f"{place}.bn{i}", out)}
                inner = out
            if block == 0 and (stage > 1 or before != inner):
                shapes |= {f"{place}.downsample.0.weight": (inner, before, 1, 1)}
                shapes |= norm(f"{place}.downsample.1", inner)
            before = inner
    return shapes


# Network, what torchvision has, parameters with its classifier of 1 000 labels, tensors without it.
PUBLISHED = [
    (resnet18, torchvision((2, 2, 2, 2), (3, 3), 1), 11_689_512, 120),
    (resnet34, torchvision((3, 4, 6, 3), (3, 3), 1), 21_797_672, 216),
    (resnet50, torchvision((3, 4, 6, 3), (1, 3, 1), 4), 25_557_032, 318),
]


@pytest.mark.parametrize(("make", "shapes", "parameters", "tensors"), PUBLISHED, ids=["18", "34", "50"])
def test_a_resnet_has_the_published_names_shapes_and_number_of_parameters(make, shapes, parameters, tensors):
    with torch.device("meta"):
        trunk = make()
    own = {name: tuple(tensor.shape) for name, tensor in trunk.state_dict().items()}
    assert list(own.items()) == list(shapes.items())
    assert len(own) == tensors
    classifier = trunk.out_features * 1000 + 1000
    assert sum(p.numel() for p in trunk.parameters()) + classifier == parameters


def test_resnet18_has_512_features_and_11_2_million_parameters(big):
    assert sum(p.numel() for p in big.parameters()) == 11_689_512 - 513_000 == 11_176_512
    assert big.out_features == 512


def test_resnet18_has_the_published_shapes(big):
    shapes = {name: tuple(tensor.shape) for name, tensor in big.state_dict().items()}
    assert shapes["conv1.weight"] == (64, 3, 7, 7)
    assert shapes["layer1.0.conv1.weight"] == (64, 64, 3, 3)
    assert shapes["layer2.0.conv1.weight"] == (128, 64, 3, 3)
    assert shapes["layer2.0.downsample.0.weight"] == (128, 64, 1, 1)
    assert shapes["layer4.1.conv2.weight"] == (512, 512, 3, 3)
    assert shapes["layer4.1.bn2.running_var"] == (512,)


def test_resnet50_has_the_published_shapes():
    with torch.device("meta"):
        trunk = resnet50()
    shapes = {name: tuple(tensor.shape) for name, tensor in trunk.state_dict().items()}
    assert shapes["layer1.0.conv1.weight"] == (64, 64, 1, 1)
    assert shapes["layer1.0.downsample.0.weight"] == (256, 64, 1, 1)
    assert shapes["layer1.1.conv1.weight"] == (64, 256, 1, 1)
    assert shapes["layer2.0.conv2.weight"] == (128, 128, 3, 3)
    assert shapes["layer4.2.conv3.weight"] == (2048, 512, 1, 1)
    assert shapes["layer4.0.downsample.0.weight"] == (2048, 1024, 1, 1)
    # V1.5: the 3x3 convolution has the stride.
    assert [getattr(trunk.layer2[0], f"conv{i}").stride for i in (1, 2, 3)] == [(1, 1), (2, 2), (1, 1)]


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
    assert list(trunk.state_dict()) == list(torchvision((1, 1), (3, 3), 1, widths=(4, 4), stem=(1, 3)))


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


def test_a_bottleneck_is_three_convolutions_beside_the_identity():
    block, x = Bottleneck(3, 5, stride=2).eval(), noise(2, 3, 6, 6)
    for norm in (block.bn1, block.bn2, block.bn3, block.downsample[1]):
        nn.init.normal_(norm.bias)
    middle = block.bn2(block.conv2(block.bn1(block.conv1(x)).clamp(min=0))).clamp(min=0)
    torch.testing.assert_close(block(x), (block.bn3(block.conv3(middle)) + block.downsample(x)).clamp(min=0))
    assert block(x).shape == (2, 20, 3, 3)
    same = Bottleneck(20, 5, stride=1).eval()
    nn.init.zeros_(same.conv3.weight)
    assert same.downsample is None
    torch.testing.assert_close(same(block(x)), block(x))


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


# Maps and blocks


@pytest.mark.parametrize(("block", "channels"), [(BasicBlock, (4, 8, 16)), (Bottleneck, (16, 32, 64))])
def test_with_maps_every_stage_is_returned_beside_the_pooled_features(block, channels):
    trunk = ResNet((1, 2, 1), (4, 8, 16), stem="small", block=block, maps=True).eval()
    assert trunk.channels == dict(zip(("layer1", "layer2", "layer3"), channels, strict=True))
    output = trunk(noise(2, 3, 16, 12))
    sizes = ((16, 12), (8, 6), (4, 3))
    shapes = {name: (2, trunk.channels[name], *size) for name, size in zip(trunk.channels, sizes, strict=True)}
    assert {name: tuple(value.shape) for name, value in output.items()} == {"pooled": (2, trunk.out_features), **shapes}
    torch.testing.assert_close(output["pooled"], output["layer3"].mean(dim=(2, 3)))


def test_maps_are_what_the_next_stage_is_given_and_change_no_feature():
    trunk, x = ResNet((1, 1), (4, 8), stem="small", maps=True).eval(), noise(2, 3, 8, 8)
    output = trunk(x)
    torch.testing.assert_close(trunk.layer2(output["layer1"]), output["layer2"])
    trunk.maps = False
    assert torch.equal(trunk(x), output["pooled"])


def test_blocks_are_the_stem_and_the_stages_from_bottom_to_top():
    trunk = ResNet((1, 2), (4, 8), block=Bottleneck)
    stem, *stages = trunk.blocks()
    assert stages == [trunk.layer1, trunk.layer2]
    assert list(stem) == [trunk.conv1, trunk.bn1]
    held = [p for block in trunk.blocks() for p in block.parameters()]
    assert len(held) == len(set(held)) == len(list(trunk.parameters()))


# torchvision's weights


def published(trunk, **changes):
    """A state dict as torchvision publishes them for this network, of other values than its own."""
    torch.manual_seed(1)
    state = {n: torch.rand_like(t) if t.is_floating_point() else t + 7 for n, t in trunk.state_dict().items()}
    state |= {"fc.weight": noise(1000, trunk.out_features), "fc.bias": noise(1000)}
    return {name: tensor for name, tensor in (state | changes).items() if tensor is not None}


@pytest.fixture
def small():
    return ResNet((1, 1), (4, 8), block=Bottleneck)


@pytest.mark.parametrize("file", [False, True])
def test_torchvisions_weights_load_by_name_without_the_classifier(small, tmp_path, file):
    state = published(small)
    if file:
        save_file(state, tmp_path / "resnet.safetensors")
    small.load_torchvision(tmp_path / "resnet.safetensors" if file else state)
    own = small.state_dict()
    assert set(state) - set(own) == {"fc.weight", "fc.bias"}
    assert all(torch.equal(own[name], state[name]) for name in own)


def test_weights_from_before_batches_were_counted_load(small):
    state = {name: t for name, t in published(small).items() if not name.endswith("num_batches_tracked")}
    small.load_torchvision(state)
    assert torch.equal(small.layer2[0].bn3.running_var, state["layer2.0.bn3.running_var"])
    assert small.bn1.num_batches_tracked == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"layer1.0.bn2.bias": None, "layer2.0.conv1.weight": None},
            "the state dict: lacks tensor 'layer1.0.bn2.bias' (and 1 more): "
            "give the weights of a network of the same layout",
        ),
        (
            {"layer3.0.conv1.weight": noise(4)},
            "the state dict: has unexpected tensor 'layer3.0.conv1.weight': "
            "give the weights of a network of the same layout",
        ),
        (
            {"layer1.0.conv1.weight": noise(4, 4, 3, 3)},
            "the state dict: tensor 'layer1.0.conv1.weight' has shape [4, 4, 3, 3], the network wants [4, 4, 1, 1]: "
            "give the weights of a network of the same sizes",
        ),
        (
            {"bn1.weight": torch.ones(4, dtype=torch.int8)},
            "the state dict: tensor 'bn1.weight' is torch.int8, not floating point: "
            "give weights that are not quantised",
        ),
    ],
)
def test_weights_of_another_network_are_refused_and_change_nothing(small, changes, message):
    before = {name: tensor.clone() for name, tensor in small.state_dict().items()}
    with pytest.raises(PretrainedError) as caught:
        small.load_torchvision(published(small, **changes))
    assert str(caught.value) == message
    assert all(torch.equal(tensor, before[name]) for name, tensor in small.state_dict().items())


def test_weights_for_colour_are_refused_by_a_network_for_gray_images(small):
    gray = ResNet((1, 1), (4, 8), in_channels=1, block=Bottleneck)
    with pytest.raises(PretrainedError) as caught:
        gray.load_torchvision(published(small))
    assert str(caught.value) == (
        "the state dict: 'conv1.weight' is for images of 3 channels, this network takes 1: "
        "make it with in_channels=3 and give it such images"
    )


def test_a_file_that_holds_no_safetensors_is_refused(small, tmp_path):
    path = tmp_path / "resnet.safetensors"
    path.write_bytes(b"no weights")
    for there in (True, False):
        with pytest.raises(PretrainedError, match=r"cannot be read as safetensors .*: give a whole safetensors file$"):
            small.load_torchvision(path)
        if there:
            path.unlink()
