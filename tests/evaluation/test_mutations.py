"""Each way to get an evaluation wrong is caught by a check that the suite has anyway.

A mutant is the real code with one line spoiled; beside it stands the test that must fail with it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dimerec.data import card, queries, splits
from dimerec.data.dataset import Dataset
from dimerec.evaluation import candidates, metrics, probing, ranking, sets, statistics
from tests.data import test_audit, test_dataset
from tests.data.logs import make
from tests.evaluation import (
    test_candidates,
    test_metrics,
    test_probing,
    test_ranking,
    test_sets,
    test_statistics,
)
from tests.evaluation.toys import whole_users
from tests.tools.mutants import mutated

Check = Callable[[Path], None]


def plain(test: Callable[[], None]) -> Check:
    return lambda folder: test()


def on_three_users(test: Callable[[Dataset], None]) -> Check:
    def check(folder: Path) -> None:
        test(make(folder / "three", test_dataset.SEQUENCES, test_dataset.ENDS))

    return check


def audited(protocol: str) -> Check:
    return lambda folder: test_audit.test_clean_data_never_fails(folder, protocol)


MUTANTS: dict[str, tuple[Any, str, str, Check]] = {
    "the best rank is 0": (
        *(ranking.ranks, "1 + counts / 2", "counts / 2"),
        plain(test_ranking.test_by_hand_with_repeats_and_the_target_in_its_history),
    ),
    "the target outranks what ties with it": (
        *(ranking._count, "total += block.ge_(low).sum(dim=1)", "total += more.sum(dim=1)"),
        plain(lambda: test_ranking.test_constant_scores_give_the_middle_rank(10)),
    ),
    "what ties with the target outranks it": (
        *(ranking._count, "torch.gt(block, high, out=more)", "torch.ge(block, low, out=more)"),
        plain(lambda: test_ranking.test_constant_scores_give_the_middle_rank(10)),
    ),
    "equal vectors are told apart by rounding": (
        *(ranking.ranks, "slack = TOLERANCE * scale", "slack = 0 * scale"),
        plain(
            lambda: test_ranking.test_items_with_the_targets_vector_tie_exactly_at_any_scale(
                K=4, d=200, scale=1.0
            )
        ),
    ),
    "the target competes with itself": (
        *(ranking.ranks, "hidden = targets.unsqueeze(1)", "hidden = 0 * targets.unsqueeze(1)"),
        plain(test_ranking.test_a_target_alone_at_the_top_has_rank_one_and_at_the_bottom_the_last),
    ),
    "padding is a candidate": (
        *(ranking._count, "fill(block, first + 1, first + 1 + n)", "fill(block, first, first + n)"),
        plain(test_ranking.test_by_hand_with_repeats_and_the_target_in_its_history),
    ),
    "only the window's items are hidden": (
        *(ranking.ranks, "queries.seen(part)", "queries.histories(part, length)"),
        plain(test_ranking.test_seen_items_are_those_of_the_whole_history_not_of_the_window),
    ),
    "the history shows the target": (
        *(queries.Queries.histories, "self.positions[block]", "self.positions[block] + 1"),
        plain(test_ranking.test_labels_of_others_fall_to_chance),
    ),
    "labels are shuffled": (
        *(queries.Queries.targets, ".astype(np.int64)", "[::-1].astype(np.int64)"),
        plain(test_ranking.test_labels_of_others_fall_to_chance),
    ),
    "noise depends on the batch": (
        *(ranking.inputs, "history_keys(history)", "np.arange(len(history)).astype(np.uint64)"),
        plain(test_ranking.test_neither_batch_nor_block_nor_order_moves_a_rank),
    ),
    "another discount": (
        *(metrics.ndcg, "np.log2(1.0 + ranks)", "np.log2(2.0 + ranks)"),
        plain(test_metrics.test_values_by_hand),
    ),
    "no discount": (
        *(metrics.ndcg, "1.0 / np.log2(1.0 + ranks)", "1.0"),
        plain(test_metrics.test_values_by_hand),
    ),
    "the list is one item short": (
        *(metrics.hr, "<= n", "< n"),
        plain(test_metrics.test_values_by_hand),
    ),
    "padding is covered": (
        *(metrics.coverage, "there[PADDING] = False", "pass"),
        plain(test_metrics.test_coverage_by_hand),
    ),
    "validation events are tested": (
        *(card.target_ranges, "else (valid_end, n)", "else (train_end, n)"),
        on_three_users(test_dataset.test_card_counts_by_hand),
    ),
    "training events are validated": (
        *(card.target_ranges, "(train_end, valid_end) if", "(0 * train_end, valid_end) if"),
        on_three_users(test_dataset.test_card_counts_by_hand),
    ),
    "test events are counted as training": (
        *(Dataset.segment, '"train": (0, self.train_end)', '"train": (0, n)'),
        on_three_users(test_dataset.test_counts_are_training_events_only),
    ),
    "a leaked split: validation users train": (
        *(
            splits._whole_users,
            "(parts == TRAIN, n, 0)",
            "(parts == TEST, 0, n - (parts == VALID))",
        ),
        audited("users-8-1-1"),
    ),
    "a leaked split: the validation item trains": (
        *(splits.leave_one_out, "np.where(n < 3, n, n - 2)", "np.where(n < 3, n, n - 1)"),
        audited("leave-one-out"),
    ),
    "a leaked split: training reaches over the cut": (
        *(splits.global_time, "times < c,", "times <= c,"),
        audited("global-time"),
    ),
    "a leaked split: later sessions train": (
        *(splits.sessions_by_time, "offsets[1:] - 1", "offsets[:-1]"),
        audited("sessions-by-time"),
    ),
    "queries, not users, are the unit": (
        *(statistics._by_user, "np.unique(users,", "np.unique(np.arange(len(users)),"),
        plain(test_statistics.test_many_queries_a_user_is_the_cluster_robust_t_test),
    ),
    "training seeds are left out of the variance": (
        *(statistics.over_users_and_seeds, "interaction) + beyond", "interaction)"),
        plain(
            lambda: test_statistics.test_users_and_seeds_is_the_fit_of_crossed_random_effects(
                5, 0.0
            )
        ),
    ),
    "a family is not corrected": (
        *(statistics.holm, "np.arange(len(values), 0, -1)", "1"),
        plain(test_statistics.test_holm_by_hand),
    ),
    "a fair normaliser is the unfair one": (
        *(sets.score_sets, "ideal[np.maximum(found, 1)]", "ideal[np.maximum(different, 1)]"),
        plain(test_sets.test_their_normaliser_forgives_what_was_missed),
    ),
    "rivals are items that the user took": (
        *(candidates.others, "free + np.searchsorted(", "free + 0 * np.searchsorted("),
        lambda folder: test_candidates.test_candidates_were_never_taken_and_differ(
            whole_users(folder / "toy")
        ),
    ),
    "categories are shuffled": (
        *(probing._majority, "_fit(x[train], main[train])", "_fit(x[train], main[train][::-1])"),
        plain(test_probing.test_planted_genres_are_read),
    ),
}


SLOW = {"noise depends on the batch"}  # its check asks for one query at a time
CASES = [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in MUTANTS]


@pytest.mark.parametrize("what", CASES)
def test_a_check_catches_it(what: str, tmp_path: Path) -> None:
    function, old, new, check = MUTANTS[what]
    (tmp_path / "whole").mkdir()
    (tmp_path / "mutant").mkdir()
    check(tmp_path / "whole")
    with mutated(function, old, new), pytest.raises((AssertionError, pytest.fail.Exception)):
        check(tmp_path / "mutant")


def test_a_mutant_lasts_as_long_as_its_block() -> None:
    with mutated(metrics.mrr, "1.0 / ranks", "2.0 / ranks"):
        assert metrics.METRICS["mrr"](test_metrics.RANKS, 10)[0] == 2.0  # the very function in use
    assert metrics.METRICS["mrr"](test_metrics.RANKS, 10)[0] == 1.0
    with pytest.raises(AssertionError, match="stands 0 times"), mutated(metrics.mrr, "nothing", ""):
        pass
