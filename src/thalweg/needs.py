"""What users have, in their words: a line for each system, and a search over all of them."""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass
from typing import NamedTuple

from thalweg.catalogue import SYSTEMS, System
from thalweg.core import InvalidParameter


class Need(NamedTuple):
    """What somebody has whom a system helps, and words for it that its title does not say."""

    have: str
    words: str = ""


NEEDS = {
    "01": Need(
        "labels in one domain, deployment in another",
        "domain adaptation unlabelled target shift transfer multi-task conflicting gradients pareto mgda pcgrad "
        "synthetic real sensor camera hospital unsupervised covariate",
    ),
    "02": Need(
        "linear systems, one or thousands of similar ones",
        "sparse matrix Ax=b solver conjugate gradient gmres sor preconditioner omega relaxation simulation time steps "
        "heat equation pde finite difference",
    ),
    "03": Need(
        "the pressure equation on a grid with obstacles",
        "poisson fluid smoke water incompressible navier stokes projection multigrid neural preconditioner voxel",
    ),
    "04": Need(
        "f(x) to minimise with c(x) = 0",
        "equality constraints nonlinear programming sqp kkt lagrangian optimal control state equation pde constrained "
        "slsqp ipopt feasible",
    ),
    "05": Need(
        "sequences with scores, and no more experiments for now",
        "dna rna protein peptide promoter design propose better variants offline model-based biology fasta binding "
        "antibody library wet lab measured",
    ),
    "06": Need(
        "hyper-parameters or data weights to learn, gradients only",
        "bilevel first order penalty nested inner outer problem hyper-cleaning noisy labels meta-learning reweighting "
        "hierarchical leader follower stackelberg",
    ),
    "07": Need(
        "gradient norms of an earlier run, a number of steps",
        "learning rate schedule decay warmup linear cosine refine from logs",
    ),
    "08": Need(
        "a loss whose gradient is expensive",
        "simulator expert imitation learning surrogate many steps a batch line search armijo",
    ),
    "09": Need(
        "losses that change each episode, in a world with states",
        "adversarial markov decision process reinforcement learning regret mdp policy online episodes",
    ),
    "10": Need(
        "a Lasso, elastic net, logistic regression; few labels",
        "sparse regression l1 penalty coordinate descent path regularisation feature selection group lasso svm label "
        "propagation semi-supervised classify glmnet liblinear",
    ),
    "11": Need(
        "a known number of training steps", "learning rate schedule rex budget epochs decay short training"
    ),
    "12": Need(
        "a network whose weights must be bounded, sparse or grouped",
        "lion optimizer constraint weight decay norm box sign pruning quantise",
    ),
    "13": Need(
        "a solver whose solution must be differentiated",
        "implicit differentiation gradient through argmin layer optnet unrolling hyper-gradient fixed point jacobian "
        "backpropagate cvxpy estimator",
    ),
    "14": Need(
        "a workflow of code, prompts and numbers to improve",
        "llm agent pipeline prompt engineering feedback dspy textgrad trace computational graph tune program",
    ),
    "15": Need(
        "ratings, or any table with more holes than numbers",
        "matrix completion missing values recommender collaborative filtering low rank impute movies users items",
    ),
    "16": Need(
        "data that stay with clients of different speed",
        "federated learning asynchronous stragglers phones hospitals privacy fedavg flower bias slow clients",
    ),
    "17": Need(
        "a table of recipes to measure, few features that matter",
        "bandit best arm linear rewards sparse features experiments elimination misspecified screening candidates "
        "dosage",
    ),
    "18": Need(
        "a function that takes minutes or hours to evaluate",
        "bayesian optimisation hyper-parameter tuning black box gaussian process expected improvement experiments "
        "expensive simulation a/b crashes fidelity batch optuna",
    ),
    "19": Need(
        "two clouds of points, one to be carried to the other",
        "unpaired samples before after optimal transport schrodinger bridge cells single-cell translate distribution "
        "treatment trajectories snapshots",
    ),
    "20": Need(
        "many workers, some of them slow",
        "stragglers gradient coding distributed training redundancy cluster spot late machines delays",
    ),
    "21": Need(
        "a two-layer ReLU network to train globally",
        "convex neural network certificate global optimum shallow hidden layer",
    ),
    "22": Need(
        "a game, a saddle point, a sum of many operators",
        "nash equilibrium zero-sum payoff matrix minimax monotone inclusion variational inequality gan halpern "
        "players markov poker strategies",
    ),
    "23": Need(
        "black boxes that stay with their clients, and cost",
        "federated zeroth-order gradient-free queries private function values only attack",
    ),
    "24": Need(
        "predictions to make as rows come, good on every group",
        "fairness subgroups online learning stream calibration regression regret demographic drift concept multigroup",
    ),
    "25": Need(
        "models of many widths, and fear of a bad one",
        "double descent overparameterised interpolation generalisation peak test error width",
    ),
    "26": Need(
        "dropout, weight decay, augmentation to tune while training",
        "self-tuning hyper-parameters best response regularisation overfitting online tuning",
    ),
    "27": Need(
        "a network to train with half of AdamW's optimizer memory",
        "lion optimizer sign momentum memory large model discover new optimizer program search evolution",
    ),
    "28": Need(
        "a stream of readings or patches, sparse in some basis",
        "dictionary learning orthogonal sparse coding denoise compress sensors images frank-wolfe online patterns",
    ),
    "29": Need(
        "two trained networks to match unit by unit and merge",
        "permutation alignment model merging weight averaging git re-basin checkpoints combine ensemble barrier "
        "symmetric",
    ),
    "30": Need(
        "a decision now, a repair after the worst has come",
        "two-stage robust optimisation uncertainty adversary knapsack capital budgeting recourse scenario worst case "
        "planning investment",
    ),
    "31": Need(
        "hyper-parameters above a recurrent network",
        "bilevel unbounded smoothness lstm gru rnn text clipping normalised meta-learning",
    ),
    "32": Need(
        "trained networks, and what lies between them",
        "loss landscape mode connectivity interpolate barrier sharpness hessian flat minima ridge visualise",
    ),
    "33": Need(
        "judgements which of two runs is better",
        "preferences rlhf reward learning human feedback alignment policy comparisons pairs reinforcement",
    ),
    "34": Need(
        "few measurements of an image: views, k-space, blur, holes",
        "ct tomography mri reconstruction inverse problem deblur inpaint diffusion prior undersampled sparse-view "
        "denoise radiology scan",
    ),
    "35": Need(
        "no idea of the learning rate",
        "automatic learning rate tune lr find while training bayesian autolrs schedule unknown",
    ),
}

