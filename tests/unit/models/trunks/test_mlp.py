import pytest
import torch
from torch import nn

from polyhead.models.trunks.mlp import MLP, SharedMatrix


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


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


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_mlp_blocks_are_its_layers_from_bottom_to_top(dropout):
    trunk, x = MLP(6, (5, 7, 3), dropout), noise(4, 6)
    blocks = trunk.eval().blocks()
    assert [[p.shape[0] for p in block.parameters()] for block in blocks] == [[5, 5], [7, 7], [3, 3]]
    assert {p for block in blocks for p in block.parameters()} == set(trunk.parameters())
    assert torch.equal(nn.Sequential(*blocks)(x), trunk(x))


# SharedMatrix


@pytest.mark.parametrize("shape", [(6,), (2, 3)])
def test_a_shared_matrix_is_one_product(shape):
    trunk, x = SharedMatrix(6, 4), noise(5, *shape)
    torch.testing.assert_close(trunk(x), x.flatten(1) @ trunk.matrix)
    assert trunk.out_features == 4
    assert [tuple(p.shape) for p in trunk.parameters()] == [(6, 4)]
    assert trunk.blocks() == [trunk]


def test_the_weights_of_all_tasks_have_the_rank_of_the_shared_matrix():
    trunk, x = SharedMatrix(20, 3), noise(50, 20)
    heads = [nn.Linear(3, 1, bias=False) for _ in range(12)]
    weights = trunk.matrix @ torch.cat([head.weight for head in heads]).T
    assert torch.linalg.matrix_rank(weights) == 3
    torch.testing.assert_close(torch.cat([head(trunk(x)) for head in heads], dim=1), x @ weights)


def test_a_shared_matrix_starts_orthonormal_without_penalty():
    trunk = SharedMatrix(20, 7)
    torch.testing.assert_close(trunk.matrix.T @ trunk.matrix, torch.eye(7))
    torch.testing.assert_close(trunk.penalty(), torch.zeros(()), atol=1e-9, rtol=0)


def test_the_penalty_is_the_distance_of_the_gram_matrix_from_the_identity():
    trunk = SharedMatrix(3, 2)
    with torch.no_grad():
        trunk.matrix.copy_(torch.tensor([[1.0, 2.0], [0.0, 1.0], [0.0, 0.0]]))
    # The Gram matrix is [[1, 2], [2, 5]]: off the identity by 0, 2, 2 and 4.
    assert trunk.penalty().item() == 24.0


def test_descending_the_penalty_makes_the_columns_orthonormal():
    torch.manual_seed(0)
    trunk = SharedMatrix(8, 3)
    nn.init.normal_(trunk.matrix, std=0.5)
    optimizer = torch.optim.SGD(trunk.parameters(), lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        trunk.penalty().backward()
        optimizer.step()
    torch.testing.assert_close(trunk.matrix.T @ trunk.matrix, torch.eye(3), atol=1e-4, rtol=0)


def test_joint_sparsity_is_the_squared_2_1_norm_over_all_tasks():
    first, second = torch.tensor([[3.0, 0.0, 1.0]]), torch.tensor([[0.0, 0.0, 2.0], [4.0, 0.0, 2.0]])
    # The columns' norms over the three outputs: 5, 0, 3.
    assert SharedMatrix.joint_sparsity([first, second]).item() == 64.0


def test_joint_sparsity_is_least_at_the_singular_vectors_where_it_is_the_squared_trace_norm():
    weights = noise(9, 6)  # [in_features, tasks]
    left, singular, _ = torch.linalg.svd(weights, full_matrices=False)
    trace_norm = singular.sum()
    torch.testing.assert_close(SharedMatrix.joint_sparsity([(left.T @ weights).T]), trace_norm.square())
    for seed in range(20):
        rotation = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(seed)))[0]
        shared = left @ rotation
        assert SharedMatrix.joint_sparsity([(shared.T @ weights).T]) > trace_norm.square()


def test_joint_sparsity_of_no_heads_is_refused():
    with pytest.raises(ValueError, match=r"got none: give each linear head's weight$"):
        SharedMatrix.joint_sparsity([])


@pytest.mark.parametrize("rank", [0, -1, 7])
def test_a_rank_that_cannot_be_is_refused(rank):
    with pytest.raises(ValueError, match=rf"must lie between 1 and its 6 input features, got {rank}$"):
        SharedMatrix(6, rank)
