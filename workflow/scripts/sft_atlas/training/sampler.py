"""Which rows make an optimiser step, and how they are dealt to micro-batches and processes."""

import math
from collections.abc import Iterator

import torch
from transformers.trainer_pt_utils import BatchRebalanceSampler

# Steps whose rows are sorted together where a recipe batches by length; TRL and transformers take 50 as well.
POOL = 50


class StepSampler(BatchRebalanceSampler):
    """Each step holds the rows that TRL would give it; within a step, rows of like length share a micro-batch.

    A step's gradient is the mean over its tokens, so how its rows are dealt changes last digits only, and the padding
    goes. The parent balances the work of the micro-batches; it pads a short last step by repeating rows, which would
    train them twice, so here that step has fewer micro-batches. With several processes, a row that trains nothing
    (index `len(lengths)`) stands in where one has no row left.
    """

    def __init__(
        self,
        lengths: list[int],
        batch: int,
        splits: int,
        seed: int,
        processes: int = 1,
        rank: int = 0,
        by_length: bool = False,
    ) -> None:
        super().__init__(
            lengths,
            effective_batch_size=batch,
            # the parent wants a row for each process; here one without a row has a stand-in
            dp_size=min(processes, batch),
            grad_accum=splits,
            seed=seed,
            rank=rank,
            drop_last=False,
        )
        self.dp_size = processes
        self.by_length = by_length

    def __iter__(self) -> Iterator[list[int]]:
        """Micro-batches of this process: `splits` for each full step, then those of the rest."""
        for rows in self.steps(self.epoch):
            if len(rows) == self.effective_batch_size >= self.grad_accum * self.dp_size:
                yield from self._yield_global_batch(rows)
            else:
                yield from self._rest(rows)

    def __len__(self) -> int:
        return self.num_full_batches * self.grad_accum + self._splits(self.remainder)

    def steps(self, epoch: int) -> list[list[int]]:
        """The rows of every optimiser step of an epoch (counted from 0), in TRL's order for the seed.

        `by_length` sorts within pools of `POOL` steps before they are cut into steps, whose order is then shuffled.
        """
        # accelerate's SeedableRandomSampler, which TRL uses by default, draws the same permutation
        generator = torch.Generator().manual_seed(self.seed + epoch)
        order: list[int] = torch.randperm(len(self.lengths), generator=generator).tolist()
        size = self.effective_batch_size
        if self.by_length:
            whole = len(order) - self.remainder
            pools = [order[start : min(start + POOL * size, whole)] for start in range(0, whole, POOL * size)]
            ordered = [row for pool in pools for row in sorted(pool, key=lambda row: self.lengths[row])]
            places = torch.randperm(whole // size, generator=generator).tolist()
            order = [row for place in places for row in ordered[place * size : (place + 1) * size]] + order[whole:]
        return [order[start : start + size] for start in range(0, len(order), size)]

    def _splits(self, rows: int) -> int:
        """Micro-batches of a step of so many rows."""
        return min(self.grad_accum, math.ceil(rows / self.dp_size))

    def _rest(self, rows: list[int]) -> Iterator[list[int]]:
        splits = self._splits(len(rows))
        ordered = sorted(rows, key=lambda row: self.lengths[row], reverse=True)
        groups = splits * self.dp_size
        shares = [len(ordered) // groups + (group < len(ordered) % groups) for group in range(groups)]
        starts = [sum(shares[:group]) for group in range(groups)]
        dealt = [ordered[start : start + share] for start, share in zip(starts, shares, strict=True)]
        for split in range(splits):
            yield dealt[split * self.dp_size + self.rank] or [len(self.lengths)]


def splits_for(batch: int, longest: int, tokens: int, processes: int = 1) -> int:
    """Into how many micro-batches a step of `batch` rows is dealt so that each pads to at most about `tokens`.

    A power of two, and never more than there are rows for each process.
    """
    wanted = max(1, batch * longest / (tokens * processes))
    most = max(1, batch // processes)
    return min(1 << math.ceil(math.log2(wanted)), most)
