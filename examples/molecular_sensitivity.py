"""How a packing of soft disks moves when some of them grow: molecular dynamics, differentiated at its end.

The particles are brought to rest by FIRE (Bitzek et al., 2006), a solver that torch need not see into. Blondel et al.
(2022), section 4.4. Run it: python examples/molecular_sensitivity.py
"""

from __future__ import annotations

import torch
from torch import Tensor

from thalweg.bilevel import root_jvp
from thalweg.numerics.torch_krylov import LinearSolver

PARTICLES = 32


def energy(x: Tensor, diameter: Tensor, side: float) -> Tensor:
    """Soft disks of two sizes in a periodic box: ``sum (1 - r/s)^2/2`` over pairs that overlap."""
    sizes = torch.where(torch.arange(PARTICLES) < PARTICLES // 2, diameter, torch.ones_like(diameter))
    i, j = torch.triu_indices(PARTICLES, PARTICLES, 1)
    gap = x[i] - x[j]
    gap = gap - side * torch.round(gap.detach() / side)
    reach = 0.5 * (sizes[i] + sizes[j])
    r = gap.square().sum(1).sqrt()
    return 0.5 * (1.0 - r / reach).clamp_min(0.0).square().sum()


def fire(x: Tensor, diameter: Tensor, side: float, steps: int) -> Tensor:
    """Damped dynamics, the damping by whether force and velocity agree."""
    v, dt, a, since = torch.zeros_like(x), 0.1, 0.1, 0
    force = torch.func.grad(energy)
    for _ in range(steps):
        f = -force(x, diameter, side)
        if float((f * v).sum().detach()) > 0.0:
            since += 1
            v = (1 - a) * v + a * f * v.norm() / (f.norm() + 1e-30)
            if since > 5:
                dt, a = min(1.1 * dt, 1.0), 0.99 * a
        else:
            v, dt, a, since = torch.zeros_like(v), 0.5 * dt, 0.1, 0
        v = v + dt * f
        x = x + dt * v
        if float(f.norm().detach()) < 1e-13:
            break
    return x


def main(steps: int = 20_000) -> tuple[float, float, float]:
    generator = torch.Generator().manual_seed(1)
    diameter = torch.tensor(0.6, dtype=torch.float64)
    side = float((PARTICLES * (0.36 + 1.0) / 2 * torch.pi / 4 / 1.0) ** 0.5)  # crowded: the packing is rigid
    start = side * torch.rand(PARTICLES, 2, generator=generator, dtype=torch.float64)
    rest = fire(start, diameter, side, steps)

    def force(x: Tensor, diameter: Tensor) -> Tensor:
        return torch.func.grad(energy)(x, diameter, side)

    # moving all particles together costs nothing: those two directions are singular, and a ridge leaves them alone
    one = torch.ones_like(diameter)
    implicit = root_jvp(force, rest, (diameter,), (one,), solve=LinearSolver("dense", ridge=1e-10))
    h = 1e-6
    ends = [fire(rest, diameter + sign * h, side, steps) for sign in (1, -1)]
    differences = (ends[0] - ends[1]) / (2 * h)
    unrolled = torch.func.jvp(lambda d: fire(start, d, side, steps), (diameter,), (one,))[1]
    error, of_unrolled = (float((t - differences).norm() / differences.norm()) for t in (implicit, unrolled))
    print(
        f"force at rest {float(force(rest, diameter).norm()):.1e}; sensitivity {float(differences.norm()):.3f}"
    )
    print(f"relative error: implicit {error:.1e}, unrolled through FIRE {of_unrolled:.1e}")
    return float(force(rest, diameter).norm()), error, of_unrolled


if __name__ == "__main__":
    main()
