"""Features of sequences: counted by hand, kernels by wide networks, a pre-trained model by its own tokens."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from thalweg.blackbox.design import (
    Encoder,
    InfiniteNetwork,
    KMers,
    LetterPairs,
    MaskedLetters,
    OneHot,
    PretrainedEncoder,
    SequenceSpace,
    SequenceTable,
)
from thalweg.blackbox.design.encoders import encoded
from thalweg.blackbox.design.proxy import proxy_of
from thalweg.blackbox.design.space import one_hot
from thalweg.core import InvalidParameter, InvalidProblem, MissingExtra, UnreadableFile

SPACE = SequenceSpace("dna", 6)
ENCODERS = [
    OneHot(),
    KMers(2),
    LetterPairs(),
    InfiniteNetwork(),
    InfiniteNetwork(kernel="nngp"),
    MaskedLetters(steps=5),
]


@pytest.fixture
def codes(rng):
    return np.unique(rng.integers(4, size=(50, 6)), axis=0)


def table_of(codes):
    return SequenceTable(SPACE, SPACE.decode(codes), np.arange(float(len(codes))), 4)


@pytest.mark.parametrize("encoder", ENCODERS, ids=repr)
def test_gradients_in_soft_letters_are_those_of_finite_differences(encoder, codes):
    features = encoder.fitted(SPACE, codes, 0)
    drawn = torch.Generator().manual_seed(0)
    soft = torch.randn(3, 6, 4, generator=drawn, dtype=torch.double).softmax(-1).requires_grad_()
    h = features(soft)
    weights = torch.randn(h.shape, generator=drawn, dtype=torch.double).to(h.dtype).detach()
    slope = torch.autograd.grad((h * weights).sum(), soft)[0]
    way = torch.randn(soft.shape, generator=drawn, dtype=torch.double)
    step = 1e-3 if h.dtype == torch.float32 else 1e-6
    with torch.no_grad():
        change = (features(soft + step * way) - features(soft - step * way)).double() * weights
    assert float((slope * way).sum()) == pytest.approx(float(change.sum()) / (2 * step), rel=2e-2, abs=1e-4)


class TestCounted:
    def test_words_are_counted(self):
        space = SequenceSpace("AC", 4)
        found = encoded(KMers(2).fitted(space, space.encode(["AACA"]), 0), space.encode(["AACA"]), 2)[0]
        np.testing.assert_allclose(found, [1 / 3, 1 / 3, 1 / 3, 0, 1], atol=1e-7)  # AA, AC, CA, CC, constant

    def test_inner_products_of_pairs_count_pairs_that_agree(self, codes):
        H = encoded(LetterPairs().fitted(SPACE, codes, 0), codes, 4)
        agree = (codes[:, None] == codes[None]).sum(2)
        np.testing.assert_allclose(H @ H.T, agree + 1 + agree * (agree - 1) / 2, atol=1e-9)

    def test_too_many_features_are_refused(self):
        with pytest.raises(InvalidProblem, match=r"LetterPairs makes .* at most 20000"):
            LetterPairs().fitted(SequenceSpace("protein", 100), np.zeros((1, 100), int), 0)
        with pytest.raises(InvalidProblem, match="KMers needs k <= 6"):
            KMers(7).fitted(SPACE, np.zeros((1, 6), int), 0)
        with pytest.raises(InvalidProblem, match="at most 20000 words"):
            KMers(4).fitted(SequenceSpace("protein", 9), np.zeros((1, 9), int), 0)
        with pytest.raises(InvalidParameter, match="k >= 1"):
            KMers(0)


class TestInfinite:
    def test_nngp_is_the_covariance_of_wide_networks(self):
        rng = np.random.default_rng(0)
        x = rng.standard_normal((3, 5))
        width, draws, found = 400, 300, np.zeros((3, 3))
        for _ in range(draws):
            a = x
            for _ in range(2):
                a = np.maximum(a @ (rng.standard_normal((a.shape[1], width)) * np.sqrt(2 / width)), 0)
            found += a @ a.T / draws
        # variance 2 / width of a hidden layer: its squared length is that of the input
        exact = InfiniteNetwork(layers=2, kernel="nngp").between(*[torch.from_numpy(x)] * 2)
        np.testing.assert_allclose(found, exact, atol=0.06 * float(exact.abs().max()))

    def test_ntk_of_one_layer_is_its_closed_form(self):
        x = torch.randn(4, 6, dtype=torch.double, generator=torch.Generator().manual_seed(0))
        norms = x.norm(dim=1)[:, None] * x.norm(dim=1)[None]
        angle = torch.arccos((x @ x.T / norms).clamp(-1, 1))
        nngp = norms * (angle.sin() + (torch.pi - angle) * angle.cos()) / torch.pi
        wanted = nngp + (x @ x.T) * (torch.pi - angle) / torch.pi
        torch.testing.assert_close(InfiniteNetwork(layers=1).between(x, x), wanted, rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("kernel", ["ntk", "nngp"])
    def test_features_have_the_kernels_inner_products(self, kernel, codes, rng):
        encoder = InfiniteNetwork(kernel=kernel)
        features = encoder.fitted(SPACE, codes, 0)
        other = rng.integers(4, size=(20, 6))
        H, h = encoded(features, codes, 4), encoded(features, other, 4)
        X, x = (torch.from_numpy(one_hot(c, 4)).flatten(1) for c in (codes, other))
        torch.testing.assert_close(h[:, :-1] @ H[:, :-1].T, encoder.between(x, X), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(h.square().sum(1), encoder.itself(x), rtol=1e-5, atol=1e-5)

    def test_the_ridge_is_that_of_the_kernel(self, codes, rng):
        table, encoder = table_of(codes), InfiniteNetwork()
        other = rng.integers(4, size=(9, 6))
        X, x = (torch.from_numpy(one_hot(c, 4)).flatten(1) for c in (table.codes, other))
        K = encoder.between(X, X)
        y = torch.from_numpy((table.values - table.values.mean()) / table.values.std())
        a = torch.linalg.solve(K + 1e-6 * K.trace() / len(K) * torch.eye(len(K)), y)
        wanted = table.values.mean() + table.values.std() * (encoder.between(x, X) @ a)
        np.testing.assert_allclose(proxy_of(table, encoder, 0).predict(other), wanted, rtol=1e-3, atol=1e-2)

    def test_bad_settings_are_refused(self):
        with pytest.raises(InvalidParameter, match="layers >= 1"):
            InfiniteNetwork(layers=0)
        with pytest.raises(InvalidParameter, match="ntk or nngp; got 'rbf'"):
            InfiniteNetwork(kernel="rbf")


class TestMasked:
    def test_it_learns_to_tell_a_hidden_letter_from_its_neighbours(self):
        rng = np.random.default_rng(0)
        halves = rng.integers(4, size=(300, 3))
        codes = np.repeat(halves, 2, 1)  # AACCTT: a hidden letter stands beside its twin
        network = MaskedLetters(steps=300).trained(SPACE, codes, 0)
        x = torch.nn.functional.one_hot(torch.from_numpy(codes[:100]), 5).float()
        x[:, 2] = torch.tensor([0.0, 0, 0, 0, 1])
        told = network.head(network.hidden(x.transpose(1, 2)))[:, :, 2].argmax(1).numpy()
        assert (told == codes[:100, 2]).mean() > 0.9

    def test_a_seed_repeats_and_the_callers_draws_are_left_alone(self, codes):
        torch.manual_seed(5)
        first = torch.rand(1)
        torch.manual_seed(5)
        one = encoded(MaskedLetters(steps=5).fitted(SPACE, codes, 1), codes, 4)
        assert torch.rand(1) == first
        torch.testing.assert_close(encoded(MaskedLetters(steps=5).fitted(SPACE, codes, 1), codes, 4), one)
        other = encoded(MaskedLetters(steps=5).fitted(SPACE, codes, 2), codes, 4)
        assert float((one - other).abs().max()) > 1e-3

    def test_long_sequences_have_few_channels(self):
        space = SequenceSpace("protein", 700)
        codes = np.zeros((2, 700), int)
        assert encoded(MaskedLetters(steps=0).fitted(space, codes, 0), codes, 20).shape == (2, 2800)

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"channels": 0}, "channels >= 1"),
            ({"width": 2}, "odd width"),
            ({"steps": -1}, "steps >= 0"),
            ({"hidden": 1.0}, "0 < hidden < 1"),
        ],
    )
    def test_bad_settings_are_refused(self, options, words):
        with pytest.raises(InvalidParameter, match=words):
            MaskedLetters(**options)


@dataclass(frozen=True)
class Hard(Encoder):
    """Looks at the largest letter only."""

    def fitted(self, space, codes, seed):
        return lambda soft: torch.nn.functional.one_hot(soft.argmax(-1), 4).flatten(1).float()


@dataclass(frozen=True)
class Wrong(Encoder):
    """Features by a number: of a shape, not finite, or zero."""

    kind: str

    def fitted(self, space, codes, seed):
        if self.kind == "shape":
            return lambda soft: soft
        return lambda soft: soft.flatten(1) * (float("nan") if self.kind == "nan" else 0.0)


def test_encoders_that_cannot_be_used_are_refused(codes):
    table = table_of(codes)
    with pytest.raises(InvalidProblem, match="The encoder has no soft input: no gradient reaches"):
        proxy_of(table, Hard(), 0)
    with pytest.raises(InvalidProblem, match=r"shape \(2, 6, 4\); expected \(2, D\)"):
        proxy_of(table, Wrong("shape"), 0)
    with pytest.raises(InvalidProblem, match="features are not finite"):
        proxy_of(table, Wrong("nan"), 0)
    with pytest.raises(InvalidProblem, match="features of every row are zero"):
        proxy_of(table, Wrong("zero"), 0)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Two small models with their tokenizers: one of letters, one of words of three letters as DNABERT has them."""
    transformers = pytest.importorskip("transformers")
    found = {}
    for k in (1, 3):
        folder = tmp_path_factory.mktemp(f"bert{k}")
        words = [""]
        for _ in range(k):
            words = [w + c for w in words for c in "ACGT"]
        (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]))
        tokenizer = transformers.BertTokenizer(str(folder / "vocab.txt"), do_lower_case=False)
        torch.manual_seed(0)
        config = transformers.BertConfig(
            vocab_size=5 + len(words),
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=24,
        )
        model = transformers.BertModel(config).eval()
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        found[k] = (folder, tokenizer, model)
    return found


