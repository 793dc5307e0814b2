"""One long sequence over all processes: ``torchrun --nproc-per-node 4 -m examples.context_parallel``.

Every stretch of the sequence has a twin, with noise, somewhere else in it. A layer of attention learns to look at it
and to copy its values. Each process holds its own rows of the sequence; the losses are those of one process.
"""

import argparse

import torch
import torch.distributed as dist
from torch import nn

import gpa_nd
from gpa_nd.distributed import ContextParallel

CHANNELS = 16


def main() -> None:
    """Train a few steps, and print the loss."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=int, default=65536, help="elements of the sequence (default: 65536)")
    parser.add_argument("--steps", type=int, default=20, help="steps of training (default: 20)")
    options = parser.parse_args()

    cuda = torch.cuda.is_available()
    dist.init_process_group("nccl" if cuda else "gloo")
    device = torch.device("cuda", dist.get_node_local_rank()) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)

    attention = ContextParallel(gpa_nd.audio(downsample=16, cells=options.length // 64, kappa=8))

    # Every process would read its own rows of a file. Here all of them draw the whole, and keep their own.
    rng = torch.Generator().manual_seed(0)
    values = torch.randn(1, options.length // 64, CHANNELS, generator=rng).repeat_interleave(64, dim=1)
    noisy = values + 0.5 * torch.randn(values.shape, generator=rng)
    places = torch.randperm(options.length // 64, generator=rng)  # of the twins, stretch by stretch
    wanted, keys = (x.unflatten(1, (-1, 64))[:, places].flatten(1, 2) for x in (values, noisy)), noisy
    target, x = (attention.shard(each, axis=1).to(device) for each in wanted)
    keys, values = (attention.shard(each, axis=1).to(device) for each in (keys, values))

    to_q, to_k = (nn.Linear(CHANNELS, CHANNELS, bias=False, device=device) for _ in range(2))
    weights = [to_q.weight, to_k.weight]  # the same everywhere
    for weight in weights:
        nn.init.eye_(weight)
    optimizer = torch.optim.Adam(weights, lr=0.05)
    for step in range(options.steps):
        out = attention(to_q(x)[:, None], to_k(keys)[:, None], values[:, None])[:, 0]  # one head
        loss = (out - target).square().sum() / (options.length * CHANNELS)  # its own rows' part of the mean over all
        optimizer.zero_grad()
        loss.backward()
        for each in (*(weight.grad for weight in weights), total := loss.detach()):
            dist.all_reduce(each)  # the sum over all processes
        optimizer.step()
        if dist.get_rank() == 0:
            print(f"step {step}  loss {total:.4f}", flush=True)
    if dist.get_rank() == 0:
        print(f"came to this process: {attention.traffic.share:.0%} of all keys and values")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
