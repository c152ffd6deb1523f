"""Verdicts on what a model does on a text, and on what moves its rows."""

from collections.abc import Iterator

from decone.diagnosis import limits
from decone.diagnosis.result import Behaviour, Blame, Finding, ScanResult, Severity

RARE = (
    "Train on with a cure for rare tokens: `decone compare --methods mle,threshold:margin=1+row-adamw,agg` shows what "
    "each does to your text."
)
DULL = "Train on with `decone train --set method=scalegrad:gamma=0.2` (or `unlikelihood`), or decode with top-p."
ENOUGH = 30  # rare tokens in the text below which their perplexity says little
SCALE = "Divide the logits by T best when sampling; after thresholding such a T is expected."


def behaviour_findings(result: ScanResult) -> Iterator[Finding]:
    """The verdicts that need a text; none without one."""
    if result.behaviour is not None:
        yield from _rare_perplexity(result.behaviour)
        yield from _repetition(result.behaviour)
        yield from _temperature(result.behaviour)
    if result.blame is not None:
        yield from _pull(result.blame)


def _rare_perplexity(behaviour: Behaviour) -> Iterator[Finding]:
    rare, frequent = behaviour.groups.get("rare"), behaviour.groups.get("frequent")
    if not rare or not frequent or rare.perplexity is None or frequent.perplexity is None or rare.tokens < ENOUGH:
        return
    value = rare.perplexity / frequent.perplexity
    compared = (
        f"a perplexity of {rare.perplexity:,.4g} on rare tokens against {frequent.perplexity:,.4g} on frequent ones"
    )
    meanings: dict[Severity, str] = {
        "good": f"Rare tokens are predicted nearly as well as frequent ones: {compared}.",
        "note": f"Rare tokens are harder than frequent ones, as they should be: {compared}.",
        "warning": f"Rare tokens are predicted badly: {compared}.",
        "serious": f"Rare tokens are hardly predicted at all: {compared}.",
    }
    evidence = {"rare": rare.perplexity, "frequent": frequent.perplexity, "ratio": value, "rare_tokens": rare.tokens}
    yield limits.RARE_PERPLEXITY.finding("rare-perplexity", "Rare tokens in text", value, meanings, RARE, evidence)


def _repetition(behaviour: Behaviour) -> Iterator[Finding]:
    greedy, human = behaviour.decoding.get("greedy"), behaviour.decoding.get("human")
    if not greedy or not human or "3" not in greedy.rep or "3" not in human.rep:
        return
    value = greedy.rep["3"] - human.rep["3"]
    compared = f"{greedy.rep['3']:.0%} of its word triples are repeats, in the text itself {human.rep['3']:.0%}"
    meanings: dict[Severity, str] = {
        "good": f"Greedy text repeats itself about as much as people do: {compared}.",
        "note": f"Greedy text repeats itself a little more than people do: {compared}.",
        "warning": f"Greedy text repeats itself: {compared}.",
        "serious": f"Greedy text runs in circles: {compared}.",
    }
    evidence = {"greedy_rep_3": greedy.rep["3"], "human_rep_3": human.rep["3"], "uniq_words": greedy.uniq_words}
    yield limits.REPETITION.finding("repetition", "Repetition", value, meanings, DULL, evidence)


def _temperature(behaviour: Behaviour) -> Iterator[Finding]:
    if behaviour.perplexity is None or behaviour.best_perplexity is None:
        return
    value, side = abs(1 - behaviour.best_temperature), "flat" if behaviour.best_temperature < 1 else "sharp"
    best = f"perplexity is lowest at T = {behaviour.best_temperature:.2f}"
    change = f"{behaviour.perplexity:,.4g} becomes {behaviour.best_perplexity:,.4g}"
    meanings: dict[Severity, str] = {
        "good": f"The scale of the logits fits: {best}.",
        "note": f"The logits are a little too {side}: {best}, where {change}.",
        "warning": f"The logits are too {side}: {best}, where {change}.",
        "serious": f"The logits are far too {side}: {best}, where {change}.",
    }
    evidence = {
        "best_temperature": behaviour.best_temperature,
        "perplexity": behaviour.perplexity,
        "best_perplexity": behaviour.best_perplexity,
    }
    yield limits.TEMPERATURE.finding("temperature", "Scale of the logits", value, meanings, SCALE, evidence)


def _pull(blame: Blame) -> Iterator[Finding]:
    value = blame.ratio_of_average.get("rare")
    if value is None:
        return
    ratio = f"what speaks for a rare token moves its row {value:.2g} times as much as all targets that are not it"
    meanings: dict[Severity, str] = {
        "good": f"Rare rows are moved by their own text: {ratio}.",
        "note": f"Rare rows are moved more by other tokens' targets than by their own text: {ratio}.",
        "warning": f"Rare rows are mostly pushed: {ratio}.",
        "serious": f"Rare rows are nothing but pushed: {ratio}.",
    }
    evidence = {"ratio_of_average": blame.ratio_of_average, "average_of_ratio": blame.average_of_ratio}
    yield limits.PULL.finding("push", "Pull and push on rare rows", value, meanings, RARE, evidence)
