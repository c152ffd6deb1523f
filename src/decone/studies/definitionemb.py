"""Zhang, Li and Okumura, DefinitionEMB (arXiv 2408.01308): are tables rebuilt from definitions better fine-tuned?

The paper fine-tunes RoBERTa-base and BART-large, later T5-large too, on GLUE and on summarisation, with DelDirection as
a baseline.
"""

from decone.repair.methods.registry import repair_variants
from decone.studies.downstream import DownstreamTable
from decone.studies.downstream_runs import ORIGINAL, TableRow
from decone.studies.glue import Glue
from decone.studies.summaries import Summaries

STUDY = "definitionemb"

USUAL = (ORIGINAL, "directions", "definitions")
ROWS = (
    TableRow(ORIGINAL, "Original table"),
    *(
        TableRow(name, variant.label)
        for name, (_, variant) in sorted(
            repair_variants().items(),
            key=lambda item: (*USUAL, item[0]).index(item[0]),  # the paper's rows first
        )
    ),
)
NOTE = (
    "None found: the paper's numbers are in no source that could be reached, and its code holds no result tables, so "
    "nothing is quoted."
)

GLUE = DownstreamTable(
    STUDY, "glue", "DefinitionEMB, GLUE: tables before fine-tuning compared after it", Glue(), ROWS, USUAL, (NOTE,)
)

SUMMARIZATION = DownstreamTable(
    STUDY,
    "summarization",
    "DefinitionEMB, summarisation: tables before fine-tuning compared after it",
    Summaries(),
    ROWS,
    USUAL,
    (NOTE,),
)

TABLES = {f"{STUDY}:{table.name}": table for table in (GLUE, SUMMARIZATION)}
