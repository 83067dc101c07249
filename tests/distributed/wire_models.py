"""Models, batches and gradients for ranks that train together."""

# No annotations as text: torch compares those of a hook with its own types.

import hashlib
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import GradBucket
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from cosmic.distributed import CompressionState, compress_hook
from helpers import bits

ROWS, WIDTH, CLASSES = 200, 48, 100
#: Below it lie the norm and the biases, above it the three matrices.
MIN_NUMEL = 1000


class Net(nn.Module):
    """Three matrices that are encoded, a norm and biases that are not, and a head that can rest."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(ROWS, WIDTH)
        self.hidden = nn.Linear(WIDTH, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, CLASSES)
        self.other = nn.Linear(WIDTH, CLASSES)

    def forward(self, ids: Tensor, use_other: bool = False) -> Tensor:
        x = self.norm(self.hidden(self.table(ids)).relu())
        out: Tensor = (self.other if use_other else self.head)(x)
        return out


def loss_of(model: nn.Module, rank: int, step: int, use_other: bool = False) -> Tensor:
    """Of a batch that each rank has at each step for itself."""
    generator = torch.Generator().manual_seed(1000 * step + rank)
    ids = torch.randint(ROWS, (16,), generator=generator)
    return cross_entropy(model(ids, use_other).float(), ids % CLASSES)


def ddp_of(model: nn.Module, **options: Any) -> DistributedDataParallel:
    return DistributedDataParallel(model, **{"find_unused_parameters": True, **options})


class Seen:
    """A hook that compresses, and adds up what went in and what came out, by parameter."""

    def __init__(self, ddp: DistributedDataParallel, state: CompressionState) -> None:
        self.state = state
        self.given: dict[str, Tensor] = {}
        self.got: dict[str, Tensor] = {}
        self._names = {p: name for name, p in ddp.module.named_parameters()}
        ddp.register_comm_hook(self, seeing_hook)

    def by_name(self, bucket: GradBucket) -> dict[str, Tensor]:
        names = [self._names[p] for p in bucket.parameters()]
        return dict(zip(names, bucket.gradients(), strict=True))


def add_up(sums: dict[str, Tensor], gradients: dict[str, Tensor]) -> None:
    for name, gradient in gradients.items():
        sums[name] = sums.get(name, torch.zeros(())) + gradient.double()


def seeing_hook(seen: Seen, bucket: GradBucket) -> torch.futures.Future[torch.Tensor]:
    gradients = seen.by_name(bucket)
    add_up(seen.given, gradients)

    def note(done: torch.futures.Future[Tensor]) -> Tensor:
        add_up(seen.got, gradients)
        return done.value()

    return compress_hook(seen.state, bucket).then(note)


def digest_of(tensors: Iterable[Tensor]) -> str:
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(bits(tensor).numpy().tobytes())
    return found.hexdigest()


def residuals_of(state: CompressionState) -> list[Tensor]:
    residuals: dict[str, Tensor] = state.state_dict()["residuals"]
    return [residuals[name] for name in sorted(residuals)]


def gap(given: Tensor, sent: Tensor, kept: Tensor | None) -> float:
    """Largest |given - kept - sent| over ranks, of the largest sum of magnitudes."""
    left = given if kept is None else given - kept.double()
    size = given.abs()
    dist.all_reduce(left)
    dist.all_reduce(size)
    return float((left - sent).abs().max() / size.max())


def given_to(net: nn.Module, gradient: Tensor) -> Callable[[], None]:
    """Have autograd find this gradient of a linear layer's weight; gives back the end of it."""
    handle = net.weight.register_hook(lambda _: gradient)  # type: ignore[operator]
    return handle.remove  # type: ignore[no-any-return]
