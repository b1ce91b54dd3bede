"""Shapes, sizes and the standardization every network starts with."""

from collections import namedtuple

import numpy as np
import pytest
import torch
from torch import nn

from noisefilter.errors import ParameterError
from noisefilter.networks import (
    MLP,
    PreActResNet18,
    SevenLayerCNN,
    SmallCNN,
    Standardize,
    TorchvisionClassifier,
    WideResNet28_2,
    _PreActBlock,
    default_network,
    network_arguments,
)


def n_parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def trains_one_step(module, x, n_classes=3):
    """The loss of these very rows falls, and every parameter gets a gradient."""
    torch.manual_seed(0)
    module.train()
    y = torch.arange(len(x)) % n_classes
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-3)
    loss = nn.functional.cross_entropy(module(x), y)
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())
    optimizer.step()
    torch.manual_seed(0)
    assert nn.functional.cross_entropy(module(x), y) < loss


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 8, 12, 15, 16, 17, 28, 32, 33, 64])
@pytest.mark.parametrize("channels", [1, 3])
def test_small_cnn_takes_any_size(size, channels):
    module = SmallCNN(channels, 5, image_size=size).eval()
    assert module(torch.rand(2, channels, size, size)).shape == (2, 5)
    assert module(torch.rand(1, channels, size, size + 9)).shape == (1, 5)


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (lambda: MLP(6, 3, noise=0.0, dropout=0.0), (12, 6)),
        (lambda: SmallCNN(3, 3, image_size=16), (12, 3, 16, 16)),
        (lambda: SevenLayerCNN(3, 3, image_size=16), (12, 3, 16, 16)),
        (lambda: SevenLayerCNN(1, 3, image_size=8, hidden=32), (12, 1, 8, 8)),
        (lambda: PreActResNet18(3, 3, width=8), (12, 3, 16, 16)),
        (lambda: WideResNet28_2(1, 3), (6, 1, 8, 8)),
    ],
    ids=["MLP", "SmallCNN", "SevenLayerCNN", "SevenLayerCNN-hidden", "PreActResNet18", "WideResNet28_2"],
)
def test_trains_one_step(module, shape):
    torch.manual_seed(0)
    trains_one_step(module(), torch.rand(shape))


def test_published_sizes():
    assert n_parameters(PreActResNet18(3, 10)) == pytest.approx(11.17e6, rel=1e-3)
    assert n_parameters(WideResNet28_2(3, 10)) == pytest.approx(1.47e6, rel=5e-3)
    layers = [
        m for m in WideResNet28_2(3, 10).modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)
    ]
    assert len(layers) == 1 + 24  # depth 28 = 6 * 4 + 4: the stem, 24 in blocks, and three shortcuts of 1x1


def test_seven_layers():
    module = SevenLayerCNN(3, 10)
    convolutions = [m for m in module.modules() if isinstance(m, nn.Conv2d)]
    assert [c.out_channels for c in convolutions] == [64, 64, 128, 128, 196, 16]
    assert {c.kernel_size for c in convolutions} == {(3, 3)}
    kinds = [type(m).__name__ for m in module.body]
    assert kinds == ["Sequential", "Sequential", "MaxPool2d"] * 3 + ["AdaptiveAvgPool2d", "Flatten"]
    assert (module.head.in_features, module.head.out_features) == (256, 10)
    with_head = SevenLayerCNN(3, 10, hidden=512)
    linear = [m for m in with_head.modules() if isinstance(m, nn.Linear)]
    assert [(m.in_features, m.out_features) for m in linear] == [(256, 512), (512, 10)]
    assert all((m.bias == 0).all() for m in linear)


def test_seven_layers_pool_nothing_away_from_a_square():
    module = SevenLayerCNN(3, 10).eval()
    x = torch.rand(2, 3, 32, 32)
    without = nn.Sequential(*[m for m in module.body if not isinstance(m, nn.AdaptiveAvgPool2d)])
    assert torch.equal(module(x), module.head(without(x)))
    assert SevenLayerCNN(3, 10, image_size=16).eval()(torch.rand(2, 3, 16, 40)).shape == (2, 10)
    with pytest.raises(ParameterError, match="image_size must be at least 8"):
        SevenLayerCNN(3, 10, image_size=7)


@pytest.mark.parametrize("channels", [1, 3])
def test_torchvision(channels):
    module = TorchvisionClassifier("resnet18", channels, 4).eval()
    x = torch.rand(2, channels, 32, 32)
    assert module(x).shape == (2, 4)
    np.testing.assert_allclose(module(x).detach(), module.model(x.expand(-1, 3, -1, -1)).detach())
    with pytest.raises(ParameterError, match="n_channels must be 1 or 3"):
        TorchvisionClassifier("resnet18", 4, 4)


