"""The 35 systems: number, name, paper, area, what is exported, and its study."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thalweg.core import UnknownName


@dataclass(frozen=True)
class System:
    """One published system.

    ``exports`` are names under ``thalweg``; ``study`` is a module of ``thalweg.studies``.
    """

    number: str
    slug: str
    title: str
    paper: str
    area: str
    exports: tuple[str, ...]
    study: str


SYSTEMS = (
    System(
        "01",
        "pareto-domain-adaptation",
        "Pareto domain adaptation",
        "NeurIPS 2021",
        "adaptation",
        (
            "adaptation.ParetoDA",
            "adaptation.AdaptationTask",
            "adaptation.Adapt",
            "adaptation.PreferenceLP",
            "adaptation.Refiner",
            "adaptation.AdaptedClassifier",
        ),
        "pareto_adaptation",
    ),
    System(
        "02",
        "learning-to-relax",
        "Learning to relax",
        "arXiv 2310.02246, ICLR 2024",
        "linear",
        (
            "linear.SequenceSolver",
            "linear.LearnedSolver",
            "linear.SOR",
            "linear.SSORCG",
            "online.TsallisINF",
            "online.ChebCB",
        ),
        "learning_to_relax",
    ),
    System(
        "03",
        "deep-conjugate-direction",
        "Deep conjugate direction method, DCDM",
        "arXiv 2205.10763, ICML 2023",
        "linear",
        (
            "linear.MultigridCycle",
            "linear.DeepConjugateDirection",
            "linear.PoissonGrid",
            "linear.pretrained_direction",
            "linear.train_direction",
            "linear.SmokePlume",
        ),
        "deep_conjugate_direction",
    ),
    System(
        "04",
        "sketched-sqp",
        "Exact augmented Lagrangian + randomized iterative sketching, AdaSketch-Newton",
        "arXiv 2305.18379, ICML 2023",
        "constrained",
        (
            "constrained.EqualityConstrained",
            "constrained.SketchedNewton",
            "constrained.PoissonControl",
            "constrained.certify",
        ),
        "sketched_sqp",
    ),
    System(
        "05",
        "bidirectional-sequence-design",
        "Bidirectional learning for offline biological sequence design, BIB",
        "arXiv 2301.02931, ICML 2023",
        "blackbox",
        (
            "blackbox.design.SequenceDesign",
            "blackbox.design.SequenceSpace",
            "blackbox.design.SequenceTable",
            "blackbox.design.BidirectionalDesign",
            "blackbox.design.AdaptiveGamma",
            "blackbox.design.AdaptiveEta",
            "blackbox.design.MaskedLetters",
            "blackbox.design.PretrainedEncoder",
        ),
        "sequence_design",
    ),
    System(
        "06",
        "penalty-bilevel",
        "Penalty methods for non-convex bilevel optimization",
        "arXiv 2309.01753, ICLR 2024",
        "bilevel",
        ("bilevel.Bilevel", "bilevel.Penalty", "bilevel.MomentumPenalty", "bilevel.lower_error_bound"),
        "penalty_bilevel",
    ),
    System(
        "07",
        "schedule-refinement",
        "When, why and how much? Learning-rate schedules by refinement",
        "arXiv 2310.07831",
        "training",
        (
            "training.refine",
            "training.RefinedSchedule",
            "training.LinearDecay",
            "training.GradientNormRecorder",
            "training.bound",
            "training.fit_warmup_poly",
        ),
        "schedule_refinement",
    ),
    System(
        "08",
        "target-surrogates",
        "Target-based surrogates for stochastic optimization, SSO",
        "arXiv 2302.02607, ICML 2023",
        "training",
        ("training.TargetSurrogate", "training.ArmijoSGD", "training.ImitationTask", "training.Imitate"),
        "target_surrogates",
    ),
    System(
        "09",
        "adversarial-mdp",
        "Refined regret for adversarial MDPs with linear function approximation",
        "arXiv 2301.12942, ICML 2023",
        "online",
        (
            "online.AdversarialMDP",
            "online.MagnitudeReduced",
            "online.LogBarrier",
            "online.EpisodeLearner",
            "online.mdp.LinearLearner",
            "online.mdp.EpochLearner",
            "online.mdp.GymnasiumWorld",
        ),
        "adversarial_mdp",
    ),
    System(
        "10",
        "block-coordinate-descent",
        "Block coordinate descent: faster greedy rules, message passing, active sets, superlinear",
        "arXiv 1712.08859, JMLR 2022",
        "convex",
        (
            "convex.BlockCoordinateDescent",
            "convex.Penalized",
            "convex.GroupPenalized",
            "convex.Lasso",
            "convex.LogisticRegression",
            "convex.LabelPropagation",
            "convex.solve_forest",
        ),
        "block_coordinate_descent",
    ),
    System(
        "11",
        "rex-schedule",
        "REX",
        "arXiv 2107.04197, MLSys 2022",
        "training",
        ("training.REX", "training.ProfileSchedule"),
        "rex_schedule",
    ),
    System(
        "12", "lion-k", "Lion-K", "arXiv 2310.05898, ICLR 2024", "training", ("training.LionK",), "lion_k"
    ),
    System(
        "13",
        "implicit-diff",
        "Efficient and modular implicit differentiation",
        "arXiv 2105.15183, NeurIPS 2022",
        "bilevel",
        ("bilevel.custom_root", "bilevel.custom_fixed_point", "bilevel.differentiable", "bilevel.root_vjp"),
        "implicit_diff",
    ),
    System(
        "14",
        "trace",
        "Trace: the new AutoDiff for computational workflows",
        "arXiv 2406.16218, NeurIPS 2024",
        "workflow",
        (
            "workflow.node",
            "workflow.bundle",
            "workflow.Module",
            "workflow.backward",
            "workflow.Sandbox",
            "workflow.optimizers.PatternSearch",
            "workflow.trainer.WorkflowTrainer",
        ),
        "trace_workflows",
    ),
    System(
        "15",
        "matrix-completion",
        "Matrix completion by robust alternating minimisation in nearly linear time",
        "arXiv 2302.11068, ICLR 2024",
        "matrix",
        (
            "matrix.MatrixCompletion",
            "matrix.Completion",
            "matrix.CGAltMin",
            "matrix.SketchedAltMin",
            "matrix.held_out_error",
        ),
        "matrix_completion",
    ),
    System(
        "16",
        "async-federated",
        "Asynchronous federated optimization: FedFix",
        "arXiv 2206.10189, JMLR 2023",
        "distributed",
        (
            "distributed.federated.FedFix",
            "distributed.federated.Federation",
            "distributed.federated.Federated",
            "distributed.federated.design",
        ),
        "federated_fedfix",
    ),
    System(
        "17",
        "sparse-misspecified-bandits",
        "Does sparsity help in learning misspecified linear bandits?",
        "arXiv 2303.16998, ICML 2023",
        "online",
        (
            "online.ActionTable",
            "online.LazyElimination",
            "online.NetElimination",
            "online.SparseDesign",
            "online.GOptimal",
        ),
        "misspecified_bandits",
    ),
    System(
        "18",
        "bayesian-optimization",
        "A tutorial on Bayesian optimization",
        "arXiv 1807.02811",
        "blackbox",
        (
            "blackbox.Study",
            "blackbox.Space",
            "blackbox.Fidelity",
            "blackbox.Environment",
            "blackbox.BayesianOptimization",
        ),
        "bayesian_optimization",
    ),
    System(
        "19",
        "light-schrodinger-bridge",
        "Light Schrodinger bridge",
        "arXiv 2310.01174, ICLR 2024",
        "transport",
        (
            "transport.LightBridge",
            "transport.EntropicTransport",
            "transport.LightSB",
            "transport.Bridge",
            "transport.eot_pair",
            "transport.eps_path",
        ),
        "light_bridge",
    ),
    System(
        "20",
        "sequential-gradient-coding",
        "Sequential gradient coding for straggler mitigation",
        "arXiv 2211.13802, ICLR 2023",
        "distributed",
        (
            "distributed.coding.GradientCode",
            "distributed.coding.Multiplexed",
            "distributed.coding.plan",
            "distributed.coding.CodedTraining",
            "distributed.coding.SelectedCoding",
        ),
        "sequential_gradient_coding",
    ),
    System(
        "21",
        "convex-relu-networks",
        "Global optimization of two-layer ReLU networks",
        "arXiv 2201.01965, Bai, Gautam, Sojoudi, SIMODS 2022/23",
        "convex",
        (
            "convex.ConvexReLURegressor",
            "convex.ConvexReLUClassifier",
            "convex.polish",
            "convex.ConvexReLU",
            "convex.RobustConvexReLU",
        ),
        "convex_relu",
    ),
    System(
        "22",
        "variance-reduced-halpern",
        "Variance-reduced Halpern iteration for finite-sum monotone inclusions",
        "arXiv 2310.02987, ICLR 2024",
        "equilibrium",
        (
            "equilibrium.MonotoneInclusion",
            "equilibrium.VRHalpern",
            "equilibrium.InexactHalpern",
            "equilibrium.matrix_game",
            "equilibrium.MarkovGame",
        ),
        "variance_reduced_halpern",
    ),
    System(
        "23",
        "fzoos",
        "FZooS: federated zeroth-order optimization",
        "arXiv 2308.04077, 2023",
        "distributed",
        (
            "distributed.zeroth_order.FederatedBlackBox",
            "distributed.zeroth_order.FZooS",
            "distributed.zeroth_order.FedZO",
            "distributed.zeroth_order.Client",
        ),
        "federated_zeroth_order",
    ),
    System(
        "24",
        "groupwise-regret",
        "Oracle-efficient algorithms for groupwise regret",
        "arXiv 2310.04652, ICLR 2024",
        "online",
        (
            "online.GroupwiseRegressor",
            "online.GroupedStream",
            "online.Groupwise",
            "online.AdaNormalHedge",
            "online.GroupwiseLeader",
        ),
        "groupwise_regret",
    ),
    System(
        "25",
        "double-descent",
        "Understanding the role of optimization in double descent",
        "arXiv 2312.03951, Liu and Flanigan 2023",
        "landscape",
        (
            "landscape.double_descent.scan",
            "landscape.double_descent.descent_map",
            "landscape.double_descent.Spectrum",
            "landscape.double_descent.Networks",
        ),
        "double_descent",
    ),
    System(
        "26",
        "self-tuning-networks",
        "Self-tuning networks",
        "arXiv 1903.03088, ICLR 2019; Delta-STN: arXiv 2010.13514",
        "bilevel",
        (
            "bilevel.selftuning.self_tuning",
            "bilevel.selftuning.SelfTuner",
            "bilevel.selftuning.SelfTuningTask",
            "bilevel.selftuning.HyperParameter",
        ),
        "self_tuning",
    ),
    System(
        "27",
        "lion-discovery",
        "Symbolic discovery of optimization algorithms: Lion and the search",
        "arXiv 2302.06675, NeurIPS 2023",
        "training",
        (
            "training.Lion",
            "discovery.search",
            "discovery.ProgramSearch",
            "discovery.RegularizedEvolution",
            "discovery.simplified",
            "discovery.optimizer_class",
            "discovery.funnel",
        ),
        "lion_discovery",
    ),
    System(
        "28",
        "online-dictionary",
        "Online orthogonal dictionary learning by Frank-Wolfe",
        "arXiv 2103.01484, Xue and Lau",
        "matrix",
        (
            "matrix.OnlineDictionary",
            "matrix.merge_dictionaries",
            "matrix.SparsestBasis",
            "matrix.MatchingStretchingProjection",
            "matrix.KTermBasis",
            "matrix.OrthogonalMOD",
            "matrix.SparseStream",
            "matrix.denoise",
        ),
        "online_dictionary",
    ),
    System(
        "29",
        "weight-matching",
        "Linear mode connectivity by permutation: weight matching and its analysis",
        "arXiv 2402.04051, ICLR 2025; git re-basin 2209.04836",
        "landscape",
        (
            "landscape.permutation.trace_permutations",
            "landscape.permutation.match",
            "landscape.permutation.merge",
            "landscape.permutation.merge_many",
            "landscape.permutation.Rebasin",
            "landscape.permutation.WeightMatching",
            "landscape.permutation.alignment",
        ),
        "weight_matching",
    ),
    System(
        "30",
        "neur2ro",
        "Neur2RO: neural two-stage robust optimization",
        "arXiv 2310.04345, ICLR 2024",
        "robust",
        (
            "robust.TwoStageRobust",
            "robust.NeuralCCG",
            "robust.Certified",
            "robust.RobustKnapsack",
            "robust.CapitalBudgeting",
            "robust.FacilityLocation",
            "robust.train_value",
            "robust.pretrained_value",
        ),
        "neur2ro",
    ),
    System(
        "31",
        "bo-rep",
        "BO-REP: bilevel optimization under unbounded smoothness",
        "arXiv 2401.09587, ICLR 2024",
        "bilevel",
        ("bilevel.BOREP", "bilevel.EpochSGD", "bilevel.hypergradient", "bilevel.SmoothnessMonitor"),
        "bo_rep",
    ),
    System(
        "32",
        "landscape-ridges",
        "Landscaping linear mode connectivity: mountainside and ridge",
        "arXiv 2406.16300, HiLD workshop at ICML 2024",
        "landscape",
        (
            "landscape.LossSurface",
            "landscape.interpolate",
            "landscape.plane",
            "landscape.spawn",
            "landscape.ridges",
            "landscape.barrier_by_ends",
            "landscape.layer_table",
            "landscape.top_eigenvalues",
            "landscape.Mountainside",
        ),
        "landscape_ridges",
    ),
    System(
        "33",
        "parl",
        "PARL: policy alignment as bilevel optimization",
        "arXiv 2308.02585, ICLR 2024",
        "bilevel",
        (
            "bilevel.alignment.PreferenceTask",
            "bilevel.alignment.APARL",
            "bilevel.alignment.SampledAPARL",
            "bilevel.alignment.Alternation",
            "bilevel.alignment.PairStore",
            "bilevel.alignment.stackelberg",
        ),
        "parl",
    ),
    System(
        "34",
        "decomposed-diffusion-sampler",
        "Decomposed diffusion sampler, DDS",
        "arXiv 2303.05754, ICLR 2024",
        "inverse",
        (
            "inverse.DDS",
            "inverse.InverseProblem",
            "inverse.Operator",
            "inverse.Radon",
            "inverse.Sense",
            "inverse.train_unet",
        ),
        "decomposed_diffusion",
    ),
    System(
        "35",
        "autolrs",
        "AutoLRS",
        "arXiv 2105.10762, ICLR 2021",
        "training",
        ("training.AutoLRS", "training.LossForecaster"),
        "autolrs",
    ),
)

AREAS = {
    "training": "a network to train",
    "discovery": "the wish for a new optimizer",
    "bilevel": "an optimization inside another",
    "linear": "A x = b, once or in a sequence",
    "convex": "smooth + simple, many coordinates or blocks",
    "constrained": "min f(x) with c(x) = 0",
    "equilibrium": "a game, a monotone inclusion",
    "matrix": "a matrix with hidden structure",
    "blackbox": "an expensive function, or only a table of its past values",
    "online": "decisions to make as the data comes",
    "distributed": "many clients or workers",
    "robust": "a decision before the uncertainty, one after",
    "transport": "one distribution to carry to another",
    "inverse": "measurements to turn back into an image",
    "adaptation": "labels here, deployment there",
    "landscape": "a question about why training works",
    "workflow": "a pipeline of code and model calls",
}


def find(name: str) -> System:
    """The system with this two-digit number or slug.

    >>> find("02").slug
    'learning-to-relax'
    """
    for system in SYSTEMS:
        if name in (system.number, system.slug):
            return system
    raise UnknownName("system", name, [s.slug for s in SYSTEMS], see="`thalweg list` shows all.")


class _MethodsByArea(Mapping[str, Mapping[str, type[Any]]]):
    """Area to its methods by name; an area is loaded when it is looked at."""

    def __getitem__(self, area: str) -> Mapping[str, type[Any]]:
        if area not in AREAS:
            raise UnknownName("area", area, AREAS, see="`thalweg list` shows all.")
        if area not in self._here():
            return {}
        found: Mapping[str, type[Any]] = importlib.import_module(f"thalweg.{area}").METHODS
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._here())

    def __len__(self) -> int:
        return len(self._here())

    def _here(self) -> list[str]:
        """The areas whose folder is here."""
        return [area for area in AREAS if (Path(__file__).parent / area / "recommended.py").exists()]


#: The methods of each area by name: ``METHODS["linear"]["cg"]`` is `thalweg.linear.ConjugateGradient`.
METHODS = _MethodsByArea()
