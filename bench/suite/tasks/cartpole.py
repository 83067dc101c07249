"""Balancing a pole on a cart, by advantage actor-critic in several carts at once.

The environment is the well-known one (Barto, Sutton and Anderson, 1983, with the constants of
Gym's CartPole-v1), written here for all carts at once. What counts is the speed of learning: the
"validation loss" is 1 - length / 500 of an episode, as the mean over all steps of the training of
its latest finished episodes. The last policy's own episodes would tell less: at good rates they are
all of full length, whatever the optimizer, and otherwise they vary more by the seed.
"""

from __future__ import annotations

import math
from collections import deque
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from suite.problem import Task

CARTS = 64
MOMENTS = 32  # of each cart in a step's batch
LONGEST = 500  # moments of an episode
LATEST = 128  # episodes that count in a step's score
WORTH = 0.1  # of a moment with the pole up: values are then at most 10
DISCOUNT, SMOOTHING = 0.99, 0.95  # of rewards to come; of advantages, lambda
VALUE_SHARE, ENTROPY_SHARE = 0.5, 0.01  # of the loss

GRAVITY, FORCE, TICK = 9.8, 10.0, 0.02
CART_MASS, POLE_MASS, HALF_POLE = 1.0, 0.1, 0.5
FARTHEST, STEEPEST = 2.4, math.radians(12)


class Moment(NamedTuple):
    """What all carts did and met in one moment, one row a cart."""

    states: Tensor
    actions: Tensor
    reached: Tensor  # states just after, before any cart began anew
    fell: Tensor
    ended: Tensor  # fell, or was stopped at the longest


class Carts:
    """Carts with a pole each; one whose episode ends begins anew at once."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator
        self.states = self.fresh()
        self.ages = torch.zeros(CARTS)

    def fresh(self) -> Tensor:
        """States at the beginning of an episode."""
        return 0.1 * torch.rand(CARTS, 4, generator=self.generator) - 0.05

    def move(self, actions: Tensor) -> tuple[Moment, list[float]]:
        """Pushes each cart left (0) or right (1); also returns the lengths of episodes ended."""
        states, reached = self.states, moved(self.states, actions)
        self.ages += 1
        fell = (reached[:, 0].abs() > FARTHEST) | (reached[:, 2].abs() > STEEPEST)
        ended = fell | (self.ages >= LONGEST)
        lengths: list[float] = self.ages[ended].tolist()
        self.ages[ended] = 0
        # drawn for all, so that a cart's chance does not hang on the others' falls
        self.states = torch.where(ended[:, None], self.fresh(), reached)
        return Moment(states, actions, reached, fell, ended), lengths


class ActorCritic(nn.Module):
    """The logits of both actions, and the value of a state."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh())
        self.policy, self.value = nn.Linear(64, 2), nn.Linear(64, 1)

    def forward(self, states: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.body(states)
        return self.policy(hidden), self.value(hidden)[..., 0]


class CartPole:
    """A training of the policy; its data are what the policy meets, so they differ by optimizer."""

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        self.model: nn.Module = ActorCritic()
        self.generator = torch.Generator().manual_seed(seed)
        self.carts = Carts(self.generator)
        self.latest: deque[float] = deque(maxlen=LATEST)
        self.scores: list[float] = []  # of each step

    def loss(self, step: int) -> Tensor:
        """Lets the current policy drive for a while, and returns the actor-critic loss of that."""
        lived = self.drive()
        logits, values = self.model(lived.states)
        advantages = smoothed(lived, values.detach(), self.values_of(lived.reached))
        targets = advantages + values.detach()
        logs = functional.log_softmax(logits, -1)
        entropy = -(logs.exp() * logs).sum(-1).mean()
        chosen = logs.gather(-1, lived.actions[..., None])[..., 0]
        # not scaled to one size: noise would then unlearn what went well
        value_loss = functional.smooth_l1_loss(values, targets)
        return -(advantages * chosen).mean() + VALUE_SHARE * value_loss - ENTROPY_SHARE * entropy

    @torch.no_grad()
    def drive(self) -> Moment:
        """The moments of a step's batch, stacked; also notes the score of the episodes ended."""
        moments = []
        for _ in range(MOMENTS):
            logits, _ = self.model(self.carts.states)
            chance = torch.sigmoid(logits[:, 1] - logits[:, 0])  # softmax of two
            actions = (torch.rand(CARTS, generator=self.generator) < chance).long()
            moment, lengths = self.carts.move(actions)
            moments.append(moment)
            self.latest.extend(lengths)
        length = sum(self.latest) / len(self.latest) if self.latest else 0.0
        self.scores.append(1 - length / LONGEST)
        return Moment(*(torch.stack(column) for column in zip(*moments, strict=True)))

    @torch.no_grad()
    def values_of(self, states: Tensor) -> Tensor:
        """What the critic expects of states."""
        values: Tensor = self.model(states)[1]
        return values

    def evaluate(self) -> float:
        """The mean score of the steps up to now; 1 before the first."""
        return sum(self.scores) / len(self.scores) if self.scores else 1.0


def moved(states: Tensor, actions: Tensor) -> Tensor:
    """The states one tick after a push, by Euler's method."""
    _, speed, angle, spin = states.unbind(1)
    force = FORCE * (2 * actions - 1)
    mass = CART_MASS + POLE_MASS
    sine, cosine = angle.sin(), angle.cos()
    push = (force + POLE_MASS * HALF_POLE * spin**2 * sine) / mass
    swing = (GRAVITY * sine - cosine * push) / (HALF_POLE * (4 / 3 - POLE_MASS * cosine**2 / mass))
    thrust = push - POLE_MASS * HALF_POLE * swing * cosine / mass
    changes = torch.stack([speed, thrust, spin, swing], 1)
    return states + TICK * changes


def smoothed(lived: Moment, values: Tensor, reached: Tensor) -> Tensor:
    """Generalized advantage estimates; every moment that a pole stays up has the same worth."""
    # a cart that was merely stopped would have gone on: only a fall is worth nothing
    errors = WORTH + DISCOUNT * reached * ~lived.fell - values
    advantages = torch.zeros_like(values)
    following = torch.zeros(CARTS)
    for moment in reversed(range(MOMENTS)):
        following = errors[moment] + DISCOUNT * SMOOTHING * following * ~lived.ended[moment]
        advantages[moment] = following
    return advantages


CARTPOLE = Task(
    name="cartpole",
    title="advantage actor-critic on CartPole, by the speed of learning",
    half="judge",
    make=CartPole,
    steps=300,
    batch=CARTS * MOMENTS,
    rate=1e-2,
)