class TestPretrained:
    @pytest.mark.parametrize("k", [1, 3])
    def test_features_are_the_mean_hidden_layer_of_the_models_own_tokens(self, checkpoints, codes, k):
        folder, tokenizer, model = checkpoints[k]
        text = SPACE.decode(codes[:1])[0]
        words = " ".join(text[i : i + k] for i in range(6 - k + 1))
        with torch.no_grad():
            hidden = model(**tokenizer(words, return_tensors="pt")).last_hidden_state[0]
        assert len(hidden) == 6 - k + 1 + 2
        found = encoded(PretrainedEncoder(str(folder)).fitted(SPACE, codes, 0), codes[:1], 4)
        torch.testing.assert_close(found[0], hidden[1:-1].mean(0), rtol=1e-4, atol=1e-5)

    def test_a_gradient_reaches_the_letters(self, checkpoints, codes):
        table = table_of(codes)
        proxy = proxy_of(table, PretrainedEncoder(str(checkpoints[3][0])), 0)
        assert proxy.w.shape == (16,)

    def test_a_missing_folder_and_one_without_a_model_are_refused(self, tmp_path, codes):
        pytest.importorskip("transformers")
        with pytest.raises(UnreadableFile, match=r"No folder .*nowhere"):
            PretrainedEncoder(str(tmp_path / "nowhere"))
        with pytest.raises(UnreadableFile, match="holds no model with its tokenizer"):
            PretrainedEncoder(str(tmp_path)).fitted(SPACE, codes, 0)
        with pytest.raises(InvalidParameter, match="1 <= k <= 6"):
            PretrainedEncoder(str(tmp_path), k=9)

    def test_a_vocabulary_without_the_letters_is_refused(self, checkpoints):
        space = SequenceSpace("rna", 6)
        with pytest.raises(InvalidProblem, match="neither the letters ACGU nor words"):
            PretrainedEncoder(str(checkpoints[1][0])).fitted(space, np.zeros((1, 6), int), 0)

    def test_a_model_without_soft_input_is_refused(self, checkpoints, codes, monkeypatch):
        folder = checkpoints[1][0]
        transformers = pytest.importorskip("transformers")

        def forward(self, input_ids=None, **rest):
            raise TypeError("inputs_embeds is no argument")

        monkeypatch.setattr(transformers.BertModel, "forward", forward)
        with pytest.raises(InvalidProblem, match="the model has no soft input"):
            proxy_of(table_of(codes), PretrainedEncoder(str(folder)), 0)

    def test_without_transformers_the_extra_is_named(self, tmp_path, codes, monkeypatch):
        monkeypatch.setitem(sys.modules, "transformers", None)
        with pytest.raises(MissingExtra, match=r"thalweg\[bio\]"):
            PretrainedEncoder(str(tmp_path)).fitted(SPACE, codes, 0)
