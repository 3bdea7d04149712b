"""The methods for convex problems by name, and which of them suits a problem."""

from __future__ import annotations

from thalweg.convex.accelerated import AcceleratedProximalGradient
from thalweg.convex.coordinate import GSL, BlockCoordinateDescent, HeapGreedy, NewtonStep, VariableBlocks
from thalweg.convex.group_sets import GroupWorkingSets
from thalweg.convex.groups import GroupPenalized
from thalweg.convex.problem import Penalized
from thalweg.convex.relu.neurons import ReLUSCP, SampledNeurons
from thalweg.convex.relu.problem import ConvexReLU
from thalweg.convex.relu.robust import RobustADMM, RobustConvexReLU
from thalweg.convex.relu.splitting import ReLUADMM, ReLULinearizedADMM, ReLURBCD
from thalweg.core import Method, recommended

#: The area's methods, by the names that tables and the command use.
METHODS: dict[str, type[Method]] = {
    "accelerated": AcceleratedProximalGradient,
    "bcd": BlockCoordinateDescent,
    "group-working-sets": GroupWorkingSets,
    "heap-greedy": HeapGreedy,
    "relu-admm": ReLUADMM,
    "relu-linearized-admm": ReLULinearizedADMM,
    "relu-rbcd": ReLURBCD,
    "relu-robust-admm": RobustADMM,
    "relu-scp": ReLUSCP,
}


@recommended.register
def for_separable_terms(problem: Penalized) -> BlockCoordinateDescent:
    """Greedy blocks of 20, chosen anew each step by Lipschitz-scaled slopes, Newton's step on them."""
    return BlockCoordinateDescent(VariableBlocks(min(20, problem.units)), GSL(), NewtonStep())


@recommended.register
def for_groups(problem: GroupPenalized) -> GroupWorkingSets | AcceleratedProximalGradient:
    """Working sets where a sample has one prediction; else accelerated proximal gradients: blocks converge slowly."""
    return GroupWorkingSets() if GroupWorkingSets.fits(problem) else AcceleratedProximalGradient()


@recommended.register
def for_patterns(problem: ConvexReLU) -> ReLUADMM:
    """ADMM with one factored n x n matrix."""
    return ReLUADMM()


@recommended.register
def for_sampled_neurons(problem: SampledNeurons) -> ReLUSCP:
    """Working sets of neurons."""
    return ReLUSCP()


@recommended.register
def for_robust_networks(problem: RobustConvexReLU) -> RobustADMM:
    """ADMM with worst-case losses and robust cones split off."""
    return RobustADMM()
