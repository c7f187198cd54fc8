"""What is a regression, and which rounds count. Nothing is timed."""

from __future__ import annotations

import pytest


def a_round(others=0.0, **pairs):
    """Returns a round; `pairs` are processor times of A and B."""
    from regression.comparison import Round, Sample

    samples = {name: tuple(Sample(cpu, {}) for cpu in pair) for name, pair in pairs.items()}
    return Round(samples, others)


def counted_round(kind, a, b):
    from regression.comparison import Round, Sample

    return Round({"save": (Sample(1.0, {kind: a}), Sample(1.0, {kind: b}))}, 0.0)


def only_row(rounds):
    from regression.comparison import rows

    (row,) = rows(rounds, ["save"])
    return row


# --- Processor times ------------------------------------------------------------------------------


def test_ratios_are_taken_within_a_round():
    row = only_row([a_round(save=(1, 2)), a_round(save=(10, 30)), a_round(save=(100, 400))])
    assert row.ratios == [2, 3, 4]
    assert (row.a, row.b) == (10, 30)


@pytest.mark.parametrize(
    ("ratios", "slower"),
    [
        ([1.05, 1.16, 1.2], True),
        ([1.05, 1.14, 1.9], False),  # the median is allowed
        ([1.0, 1.2, 1.3], False),  # once it was not slower
        ([0.5, 0.6, 0.7], False),
    ],
)
def test_a_commit_is_slower_if_the_median_is_too_high_and_no_round_says_otherwise(ratios, slower):
    row = only_row([a_round(save=(1.0, ratio)) for ratio in ratios])
    assert row.slower(0.15) == slower
    assert row.regressions(0.15) == (["processor time × 1.16"] if slower else [])


# --- Counts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "pairs", "grown", "shown"),
    [
        ("storage.read", [(3, 4), (3, 4)], True, "storage.read 3 → 4"),
        ("storage.read", [(3, 4), (4, 5)], False, "storage.read 3–4 → 4–5"),
        ("storage.read", [(4, 3), (4, 3)], False, "storage.read 4 → 3"),
        ("storage.read", [(0, 1), (0, 1)], True, "storage.read 0 → 1"),
        ("storage.read", [(3, 3), (4, 4)], False, None),
        ("bytes", [(100_000, 100_090)], False, None),  # a number in the manifest may be longer
        ("bytes", [(100_000, 100_110)], True, "bytes 100,000 → 100,110"),
        ("bytes", [(100_000, 99_000)], False, "bytes 100,000 → 99,000"),
    ],
)
def test_a_count_has_grown_if_every_round_says_so(kind, pairs, grown, shown):
    row = only_row([counted_round(kind, *pair) for pair in pairs])
    assert [str(count) for count in row.counts] == ([shown] if shown else [])
    assert row.regressions(0.15) == ([shown] if grown else [])


def test_the_table_marks_what_has_become_worse():
    from regression.comparison import Count, Row, table

    counts = [Count("files", (3, 3), (4, 4)), Count("bytes", (9, 9), (1, 1))]
    row = Row("save", 0.1, 0.2, [1.9, 2.0, 2.1], counts)
    assert [" ".join(line.split()) for line in table([row], 0.15).splitlines()[1:]] == [
        "save 100.0 ms 200.0 ms 2.00 (1.90-2.10) SLOWER",
        "files 3 → 4 GROWN",
        "bytes 9 → 1",
    ]


# --- Other processes ------------------------------------------------------------------------------


def test_other_processes_took_what_the_benchmark_has_not():
    from regression.other_load import Load

    before, later = Load(100.0, 50.0, 10.0), Load(110.0, 60.0, 15.0)
    assert before.others_until(later) == 0.5
    assert before.others_until(Load(110.0, 60.0, 20.1)) == 0.0  # ticks are rounded


def test_the_kernels_counters_are_read():
    from regression.other_load import Load, busy_ticks, own_ticks

    stat = "cpu  100 20 30 4000 500 6 7 8 90 9\ncpu0 1 2 3 4 5 6 7 8 9 10\n"
    assert busy_ticks(stat) == 100 + 20 + 30 + 6 + 7 + 8
    fields = "S 1 1 1 0 -1 4194304 100 0 0 0 11 12 13 14 20 0 1 0 292966"
    assert own_ticks(f"77 (a) (b) c) {fields}") == 11 + 12 + 13 + 14
    assert Load.now([1]).busy > 0


def test_a_disturbed_round_is_repeated_but_not_for_ever():
    from regression.other_load import enough

    quiet, loud = a_round(0.3), a_round(0.31)
    assert not enough([quiet], 2)
    assert enough([quiet, quiet], 2)
    assert not enough([quiet, loud, loud], 2)
    assert enough([quiet, loud, quiet], 2)
    assert enough([loud] * 4, 2)


def test_the_quietest_rounds_count_in_their_order():
    from regression.other_load import describe, quietest

    rounds = [a_round(share) for share in (0.9, 0.2, 0.4, 0.1)]
    counting = quietest(rounds, 3)
    assert [one.others for one in counting] == [0.2, 0.4, 0.1]
    text = describe(rounds, counting)
    assert "took 90 %, 20 %, 40 %, 10 % of a core; 2 of 4 rounds were disturbed" in text
    assert "Note: 1 of the 3 rounds that count were disturbed." in text
    assert "Note" not in describe(rounds, quietest(rounds, 2))


# --- The exit code --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("b", "code", "text"),
    [(1.0, 0, "no regression"), (1.3, 1, "regression: save: processor time × 1.30")],
)
def test_a_regression_is_an_exit_code(capsys, b, code, text):
    import argparse

    from compare_commits import _judge

    options = argparse.Namespace(rounds=1, allow=0.15)
    assert _judge([a_round(save=(1.0, b))], ["save"], options) == code
    assert capsys.readouterr().out.splitlines()[-1] == text
