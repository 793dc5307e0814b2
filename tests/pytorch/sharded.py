"""What each of two processes does in test_sharding.py: a few steps, sharded by FSDP2, beside the same steps alone."""

import copy
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.nn.functional import mse_loss

import gpa_nd
from gpa_nd.nn import CopyAttention, GatedCoarse
from gpa_nd.pyg import GraphAttention

WHOLE = StateDictOptions(full_state_dict=True)


class Model(nn.Module):
    """Two blocks of different sizes, one of them gated, and a layer for graphs."""

    def __init__(self) -> None:
        super().__init__()
        gpa = gpa_nd.image(downsample=2, cells=2, kappa=3)
        self.blocks = nn.ModuleList(
            [
                CopyAttention(6, 5, 6, gpa, heads=2, fuse="residual"),
                CopyAttention(6, 5, 6, GatedCoarse(gpa, 6), fuse="residual"),
            ]
        )
        self.nodes = GraphAttention(6, heads=2, kappa=3)
        self.layout = gpa.layout((8, 6), (8, 6))

    def forward(self, target: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            target = block(target, source)
        flat = target.flatten(2).mT
        return torch.stack([self.nodes(x, self.layout) for x in flat])


def shard(model: Model, dtype: torch.dtype | None = None) -> Model:
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for part in (*model.blocks, model.nodes, model):
        # FSDP2 casts dataclasses by making them anew, which a layout is not to be.
        policy = MixedPrecisionPolicy(param_dtype=dtype, cast_forward_inputs=part is not model.nodes)
        fully_shard(part, mesh=mesh, mp_policy=policy)
    return model


def main() -> None:
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(0)  # every process draws the same weights and the same batches
    alone = Model().double()
    begun = copy.deepcopy(alone.state_dict())
    sharded = shard(copy.deepcopy(alone))
    optimizers = [torch.optim.AdamW(model.parameters(), lr=0.01) for model in (alone, sharded)]
    for _ in range(3):
        target, source = torch.randn(4, 6, 8, 6).double(), torch.randn(4, 5, 8, 6).double()
        wanted = torch.randn(4, 48, 6).double()
        mine = slice(rank * 4 // world, (rank + 1) * 4 // world)
        losses = [mse_loss(alone(target, source), wanted), mse_loss(sharded(target[mine], source[mine]), wanted[mine])]
        for optimizer, loss in zip(optimizers, losses, strict=True):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        of_all = losses[1].detach().clone()
        dist.all_reduce(of_all)
        assert (of_all / world - losses[0]).abs() < 1e-12
        of_alone = [x.grad for x in alone.parameters()]
        of_sharded = [x.grad.full_tensor() for x in sharded.parameters()]
        assert all((a - b).abs().max() < 1e-12 for a, b in zip(of_alone, of_sharded, strict=True))
    assert all(x.to_local().numel() < x.numel() for x in sharded.parameters() if len(x) > 1)
    whole, expected = get_model_state_dict(sharded, options=WHOLE), alone.state_dict()
    assert list(whole) == list(expected)
    assert all((whole[name] - expected[name]).abs().max() < 1e-10 for name in expected)
    assert any((begun[name] - expected[name]).abs().max() > 1e-3 for name in expected)
    again = shard(Model().double())
    set_model_state_dict(again, whole, options=WHOLE)
    assert again(target, source).equal(sharded(target, source))
    half = shard(Model(), torch.bfloat16)
    assert half(target.float(), source.float()).dtype == torch.bfloat16
    Path(f"{rank}.done").touch()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
