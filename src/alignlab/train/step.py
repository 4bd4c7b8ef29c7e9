"""One optimiser step: denominators, batch statistics, gradients, each over the whole step, however it is cut or spread.

The batch statistics come first, where a loss has them; then the denominators, from masks and weights alone; then the
gradients of every micro-batch's share of the loss. Shares add up to the loss of one big batch; nothing is averaged on
the way. Where a step is one micro-batch, one forward pass serves statistics and loss; where it is several, their
activations are not all kept until the statistics are known, and what both look at is computed again.
"""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from alignlab.core.reduce import share, totals
from alignlab.core.types import Groups, Term
from alignlab.engine import attention, sharded, work
from alignlab.engine.encode import Example, same_token_ids
from alignlab.engine.load import LanguageModel
from alignlab.train import batches, contexts, evaluation, inputs
from alignlab.train.distributed import everyone
from alignlab.train.log import Sums, with_logs
from alignlab.train.mismatched import Rows

Loss = Callable[..., tuple[Term, ...]]
Settle = Callable[[Mapping[str, tuple[Tensor, Tensor]], Mapping[str, float], Any], dict[str, float]]
"""(items of the step's statistics, what was returned for the step before, settings) -> name -> number for the loss.
Items: name -> (num, den), each [items] float64 over the whole step, in no order that means anything."""
SPENT = ("distinct_tokens", "computed_tokens", "teraflops", "floor_teraflops")
Cut = tuple[Sequence[int], bool]
"""indices of a micro-batch, and whether it counts"""
Part = tuple[Groups, bool]
"""a micro-batch on the host, and whether it counts (False: it is there only to keep ranks in step)"""


