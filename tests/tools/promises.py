"""The promises of the service, each with its tests and what they last measured.

`python -m tests.tools.promises` writes the table into docs/serving.md; `--check` fails where a
named test does not exist or the table is not the one that would be written. Figures come from
docs/serving/figures.json, which tests fill when DIMEREC_FIGURES names it:

    DIMEREC_FIGURES=docs/serving/figures.json make test test-slow
"""

import ast
import json
import sys
from pathlib import Path

from tests.tools import marked

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "serving.md"
FIGURES = ROOT / "docs" / "serving" / "figures.json"
S = "tests/serving/test_"
PROMISES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "latency p50, p99, p99.9 at a stated rate, from the intended send time",
        (
            f"{S}load.py::test_a_server_that_stalls_is_measured_as_its_users_felt_it",
            f"{S}load.py::test_a_generator_that_is_held_up_voids_the_run",
            f"{S}load.py::test_the_benchmark_measures_what_it_says",
        ),
    ),
    (
        "at 2 and 5 times the capacity, goodput stays and refusals are 429 or 503",
        (f"{S}load.py::test_beyond_capacity_goodput_stays_and_refusals_are_polite",),
    ),
    ("expired work never runs", (f"{S}batcher.py::test_expired_work_is_never_computed",)),
    (
        "acknowledged events survive a killed process",
        (f"{S}history_kills.py::test_what_was_acknowledged_survives_kill_9",),
    ),
    (
        "and a power loss",
        (f"{S}history_power.py::test_what_was_acknowledged_survives_a_power_loss_at_any_moment",),
    ),
    (
        "delivered at least once, in effect exactly once",
        (f"{S}history_model.py::test_in_sqlite_at_length",),
    ),
    (
        "a full or failing disk: refused, intact, recovered",
        (
            f"{S}history_disk.py::test_a_full_disk",
            f"{S}history_disk.py::test_a_disk_that_fails_for_a_while",
        ),
    ),
    (
        "killed while it writes: old or new, never mixed",
        (f"{S}history_kills.py::test_killed_at_every_call_it_is_old_or_new_never_mixed",),
    ),
    (
        "a corrupt bundle is refused, the old one serves",
        (f"{S}reload.py::test_a_corrupt_bundle_is_refused_and_the_old_one_serves",),
    ),
    ("no pickle", (f"{S}pickle.py::test_serving_reloading_and_storing_use_none",)),
    (
        "any bytes get an answer, never a 5xx or a hang",
        (
            f"{S}fuzz.py::test_any_body_gets_an_answer",
            f"{S}fuzz.py::test_any_path_and_query_gets_an_answer",
            f"{S}fuzz.py::test_the_openapi_holds_against_schemathesis",
        ),
    ),
    (
        "bodies, histories, numbers, heads and time are bounded",
        (
            f"{S}limits.py::test_a_chunked_body_over_the_limit_is_cut_off",
            f"{S}limits.py::test_a_body_that_trickles_is_given_up",
            f"{S}limits.py::test_a_head_without_end_takes_no_memory",
            f"{S}limits.py::test_numbers_and_lengths_are_bounded",
        ),
    ),
    (
        "unknown users, unknown items and NaN fall back",
        (
            f"{S}app.py::test_the_ladder_goes_down_to_context_and_popularity",
            f"{S}ready.py::test_a_model_that_fails_on_one_query_fails_on_that_alone",
        ),
    ),
    (
        "n unique items, none excluded or seen",
        (
            f"{S}app.py::test_every_field_of_a_query_reaches_the_recommender",
            "tests/test_recommender.py::test_queries_of_all_kinds_stand_in_one_batch",
            "tests/contract/test_indexes.py::test_search_is_brute_force",
        ),
    ),
    (
        "reloads under load fail nobody; an answer is one version's",
        (f"{S}reload.py::test_fifty_reloads_at_seventy_percent_load",),
    ),
    (
        "a stop drains",
        (
            f"{S}stop.py::test_a_stop_drains",
            f"{S}stop.py::test_thirty_restarts_behind_a_proxy_drop_nobody",
        ),
    ),
    (
        "a dependency's outage degrades, never cascades",
        (
            f"{S}load.py::test_redis_stops_and_comes_back_under_load_and_no_request_fails",
            f"{S}outage.py::test_a_store_that_goes_away_costs_histories_and_nothing_else",
            f"{S}calls.py::test_a_store_that_hangs_holds_nobody_up",
            f"{S}remote_index.py::test_an_index_that_goes_away_costs_its_ranking_and_nothing_else",
            "tests/retrieval/test_remote.py::test_a_server_that_goes_away_is_given_up_in_time",
        ),
    ),
    (
        "every role against every route; tokens compared in constant time; admin on loopback",
        (
            f"{S}access.py::test_every_role_against_every_route",
            f"{S}access.py::test_every_digest_is_compared_in_constant_time",
            f"{S}access.py::test_admin_is_taken_from_this_machine_alone_and_not_through_a_proxy",
        ),
    ),
    ("a bundle's name is no path", (f"{S}reload.py::test_a_name_is_a_name_and_no_path",)),
    (
        "rates per principal; tenants apart",
        (
            f"{S}access.py::test_one_principal_over_its_rate_is_no_matter_to_another",
            f"{S}access.py::test_tenants_never_see_each_other",
        ),
    ),
    (
        "readiness means it",
        (
            f"{S}ready.py::test_a_full_queue_and_a_stuck_model_are_said_and_pass",
            f"{S}ready.py::test_a_worker_that_ended_is_said_and_the_process_still_stops_well",
        ),
    ),
    (
        "metrics are right and bounded",
        (
            f"{S}metrics.py::test_counters_equal_the_tally_of_the_client",
            f"{S}metrics.py::test_nobody_can_make_new_series",
        ),
    ),
    ("no leak", (f"{S}leak.py::test_nothing_grows",)),
    (
        "every store and index obeys one contract",
        ("tests/contract/test_stores.py::", "tests/contract/test_indexes.py::"),
    ),
)


