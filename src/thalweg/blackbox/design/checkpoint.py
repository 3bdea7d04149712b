"""Encoders that others have trained: models of Hugging Face's transformers in a folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from thalweg.blackbox.design.encoders import MOST, Encoder, Features, words_of
from thalweg.blackbox.design.space import Codes, SequenceSpace
from thalweg.core import InvalidProblem, MissingExtra, UnreadableFile
from thalweg.core.validation import is_whole, require

#: Words of up to so many letters are looked for in a vocabulary.
LONGEST = 6


@dataclass(frozen=True)
class PretrainedEncoder(Encoder):
    """The mean of the last hidden layer of a pre-trained model: DNABERT, ESM, ProtBert, Prot-T5 and their like.

    Letters' probabilities go in as mixtures of the model's own embeddings; special tokens stand around them and are
    left out of the mean.

    Tokens are letters, or words of k letters one letter apart (DNABERT). Nothing is downloaded, and no
    code of the folder is run.

    Args:
        path: a folder with the model and its tokenizer, as ``save_pretrained`` writes it.
        k: letters of a token. Default: 1 if the vocabulary has all letters, else the shortest that it has.
        device: where the model is. Default the processor.

    Raises:
        MissingExtra: transformers is not installed.
        UnreadableFile: no such folder, or no model in it.
        InvalidProblem: a vocabulary that has neither letters nor words of the alphabet; a model without soft input.

    Cost: the model forward and backward on all designs a step.
    """

    path: str
    k: int | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        usable = self.k is None or (is_whole(self.k) and 1 <= self.k <= LONGEST)
        require(usable, f"PretrainedEncoder needs 1 <= k <= {LONGEST}", got=self.k)
        if not Path(self.path).is_dir():
            raise UnreadableFile(
                f"No folder {self.path}. Expected a model and its tokenizer, as save_pretrained() writes them."
            )

    def fitted(self, space: SequenceSpace, codes: Codes, seed: int) -> Features:
        tokenizer, model = self._loaded()
        k, ids = self._words(tokenizer, space)
        table = _embedding(model, self.path)
        before, after = _specials(tokenizer, ids)
        weights = table(torch.tensor(ids, device=self.device))
        ends = [table(torch.tensor(e, dtype=torch.long, device=self.device)) for e in (before, after)]
        inner = slice(len(before), len(before) + space.positions - k + 1)
        call = self._call(model)

        def features(soft: Tensor) -> Tensor:
            words = words_of(soft.to(self.device, weights.dtype), k) @ weights
            around = [end.expand(len(soft), *end.shape) for end in ends]
            return call(torch.cat([around[0], words, around[1]], 1))[:, inner].mean(1).cpu()

        return features

    def _loaded(self) -> tuple[Any, Any]:
        try:
            from transformers import AutoModel, AutoTokenizer
        except ImportError:
            raise MissingExtra("transformers", "bio") from None
        try:
            tokenizer = AutoTokenizer.from_pretrained(self.path, local_files_only=True)
            model = AutoModel.from_pretrained(self.path, local_files_only=True)
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise UnreadableFile(f"{self.path} holds no model with its tokenizer: {reason}") from error
        if getattr(model.config, "is_encoder_decoder", False):
            model = model.get_encoder()
        return tokenizer, model.to(self.device).eval().requires_grad_(False)

    def _words(self, tokenizer: Any, space: SequenceSpace) -> tuple[int, list[int]]:  # noqa: ANN401
        """The length of a token in letters, and the ids of all such words, in the order of `words_of`."""
        vocabulary = tokenizer.get_vocab()
        longest = min(LONGEST, space.positions)
        for k in range(self.k or 1, min(self.k or longest, longest) + 1):
            if space.letters**k > MOST:
                break
            words = [""]
            for _ in range(k):
                words = [word + letter for word in words for letter in space.alphabet]
            # Some vocabularies mark a word's beginning, some have small letters only.
            for spell in (str, str.lower, "▁{}".format):
                found = [vocabulary.get(spell(word)) for word in words]
                if all(token is not None for token in found):
                    return k, [int(token) for token in found]
        raise InvalidProblem(
            f"{self.path}: its vocabulary has neither the letters {space.alphabet} nor words of up to {LONGEST} of "
            "them."
        )

    def _call(self, model: Any) -> Callable[[Tensor], Tensor]:  # noqa: ANN401
        def call(embedded: Tensor) -> Tensor:
            try:
                hidden: Tensor = model(inputs_embeds=embedded).last_hidden_state
            except (TypeError, AttributeError) as error:
                raise InvalidProblem(
                    f"{self.path}: the model has no soft input ({type(error).__name__}: {error}). It has to take "
                    "inputs_embeds and give last_hidden_state."
                ) from error
            return hidden

        return call


def _embedding(model: Any, path: str) -> Any:  # noqa: ANN401
    try:
        return model.get_input_embeddings()
    except NotImplementedError as error:
        raise InvalidProblem(
            f"{path}: the model has no soft input: it has no table of embeddings."
        ) from error


def _specials(tokenizer: Any, ids: list[int]) -> tuple[list[int], list[int]]:  # noqa: ANN401
    """The tokens that the model's tokenizer puts before and after."""
    inside = ids[:2]
    words = [str(token).lstrip("▁") for token in tokenizer.convert_ids_to_tokens(inside)]
    around = [int(token) for token in tokenizer(" ".join(words))["input_ids"]]
    at = next((i for i in range(len(around)) if around[i : i + 2] == inside), None)
    if at is not None:
        return around[:at], around[at + 2 :]
    first, last = tokenizer.cls_token_id, tokenizer.sep_token_id or tokenizer.eos_token_id
    return [token for token in (first,) if token is not None], [t for t in (last,) if t is not None]
