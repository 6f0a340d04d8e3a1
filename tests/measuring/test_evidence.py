"""Evidence adds up to the figures of the report, and its answers are the texts that were decoded."""

import json

import numpy as np
import pytest

from adaspec_jax import data, reporting
from adaspec_jax.decoding import ChainDrafter, Sampling
from adaspec_jax.errors import UserError
from adaspec_jax.measuring import Contender, evidence, measure
from adaspec_jax.measuring.tokenwise import tokenwise
from tests import tiny_pair
from tests.decoding.bag_model import BagModel
from tests.measuring.test_measure import KNOBS, Zeros, batches
from tests.running import slow

ROWS = 5
NAMES = ["draft", "reference", "zeros"]


@pytest.fixture(scope="module", params=[0.0, slow(1.0)], ids=["greedy", "drawn"])
def found(request):
    target, draft, other = (BagModel.random(seed) for seed in range(3))
    contenders = {
        "reference": Contender(ChainDrafter(other, length=2)),
        "zeros": Contender(Zeros()),
        "draft": Contender(ChainDrafter(draft, length=3)),
    }
    sampling = Sampling(request.param)
    how = {"max_new_tokens": 12, "greedy": sampling.greedy, "fraction": 0.4}
    gathered = evidence.Evidence(target, tiny_pair.tokenizer(), NAMES, rows=tiny_pair.TOKENS, **how)
    measured, _ = measure(target, contenders, batches(ROWS), sampling=sampling, look=gathered.look, **KNOBS)
    return gathered.record, measured, (target, draft, other)


def test_all_its_counts_are_those_of_the_report(found):
    record, measured, _ = found
    assert set(record["drafts"]) == set(NAMES) and record["answers_read"] == ROWS
    for name, tally in record["drafts"].items():
        counts = measured[name].counts
        for part in ("by_position", "by_depth", "by_class"):
            assert sum(tally[part]["judged"]) == counts.judged.sum(), (name, part)
            assert sum(tally[part]["accepted"]) == counts.accepted.sum(), (name, part)
        assert sum(tally["by_class"]["tokens"]) == counts.committed.sum()
        assert counts.rounds.max() <= tally["calls"] <= counts.rounds.sum()
        assert tally["seconds"] == pytest.approx(measured[name].seconds)
    assert record["plain"]["calls"] == 12 * 3 and record["plain"]["seconds"] > 0


def test_figures_of_classes_and_confidence_are_sums_over_the_tokens(found):
    record, measured, (target, draft, _) = found
    tally, classes = record["drafts"]["draft"], data.token_classes(tiny_pair.tokenizer())
    generation, first = measured["draft"].sample, batches(ROWS)[0]  # the first two of five answers
    read = tokenwise(target, draft, generation.tokens_BS, first["lengths_B"], generation.lengths_B)
    assert sum(tally["by_class"]["read"]) == 12 * ROWS
    assert {c for c, n in enumerate(tally["by_class"]["read"]) if n} <= {classes[token] for token in range(4)}
    bins = tally["calibration"]
    assert sum(bins["count"]) == (measured["draft"].counts.judged.sum() if record["greedy"] else 12 * ROWS)
    if record["greedy"]:  # what is accepted is what both find likeliest
        assert sum(bins["hits"]) == measured["draft"].counts.accepted.sum()
    parts = zip(bins["count"], bins["confidence"], bins["hits"], strict=True)
    gaps = [abs(hits / count - sure / count) * count for count, sure, hits in parts if count]
    assert tally["calibration"]["ece"] == pytest.approx(sum(gaps) / sum(bins["count"]))
    answer, counted = tally["answers"][0], np.asarray(read.counted_BS)[0]
    for name, figure_BS in (("p", read.p_BS), ("q", read.q_BS), ("kl", read.kl_BS)):
        np.testing.assert_allclose(answer[name], np.asarray(figure_BS)[0][counted], rtol=1e-3, atol=1e-6)


def test_answers_are_the_decoded_texts_and_name_what_was_refused(found):
    record, measured, _ = found
    tokenizer, pieces = tiny_pair.tokenizer(), record["pieces"]
    generation, first = measured["draft"].sample, batches(ROWS)[0]
    for b in range(2):
        answer, start = record["drafts"]["draft"]["answers"][b], first["lengths_B"][b]
        tokens = generation.tokens_BS[b, : generation.lengths_B[b]].tolist()
        text = data.continuation(tokens[:start], tokens[start:], tokenizer)
        assert "".join(pieces[piece] for piece in answer["text"]) == text
        assert record["prompts"][answer["prompt"]] == data.text_of(tokens[:start], tokenizer)
        refused = generation.rejected_BS[b, start:].tolist()[: len(answer["text"])]
        assert [piece >= 0 for piece in answer["refused"]] == [token >= 0 for token in refused]
        assert len(answer["target"][0]) == len(answer["target_law"][0]) == 4  # tokens of the model
    gaps = np.concatenate([answer["gap"] for answer in record["drafts"]["draft"]["answers"]])
    assert np.mean(gaps >= record["drafts"]["draft"]["selected_from_gap"]) == pytest.approx(0.4, abs=0.05)
    assert record["drafts"]["reference"]["selected_from_gap"] is None
    assert not record["drafts"]["zeros"]["answers"]  # nothing says its guesses along a text


def test_it_stays_bounded_and_a_file_gives_it_back_or_is_refused(found, tmp_path, monkeypatch):
    record, _, (target, draft, _) = found
    reporting.write_evidence(tmp_path, record)
    assert reporting.read_evidence(tmp_path) == json.loads(json.dumps(record))
    file = tmp_path / "evidence.json.gz"
    whole = file.read_bytes()
    reporting.write_evidence(tmp_path, record)
    assert file.read_bytes() == whole
    for damaged in (whole[:-9], b"", b"{}", whole[:40] + b"\x00" + whole[41:]):
        file.write_bytes(damaged)
        with pytest.raises(UserError, match="damaged or cannot be read"):
            reporting.read_evidence(tmp_path)
    reporting.write_evidence(tmp_path, record | {"version": 99})
    with pytest.raises(UserError, match="of version 99"):
        reporting.read_evidence(tmp_path)
    assert reporting.read_evidence(tmp_path / "nowhere") is None
    for name in ("READ", "SHOWN", "LONGEST_SHOWN", "MOST_SHOWN"):
        monkeypatch.setattr(evidence, name, {"READ": 3, "SHOWN": 2, "LONGEST_SHOWN": 4, "MOST_SHOWN": 1}[name])
    few = evidence.Evidence(target, tiny_pair.tokenizer(), NAMES, rows=270, max_new_tokens=12, greedy=True)
    way = {name: Contender(ChainDrafter(draft, length=2)) for name in NAMES}
    measure(target, way, batches(ROWS), sampling=Sampling(0.0), look=few.look, **KNOBS)
    kept = few.record
    assert kept["answers_read"] == 3 and len(kept["prompts"]) == 2
    assert [len(each["answers"]) for each in kept["drafts"].values()] == [2, 0, 0]
    assert all(len(a["text"]) == 4 and a["tokens"] == 12 for a in kept["drafts"]["draft"]["answers"])
    assert sum(kept["drafts"]["draft"]["by_class"]["tokens"]) == 12 * ROWS  # counts are of all
