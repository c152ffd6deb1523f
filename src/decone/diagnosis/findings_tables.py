"""Verdicts on the geometry of the tables."""

from collections.abc import Iterator

from decone.diagnosis import limits
from decone.diagnosis.result import Finding, ScanResult, Severity, TableFacts

CURE = (
    "Train on with a cure: `decone compare --methods mle,threshold:margin=1+row-adamw` shows what it does to a text, "
    '`objectives.get("threshold", margin=1.0)` puts it into your own loop.'
)
REPAIR = (
    " Without training, `decone repair directions MODEL --dry-run` shows what taking out the common direction changes."
)
NAMES = {"embedding": "input table", "head": "output table"}


def table_findings(result: ScanResult) -> Iterator[Finding]:
    """The verdicts on every table, in the order input, output."""
    for name, facts in result.tables.items():
        where = NAMES[name] if len(result.tables) > 1 else "table"
        yield _cone(name, where, facts)
        yield from _rare_cone(name, where, facts, result)
        yield _first_direction(name, where, facts)
        yield _effective_rank(name, where, facts, min(result.model.rows, result.model.width))


def output_table(result: ScanResult) -> TableFacts:
    """The table that makes logits: the head, or the embedding where there is no other."""
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
    return limits.CONE.finding(
        f"cone:{name}", f"Cone of the {where}", value, meanings, CURE + REPAIR, {"mean_cosine": value}
    )


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
    if result.frequencies.source not in ("text", "counts", "training"):
        guess = " Which tokens are rare was guessed from their ids; give --text or --counts to be sure."
        meanings = {severity: meaning + guess for severity, meaning in meanings.items()}
    evidence = {"rare_rare": rare, "frequent_frequent": frequent, "difference": value}
    yield limits.RARE_CONE.finding(f"rare-cone:{name}", f"Rare rows of the {where}", value, meanings, CURE, evidence)


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
    return limits.FIRST_DIRECTION.finding(code, title, value, meanings, remedy, evidence)


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
    return limits.EFFECTIVE_RANK.finding(code, title, rank / full, meanings, CURE, evidence)