class TwoHeads(nn.Module):
    """Gives what torchvision's Inception gives in training."""

    def forward(self, x):
        return namedtuple("Outputs", "logits aux_logits")(x.mean((2, 3)), None)


def test_torchvision_with_auxiliary_heads(monkeypatch):
    monkeypatch.setattr("torchvision.models.get_model", lambda name, **_: TwoHeads())
    x = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(TorchvisionClassifier("two", 3, 3)(x), x.mean((2, 3)))


def test_preactivated_block_by_its_formula():
    torch.manual_seed(0)
    block = _PreActBlock(2, 4, 2).eval()
    block.bn1.running_mean += 0.5
    x = torch.randn(1, 2, 6, 6)
    active = torch.relu(block.bn1(x))
    out = block.conv2(torch.relu(block.bn2(block.conv1(active))))
    torch.testing.assert_close(block(x), out + block.shortcut(active))


def test_standardize_keeps_the_digits_of_large_offsets():
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(100, 2)) * [1e-3, 5] + [1e9, -3])
    layer = Standardize((2,))
    layer.set(x.mean(0), x.std(0, correction=0))
    out = layer(x)
    assert out.dtype == torch.float32
    np.testing.assert_allclose(out.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(out.std(0, correction=0), 1, rtol=1e-4)


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e9 / 3])
def test_standardize_only_centers_a_constant_column(constant):
    column = torch.full((1001, 1), constant, dtype=torch.float64)
    layer = Standardize((1,))
    layer.set(column.mean(0), (column - column.mean(0)).square().mean(0).sqrt() + 1e-16 * constant)
    moved = layer(column + 1)
    np.testing.assert_allclose(moved, 1, atol=1e-6)


def test_standardize_channels_and_bytes():
    layer = Standardize((3, 1, 1))
    layer.set(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 4.0, 8.0]))
    x = torch.full((2, 3, 4, 4), 9, dtype=torch.uint8)
    assert layer(x)[0, :, 0, 0].tolist() == [4.0, 1.75, 0.75]
    assert layer(x).dtype == torch.float32
    assert set(layer.state_dict()) == {"mean", "scale"}  # saved with the weights


def test_mlp_is_noisy_in_training_only():
    torch.manual_seed(0)
    module = MLP(4, 3, dropout=0.0)
    x = torch.rand(50, 4)
    assert not torch.equal(module(x), module(x))
    module.eval()
    assert torch.equal(module(x), module(x))
    noise = module.body[0].train()(torch.zeros(2000, 4))
    assert noise.std() == pytest.approx(0.5, rel=0.05)


def test_dropout_leaves_out_its_share_and_scales_the_rest():
    torch.manual_seed(0)
    dropout = MLP(4, 3, dropout=0.3).body[4].train()
    x = torch.ones(1001, 37, requires_grad=True)
    out = dropout(x)
    out.sum().backward()
    kept = out > 0
    assert kept.float().mean() == pytest.approx(0.7, abs=0.01)
    assert kept.float().mean(0).min() > 0.6 and kept.float().mean(1).min() > 0.3  # everywhere alike
    torch.testing.assert_close(out[kept], torch.full_like(out[kept], 1 / 0.7), rtol=1e-4, atol=0)
    assert torch.equal(x.grad, out.detach())
    assert not torch.equal(dropout(x), out)
    torch.manual_seed(0)
    first = dropout(x)
    torch.manual_seed(0)
    assert torch.equal(dropout(x), first)
    assert torch.equal(dropout.eval()(x), x)


def test_arguments_by_name():
    assert network_arguments(MLP, (7,), 3) == {"n_inputs": 7, "n_classes": 3}
    assert network_arguments(SmallCNN, (3, 20, 16), 3) == {"n_channels": 3, "image_size": 16, "n_classes": 3}
    assert network_arguments(PreActResNet18, (1, 28, 28), 4) == {"n_channels": 1, "n_classes": 4}
    with pytest.raises(ParameterError, match=r"SmallCNN must be fed images, got rows of shape \(7,\)"):
        network_arguments(SmallCNN, (7,), 3)
    with pytest.raises(ParameterError, match=r"MLP must be fed rows of shape \(d,\)"):
        network_arguments(MLP, (3, 8, 8), 3)


def test_default_choice():
    assert default_network((9,)) is MLP
    assert default_network((1, 8, 8)) is SmallCNN
