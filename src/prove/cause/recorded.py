"""The analysis of an incident that was run here, kept in its record: as information, not a verdict.

The analysis reads the bundle alone; the truth is looked at afterwards, to say whether it is right.
"""

import json
from pathlib import Path

from prove import files
from prove.cause import sources, text, truth
from prove.errors import UserError
from prove.incident import record
from prove.rca.model import Analysis

ANALYSIS = "rca.json"
"""Of an incident's directory: all that the analysis says."""


def of(directory: Path) -> Analysis | None:
    """Made anew from the bundle; None: there is none that can be read."""
    try:
        return sources.explained(sources.of_record(directory))
    except UserError:
        return None


def keep(directory: Path) -> record.Analysed | None:
    """Analyse a record's bundle, write `rca.json`, and its answer into `incident.json`.

    None: there is no bundle. Raises UserError when the record can't be read or written.
    """
    analysis = of(directory)
    if analysis is None:
        return None
    told = json.dumps(text.document(analysis), indent=1, ensure_ascii=False)
    files.write(directory / ANALYSIS, told + "\n")
    truths = directory / record.TRUTH
    causes = (
        [each.cause for each in record.read_document(truths, record.Truths).scenarios]
        if truths.exists()
        else []
    )
    found = truth.judged(analysis, causes)
    incident = record.read(directory)
    record.write(directory / record.INCIDENT, incident.model_copy(update={"analysed": found}))
    return found


def sentence(found: record.Analysed | None) -> str:
    """`the traces say payment-service, errors (93%): right`."""
    if found is None:
        return "the traces were not analysed"
    if found.service is None:
        told = f"name no cause ({found.abstained})"
    else:
        told = f"say {found.service}, {found.kind} ({found.confidence:.0%})"
    return f"the traces {told}{verdict(found)}"


def verdict(found: record.Analysed) -> str:
    """`: right`; '' where that isn't known."""
    if found.right is None:
        return ""
    if found.right and found.right_kind is False:
        return ": right service, other kind"
    return ": right" if found.right else ": wrong"
