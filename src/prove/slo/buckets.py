"""Which histogram buckets an SLO counts on: one has to end at exactly its objective."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from prove.slo.spec import SLO, Events

_SELECTOR = re.compile(r"([a-zA-Z_:][\w:]*_bucket)\s*\{([^}]*)\}")
END = re.compile(r"""(?:^|,)\s*le\s*=\s*["']([^"']+)["']\s*""")
"""Among the matchers of a selector: where its bucket ends."""


@dataclass(frozen=True)
class Bucket:
    """The series of a histogram, the end of the bucket wanted, and how to ask for what there is."""

    series: str
    end: str
    question: str


def wanted(slo: SLO) -> Iterator[Bucket]:
    """The buckets the queries of `slo` name, each once."""
    sli = slo.sli
    queries = (
        (sli.error_query, sli.total_query) if isinstance(sli, Events) else (sli.error_ratio_query,)
    )
    seen = set()
    for metric, matchers in _SELECTOR.findall(" ".join(queries)):
        found = END.search(matchers)
        if not found:
            continue
        others = END.sub("", matchers).strip().strip(",").strip()
        bucket = Bucket(metric, found[1], f"count by (le) ({metric}{{{others}}})")
        if bucket not in seen:
            seen.add(bucket)
            yield bucket