#: Weight of a word by where it stands.
_WEIGHTS = {"have": 3.0, "words": 2.0, "title": 2.0, "names": 2.0, "area": 1.0}
_EMPTY = frozenset(
    re.findall(
        r"\w+",
        "a an and are as at be but by can do for from have has how i if in into is it its me my need of on one or "
        "our so some that the them there they this to want we what when which while with without would you your",
    )
)


@dataclass(frozen=True)
class Match:
    """A system and how well it fits a search; the words of the search that it has."""

    system: System
    score: float
    words: tuple[str, ...]


def search(text: str, most: int = 5) -> list[Match]:
    """The systems that fit a search in users' words, the best first; none where no word of it is known.

    A word counts the more, the fewer systems have it; endings are cut, so that "samples" finds "sampling".

    Raises:
        InvalidParameter: a text without a word to search for.

    >>> [match.system.number for match in search("unpaired samples before and after")][0]
    '19'
    """
    wanted = list(dict.fromkeys(_stems(text)))
    if not wanted:
        raise InvalidParameter(f"find needs words of what you have, such as 'sparse matrix'; got {text!r}.")
    fields = {system.number: _fields(system) for system in SYSTEMS}
    found = []
    rarity = {stem: _rarity(stem, fields) for stem in wanted}
    for system in SYSTEMS:
        own = fields[system.number]
        scores = {
            stem: rarity[stem] * max(w * _likeness(stem, own[name]) for name, w in _WEIGHTS.items())
            for stem in wanted
        }
        score = sum(scores.values())
        if score > 0:
            found.append(Match(system, score, tuple(stem for stem, value in scores.items() if value > 0)))
    found.sort(key=lambda match: -match.score)
    return [match for match in found[:most] if match.score >= 0.4 * found[0].score]


def near(text: str) -> list[str]:
    """Words that are known and look like those of a search that found nothing."""
    told = " ".join(f"{system.title} {' '.join(NEEDS[system.number])}" for system in SYSTEMS)
    known = sorted({word for word in _words(told) if len(word) > 3})
    return list(
        dict.fromkeys(w for word in _words(text) for w in difflib.get_close_matches(word, known, 2, 0.75))
    )


def _fields(system: System) -> dict[str, frozenset[str]]:
    from thalweg.catalogue import AREAS

    need = NEEDS[system.number]
    names = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", " ".join(e.rpartition(".")[2] for e in system.exports))
    texts = {
        "have": need.have,
        "words": need.words,
        "title": f"{system.title} {system.slug}",
        "names": names,
        "area": f"{system.area} {AREAS[system.area]}",
    }
    return {name: frozenset(_stems(value)) for name, value in texts.items()}


def _words(text: str) -> list[str]:
    return [word for word in re.findall(r"[a-z0-9]+(?:'[a-z]+)?", text.lower()) if word not in _EMPTY]


def _stems(text: str) -> list[str]:
    return [_stem(word) for word in _words(text)]


def _stem(word: str) -> str:
    """British spelling and endings cut: enough to bring word and query together."""
    word = word.removesuffix("'s").replace("isation", "ization").replace("ise", "ize").replace("our", "or")
    for ending in ("izations", "ization", "izing", "izers", "izer", "ized", "izes", "ize"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word.removesuffix(ending) + "iz"
    for ending in ("ies", "ing", "ed", "es", "s", "y", "e"):
        if word.endswith(ending) and len(word) - len(ending) >= 3 and not word.endswith("ss"):
            return word.removesuffix(ending)
    return word


def _likeness(stem: str, words: frozenset[str]) -> float:
    """1 for the same word, half for one that begins alike."""
    if stem in words:
        return 1.0
    alike = len(stem) >= 4 and any(
        len(w) >= 4 and (w.startswith(stem) or stem.startswith(w)) and abs(len(w) - len(stem)) <= 4
        for w in words
    )
    return 0.5 if alike else 0.0


def _rarity(stem: str, fields: dict[str, dict[str, frozenset[str]]]) -> float:
    holding = sum(any(_likeness(stem, words) for words in own.values()) for own in fields.values())
    return math.log(1.0 + len(fields) / holding) if holding else 0.0