def exists(test: str) -> bool:
    """Whether the test `path::name` (or any file, for `path::`) is there."""
    path, _, name = test.partition("::")
    file = ROOT / path
    if not file.is_file():
        return False
    tree = ast.parse(file.read_text("utf-8"))
    return not name or name in {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}


def measured(test: str, figures: dict[str, str]) -> str:
    """What the test `path::name` last measured, or any test of the file, for `path::`."""
    end = len(test) if test.endswith("::") else None  # of a file: compare the path alone
    found = [text for t, text in figures.items() if t.partition("[")[0][:end] == test]
    return "; ".join(found) or "-"


def table() -> str:
    """The table in Markdown."""
    figures = json.loads(FIGURES.read_text("utf-8")) if FIGURES.is_file() else {}
    lines = ["| # | promise | test | last figure |", "| --- | --- | --- | --- |"]
    for number, (promise, tests) in enumerate(PROMISES, start=1):
        names = "<br>".join(f"`{t.removeprefix('tests/').removesuffix('::')}`" for t in tests)
        found = "<br>".join(measured(test, figures) for test in tests)
        lines.append(f"| {number} | {promise} | {names} | {found} |")
    return "\n".join(lines)


def rendered() -> str:
    """The page with the table in its place."""
    return marked.replaced(PAGE.read_text("utf-8"), "promises", table())


def missing() -> list[str]:
    """The named tests that are not there."""
    return [t for _, tests in PROMISES for t in tests if not exists(t)]


if __name__ == "__main__":
    problems = [f"{test}: no such test" for test in missing()]
    if "--check" not in sys.argv:
        PAGE.write_text(rendered(), "utf-8")
    elif PAGE.read_text("utf-8") != rendered():
        problems.append(f"{PAGE.relative_to(ROOT)}: run `python -m tests.tools.promises`")
    print("\n".join(problems) or "promises: ok")
    sys.exit(bool(problems))
