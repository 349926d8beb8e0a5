"""Objectives, error budgets and how fast they burn, from the rules of `provectl slo build`."""

from prove.dashboards.parts import WIDTH, Board, Query, Row, choice, graph, number, rows

_OF = 'sloth_id="$slo"'
_FIRING = 'alertstate="firing", sloth_id="$slo"'


def board() -> Board:
    """The dashboard `slo`; alerts link to it with the variable `slo`."""
    identity = ("sloth_service", "sloth_slo")
    every = f"max by ({', '.join(identity)})"
    return Board(
        uid="slo",
        title="SLOs and error budgets",
        description="What is promised, what is left of the budget, and how fast it burns.",
        variables=(choice("slo", "The objective.", "label_values(slo:objective:ratio, sloth_id)"),),
        rows=(
            Row(
                "$slo",
                (
                    number(
                        "Objective",
                        "The share of events that has to be good over the period.",
                        "percentunit",
                        Query(f"max(slo:objective:ratio{{{_OF}}})"),
                    ),
                    number(
                        "Budget left",
                        "Of the errors allowed in the period, the share that hasn't happened yet. "
                        "Below 0 the promise is broken.",
                        "percentunit",
                        Query(f"max(slo:period_error_budget_remaining:ratio{{{_OF}}})"),
                        steps=((None, "red"), (0, "orange"), (0.25, "green")),
                    ),
                    number(
                        "Burn rate now",
                        "How many times faster than allowed the budget is used up, over the "
                        "shortest window. At 1 it lasts exactly for the period.",
                        "short",
                        Query(f"max(slo:current_burn_rate:ratio{{{_OF}}})"),
                        steps=((None, "green"), (1, "orange"), (6, "red")),
                    ),
                    number(
                        "Period",
                        "The time over which the objective holds; bad events leave it again.",
                        "d",
                        Query(f"max(slo:time_period:days{{{_OF}}})"),
                    ),
                    number(
                        "Pages",
                        "Alerts of this objective that page somebody now.",
                        "short",
                        Query(f'count(ALERTS{{{_FIRING}, sloth_severity="page"}}) or vector(0)'),
                        steps=((None, "green"), (1, "red")),
                    ),
                    number(
                        "Tickets",
                        "Alerts of this objective that wait for working hours, missing data "
                        "among them.",
                        "short",
                        Query(f'count(ALERTS{{{_FIRING}, sloth_severity="ticket"}}) or vector(0)'),
                        steps=((None, "green"), (1, "orange")),
                    ),
                    graph(
                        "Bad share by window",
                        "The share of bad events over each window of the alerts; the budget is "
                        "the share that may be. An alert needs a short and a long window.",
                        "percentunit",
                        Query(
                            "max by (sloth_window) "
                            f'({{__name__=~"slo:sli_error:ratio_rate.+", {_OF}}})',
                            "{{sloth_window}}",
                        ),
                        Query(f"max(slo:error_budget:ratio{{{_OF}}})", "budget"),
                    ),
                    graph(
                        "Burn rate",
                        "Times faster than allowed: now (the shortest window) and over the whole "
                        "period. Pages come at 14.4 and 6, tickets at 3 and 1, by default.",
                        "short",
                        Query(f"max(slo:current_burn_rate:ratio{{{_OF}}})", "now"),
                        Query(f"max(slo:period_burn_rate:ratio{{{_OF}}})", "period"),
                        limit=1,
                    ),
                    graph(
                        "Budget left over time",
                        "It falls while events are bad and comes back as they leave the period.",
                        "percentunit",
                        Query(
                            f"max(slo:period_error_budget_remaining:ratio{{{_OF}}})", "budget left"
                        ),
                        span=WIDTH,
                        least=None,
                        most=1,
                    ),
                ),
            ),
            Row(
                "All objectives",
                (
                    rows(
                        "Every objective",
                        "Objective, budget left and burn rate of all, now.",
                        identity,
                        ("objective", "percentunit", f"{every} (slo:objective:ratio)"),
                        (
                            "budget left",
                            "percentunit",
                            f"{every} (slo:period_error_budget_remaining:ratio)",
                        ),
                        ("burn rate now", "short", f"{every} (slo:current_burn_rate:ratio)"),
                        ("burn rate, period", "short", f"{every} (slo:period_burn_rate:ratio)"),
                    ),
                ),
            ),
        ),
    )
