"""Where a number stops being good: the limits of the verdicts, each with its source.

Where a paper gives a number it is the paper's. The others are ours, laid between tables known to be healthy and tables
known to be ill; docs/scan.md lists what was measured on which table.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from decone.diagnosis.result import Finding, Severity

OWN = "our own limit, laid between measured healthy and ill tables (docs/scan.md)"
SEVERITIES: tuple[Severity, ...] = ("good", "note", "warning", "serious")


@dataclass(frozen=True)
class Limits:
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
        """The severity of a number.

        Example:
            >>> CONE.severity(0.0), CONE.severity(0.45)
            ('good', 'serious')
        """
        sign = 1 if self.rising else -1
        passed = sum(sign * value >= sign * limit for limit in (self.note, self.warning, self.serious))
        return SEVERITIES[passed]

    def finding(
        self,
        code: str,
        title: str,
        value: float,
        meanings: Mapping[Severity, str],
        remedy: str,
        evidence: Mapping[str, Any],
    ) -> Finding:
        """The verdict on a number: `meanings` by severity, `remedy` where it is not good."""
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
CONE = Limits(0.1, 0.2, 0.4, f"mean cosine as anisotropy, Ethayarajh 2019; {OWN}")
# Yu et al. 2022, Figure 2: what degenerates is how the rare rows lie to each other, the others follow.
RARE_CONE = Limits(0.15, 0.3, 0.5, f"rare and frequent rows apart, Yu et al. 2022, section 3 and Figure 2; {OWN}")
# Share of the squared singular values in the first one; a random table of V rows and width H has about 1 / H.
FIRST_DIRECTION = Limits(0.1, 0.25, 0.5, f"spectrum, Wang et al. 2020; common direction, Mu and Viswanath 2018; {OWN}")
EFFECTIVE_RANK = Limits(0.75, 0.5, 0.25, f"effective rank, Roy and Vetterli 2007, over min(V, H); {OWN}", rising=False)
# Land and Bartolo 2024 look closer at the 2 % of the vocabulary that their indicators rank highest.
UNDERTRAINED = Limits(0.002, 0.01, 0.02, f"share of the vocabulary; candidates in Land and Bartolo 2024; {OWN}")
UNREACHABLE = Limits(0.0005, 0.01, 0.05, OWN)
RARE_PERPLEXITY = Limits(
    10.0, 100.0, 1000.0, f"perplexity of rare over that of frequent tokens, after Yu et al. 2022, Table 1; {OWN}"
)
TEMPERATURE = Limits(0.05, 0.15, 0.4, f"|1 - T best|, Turumtaev, Stop Jostling, section 4.3; {OWN}")
REPETITION = Limits(0.05, 0.2, 0.4, f"Rep-3 of greedy text less that of human text, Lin et al. 2021, Table 1; {OWN}")
# Turumtaev, Figure 3: below 1 a row is moved more by targets that are not it than by all that speaks for it.
PULL = Limits(1.0, 0.5, 0.1, f"Ratio of Average, Turumtaev, Stop Jostling, Figure 3; {OWN}", rising=False)
