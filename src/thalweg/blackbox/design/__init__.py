"""Sequences with scores in a table: better ones proposed without any further experiment."""

from thalweg.blackbox.design.adaptive import AdaptiveEta, AdaptiveGamma
from thalweg.blackbox.design.bidirectional import BidirectionalDesign, ProxyAscent
from thalweg.blackbox.design.encoders import Encoder, InfiniteNetwork, KMers, LetterPairs, OneHot
from thalweg.blackbox.design.masked import MaskedLetters
from thalweg.blackbox.design.problem import SequenceTable
from thalweg.blackbox.design.space import SequenceSpace
