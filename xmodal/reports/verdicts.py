"""The verdict of a comparison: sentences that claim what the corrected tests show, and no more.

Each test has one of three outcomes: better, worse or *cannot tell*. That a difference is not significant never means
that there is none: "equivalent" needs a margin that the user states, and a test for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from xmodal.reports.contrasts import expectation_sentence
from xmodal.reports.few_labels import few_label_sentences, headline_method
from xmodal.reports.intervals import Row
from xmodal.reports.repetitions import worded
from xmodal.reports.sentences import compared, p_phrase
from xmodal.reports.summary import SIGNIFICANT, corrected_for, summary_of

# role of a control → what a comparison with it is about, and the conclusion from each outcome
CONCLUSIONS: Mapping[str, Mapping[str, str]] = {
    "shuffled": {
        "better": "the teacher's predictions for single samples matter",
        "worse": "the teacher's predictions for single samples do harm here",
        "equivalent": "what the teacher predicts for single samples changes less than that",
        "cannot tell": "whether the teacher's predictions for single samples matter stays open",
    },
    "untrained": {
        "better": "the teacher's training matters",
        "worse": "the teacher's training does harm here",
        "equivalent": "the teacher's training changes less than that",
        "cannot tell": "whether the teacher's training matters stays open",
    },
    "matched": {
        "better": "the size of its network does not explain the difference",
        "worse": "a network of its size does better on labels alone",
        "equivalent": "a network of its size does about as well on labels alone",
        "cannot tell": "the size of its network may explain a gain",
    },
}


def verdict(result: Row) -> list[str]:
    """The conclusions of a comparison: expectations, published figures, and a few sentences per method, best first."""
    summary, sentences = summary_of(result), _references_verdict(result)
    methods = [entry for entry in summary if entry["role"] == "method"]
    if methods and not any(entry["role"] == "control" for entry in summary):
        sentences.append("There is no no-KD control, so the effect of distillation cannot be judged.")
    sign = 1 if result.get("direction") == "max" else -1
    judged = [entry for entry in methods if entry.get("difference")]
    tests = corrected_for(summary)
    if result.get("labels"):
        # the method with controls has sentences of its own, which say what the unlabelled rows brought
        sentences += few_label_sentences(result)
        judged = [entry for entry in judged if entry["name"] != headline_method(result["rows"])]
    for entry in sorted(judged, key=lambda entry: -sign * (entry["difference"]["difference"] or 0.0)):
        sentences.append(_against_control(entry, result, tests))
        # where labels are missing, outputs are exchanged within the predicted class: that is no null control
        roles = ("matched",) if result.get("labels") else ("matched", "shuffled", "untrained")
        sentences += _against_own(entry, roles, result, tests)
    if tests > 1:
        sentences.append(
            f"The outcomes are those of p after Holm's correction for the {tests} tests of this table, controls "
            "included; intervals are uncorrected."
        )
    expectations = result.get("expectations", ())
    sentences = [expectation_sentence(expected, expected["tests"]) for expected in expectations] + sentences
    return worded(result, sentences)


def _against_control(entry: Row, result: Row, tests: int) -> str:
    name, metric, test = entry["name"], str(result["metric"]), entry["difference"]
    if test["difference"] is None:
        return f"{name}: not comparable with {test['against']}, because {test['note']}."
    sentence = compared(name, test["against"], test, metric, tests=tests, margin=result.get("margin"))
    sentence += _within_margin(test, tests)
    return f"{sentence}.{' Here distillation is harmful.' * (test['outcome'] == 'worse')}"


def _within_margin(test: Mapping[str, Any], tests: int) -> str:
    """The rest of a sentence about a difference that is there, and small."""
    p = test.get("p_equivalent_holm")
    if test["outcome"] not in ("better", "worse") or p is None or p >= SIGNIFICANT:
        return ""
    return f", which is within the stated margin (two one-sided tests {p_phrase(test['p_equivalent'], p, tests)})"


def _against_own(entry: Row, roles: Sequence[str], result: Row, tests: int) -> list[str]:
    """Comparisons with the method's own controls: the same training without what is claimed to matter."""
    sentences = []
    for role in roles:
        for test in entry.get("controls", ()):
            if test["role"] != role or test["n"] < 2 or test["difference"] is None:
                continue
            against = f"{test['against']} (a control of the same size)" if role == "matched" else str(test["against"])
            metric, margin = str(result["metric"]), result.get("margin")
            sentence = compared(str(entry["name"]), against, test, metric, tests=tests, margin=margin)
            sentences.append(f"{sentence}: {CONCLUSIONS[role][test['outcome']]}.")
    return sentences


def _references_verdict(result: Row) -> list[str]:
    judged = [row["ok"] for row in result.get("references") or () if row.get("ok") is not None]
    if not judged:
        return []
    if all(judged):
        return [f"Published figures met within their tolerance: all {len(judged)}."]
    return [f"Published figures missed by more than their tolerance: {judged.count(False)} of {len(judged)}."]
