"""Verdicts of a scan: from numbers to words, and the limits where a number stops being good, each with its source.

Where a paper gives a number it is the paper's. The others are ours, laid between tables known to be healthy and tables
known to be ill; docs/scan.md lists what was measured on which table.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from decone.diagnosis.result import (
    SUSPECTS,
    Behaviour,
    Blame,
    Finding,
    RowFinding,
    ScanResult,
    TableFacts,
)
from decone.document.blocks import SEVERITIES, Severity
from decone.document.numbers import id_ranges
from decone.files.foreign import plain
from decone.metrics.undertrained import UNUSUAL

OURS = "our own limit, laid between measured healthy and ill tables (docs/scan.md)"


@dataclass(frozen=True)
class SeverityLimits:
    """Rising severities of one number.

    Attributes:
        note: from here on the number is worth a note.
        warning: from here on it is a warning.
        serious: from here on it is serious.
        source: where the limits come from.
        rising: a higher number is worse; False where a lower one is.
    """

    note: float
    warning: float
    serious: float
    source: str
    rising: bool = True

    def severity(self, value: float) -> Severity:
        """Severity of a number.

        Example:
            >>> CONE.severity(0.0), CONE.severity(0.45)
            ('good', 'serious')
        """
        sign = 1 if self.rising else -1
        passed = sum(sign * value >= sign * limit for limit in (self.note, self.warning, self.serious))
        return SEVERITIES[-1 - passed]

    def finding(
        self,
        code: str,
        title: str,
        value: float,
        meanings: Mapping[Severity, str],
        remedy: str,
        evidence: Mapping[str, Any],
    ) -> Finding:
        """Verdict on a number: `meanings` by severity, `remedy` where it is not good."""
        severity = self.severity(value)
        return Finding(
            code=code,
            severity=severity,
            title=title,
            meaning=meanings[severity],
            remedy="" if severity == "good" else remedy,
            evidence=dict(evidence),
            source=self.source,
        )


# Rows of independent directions have a mean cosine of 0. Gao et al. 2019 show ill tables whose rows lie on one side of
# the origin, Ethayarajh 2019 reads the mean cosine as anisotropy; neither names a limit.
CONE = SeverityLimits(0.1, 0.2, 0.4, f"mean cosine as anisotropy, Ethayarajh 2019; {OURS}")
# Yu et al. 2022, Figure 2: what degenerates is how the rare rows lie to each other, the others follow.
RARE_CONE = SeverityLimits(
    0.15, 0.3, 0.5, f"rare and frequent rows apart, Yu et al. 2022, section 3 and Figure 2; {OURS}"
)
# Share of the squared singular values in the first one; a random table of V rows and width H has about 1 / H.
FIRST_DIRECTION = SeverityLimits(
    0.1, 0.25, 0.5, f"spectrum, Wang et al. 2020; common direction, Mu and Viswanath 2018; {OURS}"
)
EFFECTIVE_RANK = SeverityLimits(
    0.75, 0.5, 0.25, f"effective rank, Roy and Vetterli 2007, over min(V, H); {OURS}", rising=False
)
# Land and Bartolo 2024 look closer at the 2 % of the vocabulary that their indicators rank highest.
UNDERTRAINED = SeverityLimits(
    0.002, 0.01, 0.02, f"share of the vocabulary; candidates in Land and Bartolo 2024; {OURS}"
)
UNREACHABLE = SeverityLimits(0.0005, 0.01, 0.05, OURS)
RARE_PERPLEXITY = SeverityLimits(
    10.0, 100.0, 1000.0, f"perplexity of rare over that of frequent tokens, after Yu et al. 2022, Table 1; {OURS}"
)
TEMPERATURE = SeverityLimits(0.05, 0.15, 0.4, f"|1 - T best|, Turumtaev, Stop Jostling, section 4.3; {OURS}")
REPETITION = SeverityLimits(
    0.05, 0.2, 0.4, f"Rep-3 of greedy text less that of human text, Lin et al. 2021, Table 1; {OURS}"
)
# Turumtaev, Figure 3: below 1 a row is moved more by targets that are not it than by all that speaks for it.
PULL = SeverityLimits(1.0, 0.5, 0.1, f"Ratio of Average, Turumtaev, Stop Jostling, Figure 3; {OURS}", rising=False)


CURE = (
    "Train on with a cure: `decone compare --methods mle,threshold:margin=1+row-adamw` shows what it does to a text, "
    '`objectives.get("threshold", margin=1.0)` puts it into your own loop.'
)
REPAIR = (
    " Without training, `decone repair directions MODEL --dry-run` shows what taking out the common direction changes."
)
NAMES = {"embedding": "input table", "head": "output table"}


def table_findings(result: ScanResult) -> Iterator[Finding]:
    """Verdicts on every table, in the order input, output."""
    for name, facts in result.tables.items():
        where = NAMES[name] if len(result.tables) > 1 else "table"
        yield _cone(name, where, facts)
        yield from _rare_cone(name, where, facts, result)
        yield _first_direction(name, where, facts)
        yield _effective_rank(name, where, facts, min(result.model.rows, result.model.width))


def output_table(result: ScanResult) -> TableFacts:
    """Table that makes logits: the head, or the embedding where there is no other."""
    return result.tables.get("head") or result.tables["embedding"]


def _cone(name: str, where: str, facts: TableFacts) -> Finding:
    value = facts.cosine["all"]["all"] or 0.0
    on_average = f"two of them have a cosine of {value:.2f} on average"
    meanings: dict[Severity, str] = {
        "good": f"The rows of the {where} point in all directions: {on_average}.",
        "note": f"The rows of the {where} lean a little to one side: {on_average}.",
        "warning": f"The rows of the {where} lean to one side: {on_average}, "
        "so much of every logit tells no token from another.",
        "serious": f"The rows of the {where} lie in a narrow cone: {on_average}, "
        "and tokens are told apart by what little is left.",
    }
    return CONE.finding(f"cone:{name}", f"Cone of the {where}", value, meanings, CURE + REPAIR, {"mean_cosine": value})


def _rare_cone(name: str, where: str, facts: TableFacts, result: ScanResult) -> Iterator[Finding]:
    rare, frequent = facts.cosine.get("rare", {}).get("rare"), facts.cosine.get("frequent", {}).get("frequent")
    if rare is None or frequent is None:
        return
    value = rare - frequent
    usual = round(frequent, 2) + 0.0  # no -0.00
    compared = f"a mean cosine of {rare:.2f} among rare rows against {usual:.2f} among frequent ones"
    meanings: dict[Severity, str] = {
        "good": f"Rare rows of the {where} are spread like frequent ones: {compared}.",
        "note": f"Rare rows of the {where} lie a little closer together than frequent ones: {compared}.",
        "warning": f"Rare rows of the {where} crowd together, pushed the same way by contexts that are not theirs: "
        f"{compared}.",
        "serious": f"Rare rows of the {where} have collapsed into a cone of their own, pushed the same way by contexts "
        f"that are not theirs: {compared}.",
    }
    if not result.frequencies.counted:
        guess = " Which tokens are rare was guessed from their ids; give --text or --counts to be sure."
        meanings = {severity: meaning + guess for severity, meaning in meanings.items()}
    evidence = {"rare_rare": rare, "frequent_frequent": frequent, "difference": value}
    yield RARE_CONE.finding(f"rare-cone:{name}", f"Rare rows of the {where}", value, meanings, CURE, evidence)


def _first_direction(name: str, where: str, facts: TableFacts) -> Finding:
    value = facts.spectrum.energy_first
    amount = f"{value:.0%} of the energy of the {where}"
    meanings: dict[Severity, str] = {
        "good": f"No direction dominates: the first holds {amount}.",
        "note": f"One direction stands out: it holds {amount}.",
        "warning": f"One direction dominates: it holds {amount}, shared by nearly all rows.",
        "serious": f"One direction is most of the table: it holds {amount}.",
    }
    evidence = {"energy_first": value, "energy_ten": facts.spectrum.energy_ten, "mean_direction": facts.mean_direction}
    remedy = "Train on with a penalty on the table: `decone compare --methods mle,cosreg,spectrum_penalty`." + REPAIR
    code, title = f"first-direction:{name}", f"Main direction of the {where}"
    return FIRST_DIRECTION.finding(code, title, value, meanings, remedy, evidence)


def _effective_rank(name: str, where: str, facts: TableFacts, full: int) -> Finding:
    rank = facts.spectrum.effective_rank
    used = f"The {where} uses {rank:.0f} of its {full} directions (effective rank)"
    meanings: dict[Severity, str] = {
        "good": f"{used}.",
        "note": f"{used}; some width is idle.",
        "warning": f"{used}; about half of its width is idle.",
        "serious": f"{used}; most of its width is idle.",
    }
    evidence = {"effective_rank": rank, "full": full, "share": rank / full, "isoscore": facts.spectrum.isoscore}
    code, title = f"effective-rank:{name}", f"Width in use of the {where}"
    return EFFECTIVE_RANK.finding(code, title, rank / full, meanings, CURE, evidence)


LISTED = 8  # tokens that a sentence names
SANE = 2  # times the rows of a table: resizing it further for an id would fill the memory for nothing
FEW = 10  # suspects below which the verdict is no more than a note
TRAIN = (
    "Show the model text that holds these tokens, or rebuild the rows of an encoder from a dictionary: "
    "`decone repair definitions MODEL --lexicon FILE --dry-run`."
)
SHRINK = "`decone trim MODEL --unreachable --out FOLDER` leaves them out; `decone grow` takes free rows for new tokens."


def row_findings(result: ScanResult) -> Iterator[Finding]:
    """Verdicts on rows, most urgent kind first."""
    kinds = {finding.kind: finding for finding in result.rows}
    rows = result.model.rows
    if "beyond" in kinds:
        yield _beyond(kinds["beyond"], rows)
    if "non-finite" in kinds:
        yield _not_numbers(kinds["non-finite"])
    if "chat" in kinds:
        yield _chat(kinds["chat"])
    yield _undertrained(result)
    never = [kinds[kind] for kind in ("zero", "identical", "untrained") if kind in kinds]
    if never:
        yield _never_trained(never, rows)
    if "unreachable" in kinds:
        yield _unreachable(kinds["unreachable"], rows)
    if "shared" in kinds:
        yield _shared(kinds["shared"])
    if "gap" in kinds:
        yield _gap(kinds["gap"], rows)
    if result.model.padded:
        yield _padded(result.model.padded, rows)


def undertrained(result: ScanResult) -> int:
    """Number of tokens a tokenizer produces whose rows are outliers."""
    return sum(suspect.score > UNUSUAL for suspect in result.suspects)


def _row_finding(
    severity: Severity, title: str, rows: RowFinding, meaning: str, remedy: str, source: str, share: float | None = None
) -> Finding:
    """Verdict on rows that are ill by themselves, however many."""
    evidence = {"count": rows.count, "ids": rows.ids[:20]} | ({} if share is None else {"share": share})
    return Finding(
        code=rows.kind,
        severity=severity,
        title=title,
        meaning=meaning,
        remedy=remedy,
        evidence=evidence,
        source=source,
    )


def _not_numbers(rows: RowFinding) -> Finding:
    meaning = f"{_rows(rows.count)} NaN or infinite entries; a single such row turns every softmax into NaN."
    remedy = "Go back to the last checkpoint without them and look at the learning rate and the gradient norms."
    return _row_finding("serious", "Rows that are not numbers", rows, meaning, remedy, "a softmax over NaN is NaN")


def _beyond(tokens: RowFinding, rows: int) -> Finding:
    have = "token has an id" if tokens.count == 1 else "tokens have ids"
    meaning = (
        f"{tokens.count:,} {have} beyond the table of {rows:,} rows: {_by_name(tokens)}. A text or a chat template "
    )
    meaning += "with such a token stops the model."
    remedy = "Take the tokens out of the tokenizer's files"
    if max(tokens.ids) < SANE * rows:
        remedy += f"; or give them rows: `model.resize_token_embeddings({max(tokens.ids) + 1})` of transformers, save, "
        remedy += f"then `decone repair rows MODEL --ids {_selection(tokens)} --init mean`, for the new ones are noise"
    return _row_finding("serious", "More tokens than rows", tokens, meaning, f"{remedy}.", "an id needs a row")


def _chat(tokens: RowFinding) -> Finding:
    seem = "token that seems" if tokens.count == 1 else "tokens that seem"
    meaning = f"The chat template writes {tokens.count:,} {seem} never trained: {_by_name(tokens)}. Every conversation "
    meaning += "begins with this noise, as it does in most base models."
    remedy = f"`decone repair rows MODEL --ids {_selection(tokens)} --init mean` gives them rows that do no harm; then "
    remedy += "fine-tune with the embedding and the head among the trained weights."
    source = "rows like those of tokens that no training text held, Land and Bartolo 2024"
    return _row_finding("warning", "Chat tokens never trained", tokens, meaning, remedy, source)


def _shared(tokens: RowFinding) -> Finding:
    meaning = f"{_rows(tokens.count)} several tokens each, which the model cannot tell apart: {_by_name(tokens)}."
    remedy = "Number the tokens of vocab.json and added_tokens.json so that each has an id of its own."
    return _row_finding("note", "Ids used twice", tokens, meaning, remedy, "one row is one token")


def _gap(holes: RowFinding, rows: int) -> Finding:
    meaning = f"{_rows(holes.count)} no token though higher ids do; nothing ever trains them."
    return _row_finding(
        "note", "Holes in the vocabulary", holes, meaning, SHRINK, "ids of the tokenizer", holes.count / rows
    )


def _by_name(tokens: RowFinding) -> str:
    """The first tokens of a finding with their ids."""
    names = [f"{plain(token, 40)} ({index})" for token, index in zip(tokens.tokens, tokens.ids, strict=False)]
    return ", ".join([*names[:LISTED], *(["…"] if tokens.count > LISTED else [])])


def _selection(tokens: RowFinding) -> str:
    """The ids of a finding for `--ids`; all untrained ones where they are many."""
    ids = id_ranges(tokens.ids, LISTED)
    return "untrained" if "…" in ids else ids.replace(" ", "").replace("–", "-")


def _undertrained(result: ScanResult) -> Finding:
    count = undertrained(result)
    most = len(result.suspects) == count and count >= SUSPECTS
    amount = f"{'At least ' if most else ''}{count:,} of {result.model.rows:,}"
    first = ", ".join(str(suspect.id) for suspect in result.suspects[: min(count, 5)])
    seem = f"{amount} tokens look as if they were never trained (ids {first}{', ...' if count > 5 else ''})"
    meanings: dict[Severity, str] = {
        "good": f"{amount} tokens of the tokenizer stand out as hardly trained.",
        "note": f"{seem}; a prompt with one of them may derail the model.",
        "warning": f"{seem}; prompts with them may derail the model.",
        "serious": f"{seem}: a large part of the vocabulary is dead weight, and prompts with it derail the model.",
    }
    # In a small vocabulary a handful is a large share, and may be chance.
    value = count / max(1, result.model.rows) if count >= FEW else min(count, 1) * UNDERTRAINED.note
    evidence = {"count": count, "share": count / max(1, result.model.rows), "unusual_above": UNUSUAL}
    return UNDERTRAINED.finding("undertrained", "Under-trained tokens", value, meanings, TRAIN, evidence)


def _never_trained(kinds: list[RowFinding], rows: int) -> Finding:
    names = {"zero": "all zeros", "identical": "equal to another row", "untrained": "like rows that were never used"}
    counts = ", ".join(f"{kind.count:,} {names[kind.kind]}" for kind in kinds)
    count = max(kind.count for kind in kinds)
    severity: Severity = "warning" if count > 0.05 * rows else "note"
    return Finding(
        code="never-trained",
        severity=severity,
        title="Rows never trained",
        meaning=f"Rows that carry what they were initialised with: {counts}. As long as nothing produces them they "
        "cost memory and a little probability; one that does appear is noise.",
        remedy=TRAIN,
        evidence={kind.kind: kind.count for kind in kinds},
        source=OURS,
    )


def _unreachable(unreachable: RowFinding, rows: int) -> Finding:
    value = unreachable.count / rows
    amount = f"{_rows(unreachable.count)} tokens that no text becomes ({value:.1%} of the vocabulary)"
    meanings: dict[Severity, str] = {
        "good": f"{amount}; that is few.",
        "note": f"{amount}; they only ever get pushed.",
        "warning": f"{amount}; they only ever get pushed, and drag others along.",
        "serious": f"{amount}; they only ever get pushed, drag others along, and cost time in every softmax.",
    }
    evidence = {"count": unreachable.count, "share": value, "ids": unreachable.ids[:20]}
    return UNREACHABLE.finding("unreachable", "Unreachable tokens", value, meanings, SHRINK, evidence)


def _padded(count: int, rows: int) -> Finding:
    return Finding(
        code="padded",
        severity="note",
        title="Padded vocabulary",
        meaning=f"{_rows(count)} no token at all: the table was rounded up. New tokens land in them, and what stands "
        "there was never trained.",
        remedy="Initialise such a row before a new token uses it: `decone grow MODEL TOKENS --out FOLDER` does.",
        evidence={"count": count, "share": count / rows},
        source="rows beyond the tokenizer's last id",
    )


def _rows(count: int) -> str:
    return f"{count:,} row holds" if count == 1 else f"{count:,} rows hold"


RARE = (
    "Train on with a cure for rare tokens: `decone compare --methods mle,threshold:margin=1+row-adamw,agg` shows what "
    "each does to your text."
)
DULL = "Train on with `decone train --set method=scalegrad:gamma=0.2` (or `unlikelihood`), or decode with top-p."
ENOUGH = 30  # rare tokens in the text below which their perplexity says little
SCALE = "Divide the logits by T best when sampling; after thresholding such a T is expected."


def behaviour_findings(result: ScanResult) -> Iterator[Finding]:
    """Verdicts that need a text; none without one."""
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
    yield RARE_PERPLEXITY.finding("rare-perplexity", "Rare tokens in text", value, meanings, RARE, evidence)


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
    yield REPETITION.finding("repetition", "Repetition", value, meanings, DULL, evidence)


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
    yield TEMPERATURE.finding("temperature", "Scale of the logits", value, meanings, SCALE, evidence)


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
    yield PULL.finding("push", "Pull and push on rare rows", value, meanings, RARE, evidence)


def findings(result: ScanResult) -> list[Finding]:
    """All verdicts on a result, the most severe first."""
    verdicts = [*table_findings(result), *row_findings(result), *behaviour_findings(result)]
    return sorted(verdicts, key=lambda finding: SEVERITIES.index(finding.severity))


def worst(findings: list[Finding]) -> Severity:
    """The highest severity among findings; good without any."""
    return min((finding.severity for finding in findings), key=SEVERITIES.index, default="good")
