import logging

import pytest

from astarpo.grading.verdicts import tell_verdicts


@pytest.mark.parametrize(
    ("statuses", "truncated", "warnings"),
    [
        ({"ok": 91, "timeout": 9}, 0.09, []),
        ({"timeout": 40}, 0.0, ["100% of 40 answers count as wrong though nobody judged them"]),
        ({"ok": 90, "error": 10}, 0.0, ["10% of 100 answers"]),
        ({"no_answer": 8}, 1.0, ["100% of 8 answers were cut at the token limit"]),
        ({"ok": 50, "timeout": 25, "error": 25}, 0.3, ["timeout", "error", "30% of 100"]),
        ({"ok": 1, "unparsable": 30, "no_answer": 30}, 0.0, []),  # the policy's own failures
    ],
)
def test_what_was_not_judged_or_cut_is_told(statuses, truncated, warnings, caplog):
    with caplog.at_level(logging.INFO, logger="astarpo"):
        tell_verdicts("evaluate", statuses, truncated)
    line, *warned = caplog.records
    assert line.levelname == "INFO"
    assert all(f"{name} {count}" in line.message for name, count in statuses.items())
    assert f"truncated {truncated:.1%}" in line.message
    assert [record.levelname for record in warned] == ["WARNING"] * len(warnings)
    for record, words in zip(warned, warnings, strict=True):
        assert record.message.startswith("evaluate: ")
        assert words in record.message
