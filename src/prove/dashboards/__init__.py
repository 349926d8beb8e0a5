"""Grafana dashboards as code: each module makes one, `parts` says how they all look."""

import json

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from prove.dashboards import business, pipeline, resources, saga, services, slo
from prove.dashboards.parts import Board

LOGS_URL = "http://127.0.0.1:9428"
"""Where the local stack's VictoriaLogs is; links to logs lead there."""


def build(*, logs_url: str = LOGS_URL, kubernetes: bool = False) -> dict[str, str]:
    """Every dashboard as `UID.json`; the same input gives the same bytes.

    `kubernetes` adds what only a kubelet measures.
    """
    boards = (
        services.board(),
        slo.board(),
        resources.board(kubernetes=kubernetes),
        business.board(),
        saga.board(),
        pipeline.board(),
    )
    return {f"{board.uid}.json": _text(board, logs_url) for board in boards}


def _text(board: Board, logs_url: str) -> str:
    return json.dumps(board.model(logs_url), cls=JSONEncoder, indent=2) + "\n"
