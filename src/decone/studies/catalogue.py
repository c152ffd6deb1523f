"""Every table that can be reproduced, by its name on the command line."""

from decone.studies import definitionemb, stop_jostling
from decone.studies.study import Reproducible

TABLES: dict[str, Reproducible] = {**stop_jostling.TABLES, **definitionemb.TABLES}
