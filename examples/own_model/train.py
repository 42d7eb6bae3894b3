"""Train the network as you would anywhere, on scikit-learn's real wine data, and save its weights as safetensors."""

import sys
from pathlib import Path

import torch
from net import build
from safetensors.torch import save_file, save_model
from sklearn.datasets import load_wine
from torch.nn import functional as F


def main(out: Path) -> None:
    torch.manual_seed(0)
    wine = load_wine()
    table = torch.tensor(wine.data, dtype=torch.float32)
    alcohol, rows, cultivar = table[:, 0], table[:, 1:], torch.tensor(wine.target)
    network = build()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(300):
        answer = network(rows)
        loss = F.cross_entropy(answer["cultivar"], cultivar) + F.mse_loss(answer["alcohol"], alcohol)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    out.mkdir(parents=True, exist_ok=True)
    save_model(network, out / "weights.safetensors")
    save_file({"measurements": rows[::3].contiguous()}, out / "samples.safetensors")
    print(f"loss {loss.item():.4f}; wrote {out}/weights.safetensors and samples.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