class Stepper:
    """What turns examples into the gradient of a step, or into metrics without one."""

    def __init__(
        self, model: LanguageModel, accelerator: Accelerator, loss: Loss, stats: Loss | None, objective_config: Any,
        *, per_device: int, bf16: bool, settle: Settle | None = None, needs: Collection[str] = (),
        ref_cache: str = "none",
    ) -> None:  # fmt: skip
        self._accelerator, self._loss, self._stats, self._objective = accelerator, loss, stats, objective_config
        self._per_device, self._bf16, self._settle, self._ref_cache = per_device, bf16, settle, ref_cache
        self.carried: dict[str, float] = {}
        """what `settle` returned for the last step"""
        self._tokenizer, self._pad = model.tokenizer, model.tokenizer.pad_token_id
        self._contexts = sorted(name.removeprefix("policy/") for name in needs if name.startswith("policy/"))
        self.ranks = accelerator.num_processes
        self._bare = batches.Scorer(model, bf16)
        self._module = model.module
        self.spent: dict[str, float] = dict.fromkeys(SPENT, 0.0)
        """what this rank has computed since it was last asked"""
        self._sharded, self._rest = sharded.is_sharded(model.module), None
        alone = self.ranks == 1 or self._sharded
        self.scorer: nn.Module = self._bare if alone else accelerator.prepare(self._bare)

    def _cut(self, items: Sequence[int], examples: Sequence[Example]) -> list[Cut]:
        rank = self._accelerator.process_index
        # by the model's class alone, so that a run that is resumed cuts as it did
        even = attention.refusal(self._module) is None
        return batches.micro_batches(items, examples, self._per_device, rank, self.ranks, even=even)

    def all_parts(
        self, items: Sequence[int], rows: Rows, reference: batches.Values
    ) -> tuple[list[Part], list[Part] | None]:
        """Return this rank's micro-batches of a step, and those of its mismatched examples, where these are apart."""
        cut, lent = self._cuts(items, rows)
        return self._parts(cut, rows, reference), None if lent is None else self._parts(lent, rows, reference)

    def _parts(self, cut: Sequence[Cut], rows: Rows, reference: batches.Values) -> list[Part]:
        return [(batches.batch_of(indices, rows.examples, reference, self._pad), counts) for indices, counts in cut]

    def _cuts(self, items: Sequence[int], rows: Rows) -> tuple[list[Cut], list[Cut] | None]:
        """Return what is in the micro-batches of `all_parts`."""
        lent, mine = rows.of_step(items), self._cut(items, rows.examples)
        if lent is None:
            return mine, None
        if self._one_part(len(items)):
            return [(rows.beside(indices, lent), counts) for indices, counts in mine], None
        return mine, self._cut(lent, rows.examples)

    def _one_part(self, rows: int) -> bool:
        """Whether a step of so many rows is scored once; dropout is on for the loss, and off for statistics."""
        return rows <= self._per_device * self.ranks and not self._contexts and not batches.dropouts(self._module)

    def gradients(
        self, parts: list[Part], mismatched: list[Part] | None = None
    ) -> tuple[list[tuple[Term, ...]], Tensor, int]:
        """Add the gradient of a whole step's loss to the parameters, before any clipping.

        Args:
            parts: this rank's micro-batches.
            mismatched: what the statistics look at, where that is not `parts` themselves. None: of `parts`, those of
                origin `mismatched` are looked at only.

        Returns:
            Terms and logs of this rank's micro-batches, this rank's share of the loss, and the number of terms left out
            because their denominator is 0 over the whole step.
        """
        looked_at = parts if mismatched is None else mismatched
        looking, learning, ahead = work.Work(), work.Work(), []
        if self._stats is not None and mismatched is None and len(parts) == 1 and not batches.dropouts(self._module):
            ahead = [self._learnt(parts[0][0], learning, looking)]
        with work.measured(looking):
            values = self._statistics(looked_at, ahead)
        if self._settle is not None and values is not None:
            self.carried = values
        sums = totals(self._terms(batches.with_zero_views(part), counts, values) for part, counts in parts)
        denominators = {name: den for name, (_, den) in self.reduce(sums).items()}
        seen, whole = [], torch.zeros((), device=self._accelerator.device)
        for k, (part, counts) in enumerate(parts):
            # ranks exchange gradients in the last backward pass of a step only, unless none could hold them whole
            together = k == len(parts) - 1 or self.ranks == 1 or self._sharded
            with contextlib.nullcontext() if together else self._accelerator.no_sync(self.scorer):
                scored = ahead[k] if ahead else self._learnt(part, learning, looking)
                terms = self._terms(scored, counts, values)
                loss = share(terms, denominators)
                # DDP and FSDP take the mean over ranks, but the shares are to be added
                self._accelerator.backward(loss * self.ranks + (0.0 if self._rest is None else self._rest))
            seen.append(with_logs(terms))
            whole = whole + loss.detach()
        self._spend(learning, looking, parts, [] if mismatched is None else mismatched)
        return seen, whole, sum(den == 0.0 for den in denominators.values())

    def _learnt(self, part: Groups, learning: work.Work, looking: work.Work) -> Groups:
        """Score a micro-batch with gradient, but for what it only looks at; count both."""
        with work.measured(looking) as found:
            scored = self._scored(part, self.scorer)
        self._rest = sharded.finish(self._module)
        learning.add(found)
        return scored

    def _spend(self, learning: work.Work, looking: work.Work, parts: list[Part], mismatched: list[Part]) -> None:
        """Add a step to what was spent; its floor holds each distinct node of the step once."""
        price = work.price(self._module)
        whole = [contexts.widened(part, self._contexts)[0] for part, counts in [*parts, *mismatched] if counts]
        own = [batches.own(part) for part, counts in parts if counts]
        least = work.least(self._module, [contexts.widened(part, self._contexts)[0] for part in own])
        both = work.least(self._module, whole) if looking.tokens else least
        found = {
            "distinct_tokens": both.tokens, "computed_tokens": learning.tokens + looking.tokens,
            "teraflops": (price.step(learning) + price.forward(looking)) / 1e12,
            "floor_teraflops": price.floor(least, both) / 1e12,
        }  # fmt: skip
        self.spent = {name: self.spent[name] + value for name, value in found.items()}

    def take_spent(self) -> dict[str, float]:
        """Return what all ranks have spent since this was last asked; every rank must ask."""
        found = self.reduce({name: (value, 1.0) for name, value in self.spent.items()})
        self.spent = dict.fromkeys(SPENT, 0.0)
        return {name: value for name, (value, _) in found.items()}

    @torch.no_grad()
    def evaluate(self, rows: Rows, reference: batches.Values) -> dict[str, float]:
        """Return loss and logs over all rows, as if they were one step, with intervals: `evaluation.figures`.

        Statistics carried along are frozen.
        """
        cut, lent = self._cuts(range(rows.rows), rows)
        parts = self._parts(cut, rows, reference)
        # what was learnt of the training data is not unlearnt on held-out rows
        values = self.carried or self._statistics(parts if lent is None else self._parts(lent, rows, reference))
        found, weights = {}, {}
        for (indices, counts), (part, _) in zip(cut, parts):
            scored = batches.moved(self._scored(part, self._bare), torch.device("cpu"))
            for i, row in zip(indices, evaluation.rows_of(scored, [rows.examples[i] for i in indices])):
                if counts and i < rows.rows:  # what another row has lent has no figures of its own
                    terms = self._terms(row, counts, values)
                    weights |= {f"loss/{term.name}": term.weight for term in terms}
                    found[i] = totals([with_logs(terms)])
        sharded.finish(self._module)
        for others, theirs in everyone((found, weights), self.ranks):
            found, weights = found | others, weights | theirs
        return evaluation.figures([found[i] for i in sorted(found)], weights)

    def needs_reference(self, examples: Sequence[Example], held_out: Sequence[Example] = ()) -> bool:
        """Whether the loss, or its statistics, read the view `ref`; an error where loss and data do not go together."""

        def everything(batch: Groups) -> None:
            values: dict[str, float] | None = None
            if self._stats is not None:
                found = self._stats(batch, self._objective)
                values = self._settle(_items(found), {}, self._objective) if self._settle else _ratios(totals([found]))
            self._terms(batch, True, values)

        read = inputs.views_of(everything, examples, self._pad)
        return "ref" in read | inputs.views_of(everything, held_out, self._pad, "evaluation row")

    def references(
        self,
        model: LanguageModel | None,
        examples: Sequence[Example],
        wanted: Sequence[int],
        move: Callable[[str], None],
    ) -> batches.Values:
        """Score the wanted examples once with a reference model, or with the policy as it is now, or look them up.

        ValueError: a reference with another tokenizer, to which the token ids would mean something else.
        """
        if model is not None:
            same_token_ids(self._tokenizer, model, "reference", "the policy")
            model.module.to(self._accelerator.device)
        score = self._bare if model is None else batches.Scorer(model, self._bf16)
        cache = score.cache(self._ref_cache)
        return batches.reference_values(score, examples, wanted, self._pad, self._accelerator, move, cache)

    def reduce(self, sums: Sums) -> Sums:
        """Add up sums over ranks."""
        if self.ranks == 1:
            return sums
        gathered = everyone(sums, self.ranks)
        names = dict.fromkeys(name for part in gathered for name in part)
        columns = {name: [part[name] for part in gathered if name in part] for name in names}
        return {
            name: (math.fsum(n for n, _ in pairs), math.fsum(d for _, d in pairs)) for name, pairs in columns.items()
        }

    def _scored(self, part: Groups, scorer: nn.Module) -> Groups:
        batch = batches.moved(part, self._accelerator.device)
        at = batches.top_ids_of(batch)
        if at is not None:
            return dataclasses.replace(batch, views={**batch.views, "policy": batches.top_view(scorer(batch, at), at)})
        asked, picked = contexts.widened(batch, self._contexts) if self._contexts else (batch, [])
        logp = contexts.split(scorer(asked), batch, picked)
        names = ("policy", *(f"policy/{name}" for name in self._contexts))
        said = {name: self._bare.view(numbers) for name, numbers in zip(names, logp)}
        return dataclasses.replace(batch, views={**batch.views, **said})

    def _terms(self, batch: Groups, counts: bool, values: Mapping[str, float] | None) -> tuple[Term, ...]:
        terms = self._loss(batch, self._objective, *(() if values is None else (values,)))
        return terms if counts else tuple(dataclasses.replace(t, num=t.num * 0.0, den=t.den * 0.0) for t in terms)

    @torch.no_grad()
    def _statistics(self, parts: list[Part], ahead: Sequence[Groups] = ()) -> dict[str, float] | None:
        """Return the batch statistics of a step, complete before any loss is computed; None where a loss has none.

        `ahead`: the same micro-batches with their views, where these are there already.
        """
        if self._stats is None:
            return None
        # a loss that asks for no statistic with these settings costs no forward pass
        asked = [
            k for k, (p, counts) in enumerate(parts)
            if counts and self._stats(batches.with_zero_views(p), self._objective)
        ]  # fmt: skip
        seen = (ahead[k] if ahead else self._scored(parts[k][0], self._bare) for k in asked)
        found = [self._stats(batch, self._objective) for batch in seen]
        sharded.finish(self._module)
        if self._settle is None:
            return _ratios(self.reduce(totals(found)))
        return self._settle(self._gathered(found), self.carried, self._objective)

    def _gathered(self, found: Sequence[tuple[Term, ...]]) -> dict[str, tuple[Tensor, Tensor]]:
        """Put the items of all micro-batches and ranks one behind the other, on the host."""
        mine = [[(t.name, t.num.double().cpu(), t.den.double().cpu()) for t in terms] for terms in found]
        columns: dict[str, list[tuple[Tensor, Tensor]]] = {}
        for name, num, den in (term for part in everyone(mine, self.ranks) for terms in part for term in terms):
            columns.setdefault(name, []).append((num, den))
        return {name: (torch.cat([n for n, _ in c]), torch.cat([d for _, d in c])) for name, c in columns.items()}


def _items(terms: tuple[Term, ...]) -> dict[str, tuple[Tensor, Tensor]]:
    return {term.name: (term.num.double(), term.den.double()) for term in terms}


def _ratios(sums: Sums) -> dict[str, float]:
    return {name: num / den for name, (num, den) in sums.items() if den != 0.0}
