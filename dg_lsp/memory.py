"""What was offered in one document, so that typing along an offer needs no engine.

An offer is remembered by all the text before the cursor that its plan had, and exactly the text after it. It is offered
again where the user has typed, accepted or deleted so that the text before the cursor is that text and a head of the
offer, and the text after it is the same, or has before it the closers that an editor puts there for what was typed. A
plan's prefix begins in another place from time to time; two prefixes are then the same text as far as the shorter goes.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from dg_lsp.brackets import scan
from dg_lsp.fitting import closing
from dg_lsp.planning import Plan, Silence
from dg_lsp.postprocess import Suggestion, suggestion

_CLOSERS = ")]}\"'`"
_MOST_CLOSERS = 6
_KNOWN_AFTER = 512
"""Characters; a suffix that is cut is known to be the same if so many are."""


class _Offer(NamedTuple):
    """One offer: `text` between `before` and `after`, in place of the first `replaced` characters of `after`."""

    before: str
    before_is_cut: bool
    after: str
    text: str
    replaced: int


class _Rest(NamedTuple):
    """How far an offer has been typed, and the characters after the cursor that its rest takes the place of."""

    typed: int
    replaced: int


class Memory:
    """The last offers of one document, `capacity` at most; the ones used least recently go first."""

    def __init__(self, capacity: int = 64) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, not {capacity}")
        self._capacity = capacity
        self._offers: OrderedDict[_Offer, None] = OrderedDict()
        self._accepted: dict[_Offer, int] = {}
        """Those that were taken whole, and how much of them stood there when last asked."""

    def __len__(self) -> int:
        return len(self._offers)

    def keep(self, plan: Plan, suggestion: Suggestion) -> None:
        """Remember that `suggestion` was offered for `plan`."""
        offer = _Offer(
            before=plan.prefix,
            before_is_cut=plan.prefix_is_cut,
            after=plan.suffix,
            text=suggestion.text[len(plan.typed) :],
            replaced=suggestion.end.column - plan.point.column,
        )
        self._offers[offer] = None
        self._offers.move_to_end(offer)
        while len(self._offers) > self._capacity:
            oldest, _ = self._offers.popitem(last=False)
            self._accepted.pop(oldest, None)

    def recall(self, plan: Plan) -> Suggestion | None:
        """What is left of the newest offer that goes on at the plan's cursor, if there is one."""
        for offer in reversed(self._offers):
            rest = _rest(offer, plan)
            if rest is None:
                continue
            if rest.typed == len(offer.text):
                self._accepted[offer] = rest.typed
                continue
            found = suggestion(plan, offer.text[rest.typed :], rest.replaced)
            if isinstance(found, Suggestion):
                self._offers.move_to_end(offer)
                return found
        return None

    def goes_on(self, plan: Plan) -> bool:
        """Whether a part of an offer stands before the plan's cursor, and another part does not yet."""
        rests = ((offer, _rest(offer, plan)) for offer in self._offers if offer not in self._accepted)
        return any(rest is not None and 0 < rest.typed < len(offer.text) for offer, rest in rests)

    def declined(self, plan: Plan) -> Silence | None:
        """Why an automatic request gets nothing: its offer was taken whole and then undone, or deleted as far as here.

        Who types it again wants it.
        """
        undone = [self._is_undone(offer, plan) for offer in list(self._accepted)] if plan.automatic else []
        return Silence("The user took this completion and undid it.") if any(undone) else None

    def _is_undone(self, offer: _Offer, plan: Plan) -> bool:
        typed = _typed(offer, plan) if plan.suffix == offer.after else None
        if typed is None:
            return False
        if typed > self._accepted[offer]:
            del self._accepted[offer]
            return False
        self._accepted[offer] = typed
        return typed < len(offer.text)


def _rest(offer: _Offer, plan: Plan) -> _Rest | None:
    """What is left of the offer at the plan's cursor, None where the texts differ."""
    added = _added(offer, plan)
    if added is None:
        return _Rest(len(offer.text), 0) if _is_taken(offer, plan) else None
    typed = _typed(offer, plan)
    if typed is None:
        return None
    written = _written(added, offer, typed, plan)
    return None if written is None else _Rest(typed, offer.replaced + written)


def _added(offer: _Offer, plan: Plan) -> str | None:
    """What stands after the plan's cursor and before all that stood there, None where that has changed."""
    first = plan.suffix[:_MOST_CLOSERS]
    sizes = range(len(first) - len(first.lstrip(_CLOSERS)) + 1)
    size = next((size for size in sizes if _same_after(offer, plan, size)), None)
    return None if size is None else plan.suffix[:size]


def _same_after(offer: _Offer, plan: Plan, size: int) -> bool:
    after = plan.suffix[size:]
    # Where a suffix is cut its end depends on its beginning.
    return after == offer.after or (plan.suffix_is_cut and len(after) > _KNOWN_AFTER and offer.after.startswith(after))


def _written(added: str, offer: _Offer, typed: int, plan: Plan) -> int | None:
    """How many of the closers `added`, of what the head typed of the offer leaves open, its rest writes itself.

    None where they are others. Those that it does not write stay behind it, as behind an offer that was cut.
    """
    if not added:
        return 0
    head, whole = scan(offer.text[:typed], plan.language), scan(offer.text, plan.language)
    if added != head.quote + closing(head.openers):
        return None
    is_open = (whole.quote, whole.string_at) == (head.quote, head.string_at)
    left = head.quote if is_open else ""
    left += closing(opener for opener in whole.openers if opener.offset < typed)
    # What an offer takes the place of lies behind them.
    return None if left and offer.replaced else len(added) - len(left)


def _typed(offer: _Offer, plan: Plan) -> int | None:
    """How many characters of the offer stand before the plan's cursor, None where the texts differ."""
    # The prefixes begin alike, save where a cut came or moved in between: one time in a KiB of typing.
    same = len(plan.prefix) - len(offer.before)
    counts = [same] if 0 <= same <= len(offer.text) else []
    if plan.prefix_is_cut or offer.before_is_cut:
        counts += range(len(offer.text), -1, -1)
    return next((count for count in counts if _agree(offer, offer.before + offer.text[:count], plan)), None)


def _is_taken(offer: _Offer, plan: Plan) -> bool:
    """Whether the whole offer stands before the plan's cursor, and what it replaced has gone."""
    has_gone = offer.replaced > 0 and plan.suffix.startswith(offer.after[offer.replaced :])
    return has_gone and _agree(offer, offer.before + offer.text, plan)


def _agree(offer: _Offer, text: str, plan: Plan) -> bool:
    """Whether `text` and the plan's prefix end alike, as far back as both are known."""
    if len(text) == len(plan.prefix):
        return text == plan.prefix
    if len(text) > len(plan.prefix):
        return plan.prefix_is_cut and text.endswith(plan.prefix)
    return offer.before_is_cut and plan.prefix.endswith(text)
