"""The scores of sets of generated pictures, added up pair by pair."""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from examples.pose_morph.scores.frechet import ENOUGH, FeatureStatistics, frechet_distance
from examples.pose_morph.scores.protocols import (
    SET_PROTOCOLS,
    ProtocolName,
    SetProtocol,
    WeightFiles,
    make_features,
    make_pair_score,
)
from examples.pose_morph.scores.scored_pair import ScoredPair
from examples.pose_morph.scores.undefined import UndefinedScore

Picture = UInt8[Tensor, "3 h w"]
Statistics = dict[SetProtocol, FeatureStatistics]


class Scorer:
    """The protocols of one evaluation, with their networks loaded once."""

    def __init__(
        self,
        names: Sequence[ProtocolName],
        weights: WeightFiles,
        device: torch.device,
        *,
        required: Sequence[ProtocolName],
    ) -> None:
        """Load what the protocols need; one of ``required`` that cannot be computed is an error later on.

        Raises:
            UserError: a weight file does not fit.
        """
        self.scores = {name: make_pair_score(name, weights, device) for name in names if name not in SET_PROTOCOLS}
        self.networks: dict[SetProtocol, nn.Module] = {
            name: make_features(name, weights, device) for name in SET_PROTOCOLS if name in names
        }
        self.device, self.required = device, required
        self.left_out: dict[str, str] = {}

    def leave_out(self, name: ProtocolName, why: UndefinedScore) -> None:
        """Compute the protocol no further.

        Raises:
            UndefinedScore: it was asked for by name.
        """
        if name in self.required:
            raise why
        self.left_out[name] = str(why)
        self.scores.pop(name, None)

    def statistics(self) -> Statistics:
        """Return empty statistics for every Fréchet distance."""
        return {name: FeatureStatistics() for name in self.networks}

    def add_features(self, statistics: Statistics, pictures: Iterable[Picture]) -> None:
        """Take in the features of pictures, those of one size together."""
        by_size: dict[torch.Size, list[Picture]] = {}
        for picture in pictures:
            by_size.setdefault(picture.shape, []).append(picture)
        with torch.no_grad():
            for same in by_size.values():
                batch = torch.stack(same).to(self.device)
                for name, network in self.networks.items():
                    statistics[name].add(network(batch))


class Tally:
    """One set of generated pictures; only sums are kept, however many pictures come."""

    def __init__(self, scorer: Scorer) -> None:
        self.pairs = 0
        self._scorer = scorer
        self._sums: dict[str, float] = {}
        self._generated = scorer.statistics()

    def add(self, pairs: Sequence[ScoredPair]) -> None:
        """Take in some pairs; a score that is not defined for such small pictures is left out from here on.

        Raises:
            UndefinedScore: it was asked for by name.
        """
        for pair in pairs:
            for name, score in list(self._scorer.scores.items()):
                try:
                    self._sums[name] = self._sums.get(name, 0.0) + score(pair)
                except UndefinedScore as error:
                    self._scorer.leave_out(name, error)
        self.pairs += len(pairs)
        self._scorer.add_features(self._generated, (pair.result for pair in pairs))

    def result(self, real: Statistics) -> dict[str, float]:
        """Return every score; the Fréchet distances are to the statistics ``real``.

        Raises:
            UndefinedScore: a Fréchet distance was asked for by name, and there are too few pictures for one.
        """
        scores = {name: self._sums[name] / self.pairs for name in self._scorer.scores}
        for name, made in self._generated.items():
            try:
                scores[name] = frechet_distance(made, real[name])
            except UndefinedScore as error:
                self._scorer.leave_out(name, error)
        return scores

    def warnings(self, real: Statistics) -> list[str]:
        """Say which Fréchet distances rest on too few pictures to be compared with published ones."""
        return [
            f"{name}: {made.count} generated and {real[name].count} real pictures; with fewer than {ENOUGH} on a side "
            "a Fréchet distance is far too large, and the larger the fewer there are"
            for name, made in self._generated.items()
            if name not in self._scorer.left_out and min(made.count, real[name].count) < ENOUGH
        ]
