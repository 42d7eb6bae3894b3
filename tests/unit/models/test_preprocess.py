import pytest
import torch

from polyhead.models.preprocess import ImagePreprocess, Preprocess
from polyhead.models.spec import ModelSpec


def inputs_of(**inputs):
    return ModelSpec.parse(
        {"name": "m", "version": "1", "inputs": inputs, "heads": {"h": {"kind": "regression"}}}
    ).inputs


def image(**content):
    return inputs_of(x={"kind": "image", "size": [2, 2], **content})["x"]


def test_gray_pixels_become_normalised_floats():
    module = ImagePreprocess(image(channels="gray", mean=[0.2], std=[0.5]))
    pixels = torch.tensor([[[[0], [51]], [[102], [255]]]], dtype=torch.uint8)
    result = module(pixels)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, torch.tensor([[[[-0.4, 0.0], [0.4, 1.6]]]]))


def test_every_rgb_channel_has_its_own_mean_and_deviation():
    module = ImagePreprocess(image(mean=[0.0, 0.2, 0.4], std=[1.0, 0.5, 0.25]))
    pixels = torch.tensor([[[[255, 255, 255], [0, 0, 0]], [[51, 102, 153], [204, 51, 102]]]], dtype=torch.uint8)
    expected = [[[1.0, 0.0], [0.2, 0.8]], [[1.6, -0.4], [0.4, 0.0]], [[2.4, -1.6], [0.8, 0.0]]]
    torch.testing.assert_close(module(pixels), torch.tensor([expected]))


def test_one_mean_and_deviation_hold_for_all_channels():
    pixels = torch.arange(2 * 2 * 2 * 3, dtype=torch.uint8).reshape(2, 2, 2, 3)
    one = ImagePreprocess(image(mean=[0.3], std=[0.6]))
    three = ImagePreprocess(image(mean=[0.3] * 3, std=[0.6] * 3))
    assert torch.equal(one(pixels), three(pixels))


@pytest.mark.parametrize("channels", ["rgb", "bgr"])
def test_height_width_channels_become_channels_height_width(channels):
    module = ImagePreprocess(image(channels=channels))
    pixels = torch.randint(0, 256, (2, 3, 5, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    result = module(pixels)
    assert result.shape == (2, 3, 3, 5)
    for row, y, x, channel in [(0, 0, 0, 0), (1, 2, 4, 2), (0, 1, 3, 1)]:
        assert result[row, channel, y, x] == pytest.approx(pixels[row, y, x, channel].item() / 255)


def test_the_constants_stay_out_of_the_state_dict_and_move_with_the_module():
    module = Preprocess(inputs_of(a={"kind": "image", "size": [2, 2], "mean": [0.1, 0.2, 0.3]}))
    assert dict(module.state_dict()) == {}
    assert list(module.parameters()) == []
    buffers = {name: tuple(b.shape) for name, b in module.named_buffers()}
    assert buffers == {"images.a.mean": (1, 3, 1, 1), "images.a.std": (1, 3, 1, 1)}
    assert {b.dtype for b in module.buffers()} == {torch.float32}
    assert {b.device.type for b in module.to("meta").buffers()} == {"meta"}


def test_every_image_has_its_own_constants_and_anything_else_is_left_alone():
    module = Preprocess(
        inputs_of(
            near={"kind": "image", "size": [2, 2], "channels": "gray", "mean": [0.2]},
            motion={"kind": "tensor", "shape": [3]},
            far={"kind": "image", "size": [2, 2], "channels": "gray", "std": [0.1]},
        )
    )
    pixels, motion = torch.full((1, 2, 2, 1), 51, dtype=torch.uint8), torch.tensor([[1.0, -2.0, 300.0]])
    result = module({"motion": motion, "far": pixels, "near": pixels})
    assert list(result) == ["motion", "far", "near"]
    assert result["motion"] is motion
    torch.testing.assert_close(result["near"], torch.zeros(1, 1, 2, 2))
    torch.testing.assert_close(result["far"], torch.full((1, 1, 2, 2), 2.0))


@pytest.mark.parametrize("name", ["values", "type", "keys", "items", "half", "float"])
def test_an_image_may_be_named_like_a_method(name):
    module = Preprocess(inputs_of(**{name: {"kind": "image", "size": [2, 2], "channels": "gray", "mean": [0.2]}}))
    result = module({name: torch.full((1, 2, 2, 1), 51, dtype=torch.uint8)})
    assert list(result) == [name]
    torch.testing.assert_close(result[name], torch.zeros(1, 1, 2, 2))
