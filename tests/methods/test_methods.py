"""Methods are found by name or in a user's own file, and say what they need and what they promise."""

import json

import jax
import numpy as np
import pytest

from adaspec_jax.decoding import (
    ChainDrafter,
    Lenient,
    NoDraft,
    TreeDrafter,
    rejection_sample,
)
from adaspec_jax.errors import UserError
from adaspec_jax.methods import METHODS, PUBLISHED, Given, Method, find, find_all, load_drafter, swept
from tests import tiny_pair
from tests.decoding.bag_model import BagModel
from tests.methods import test_cascades, test_draftless, test_foreign, test_heads, test_lossless, test_lossy, test_masks
from tests.methods.test_verification import OF_A_DRAFT

OWN = '''
from __future__ import annotations
import dataclasses
import jax
import jax.numpy as jnp
from adaspec_jax.decoding import Lenient, Proposal
from adaspec_jax.methods import Method

@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Again:
    """Guesses the last token once more."""
    num_nodes = 1
    def init(self, prompt, slots):
        return ()
    def propose(self, key, state, context):
        return Proposal(jnp.take_along_axis(context.tokens_BS, context.lengths_B[:, None] - 1, axis=1)), state

again = Method(name="again", drafter=lambda given: Again())
lax = Method(name="lax", drafter=lambda given: Again(), accept=Lenient(0.5), lossless=False)
'''


def test_the_table_has_each_method_under_its_own_name():
    assert list(METHODS)[:3] == ["plain", "vanilla", "specinfer"]
    assert all(name == method.name for name, method in METHODS.items())
    assert [name for name, method in METHODS.items() if not method.lossless] == [
        "specdec",
        *(f"{name}_typical" for name in ("amphista", "hydra", "hydra_plus", "medusa")),
        "vadusa",
        *test_lossy.NAMES,
        "pyramidsd_f",
        "pyramidsd_a",
    ]


def test_a_methods_promise_is_its_rules():
    assert all(method.accept.lossless == method.lossless for method in METHODS.values())
    for accept, lossless in ((Lenient(0.5), True), (rejection_sample, False)):
        with pytest.raises(ValueError, match="the method mine is said to be loss"):
            Method(name="mine", drafter=lambda given: NoDraft(), accept=accept, lossless=lossless)


def test_drafters_are_made_of_what_is_given():
    target, draft = BagModel.random(0), BagModel.random(1)
    given = Given(target=target, drafts={"d": draft}, draft_length=4)
    plain, vanilla, tree = (METHODS[name].make(given) for name in ("plain", "vanilla", "specinfer"))
    assert isinstance(plain, NoDraft)
    assert isinstance(vanilla, ChainDrafter) and vanilla.length == 4 and vanilla.model is draft
    assert isinstance(tree, TreeDrafter) and tree.branching == (1, 1, 3, 1)
    assert METHODS["specinfer"].make(Given(target=target, drafts={"d": draft}, draft_length=1)).branching == (1,)


def test_methods_of_one_draft_differ_in_how_they_verify():
    given = Given(target=BagModel.random(0), drafts={"d": BagModel.random(1)}, draft_length=3)
    block, match, kseq, distinct = (METHODS[name] for name in ("block_verification", "match", "kseq", "distinct"))
    assert block.make(given).length == match.make(given).length == 3
    assert kseq.make(given).branching == distinct.make(given).branching == (3, 1, 1)
    assert kseq.make(given).replacement and not distinct.make(given).replacement
    assert distinct.accept is rejection_sample
    assert METHODS["traversal"].make(given) == distinct.make(given)
    assert kseq.set(siblings="2", draft_length="2").make(given).branching == (2, 1)
    with pytest.raises(UserError, match="siblings is 0; it must be at least 1"):
        distinct.set(siblings="0").make(given)


def test_trees_that_grow_have_their_papers_numbers_or_ours():
    given = Given(target=BagModel.random(0), drafts={"d": BagModel.random(1)})
    specexec, edgellm = METHODS["specexec"].make(given), METHODS["edgellm"].make(given)
    assert (specexec.beams, specexec.branch, specexec.decay, specexec.fallback) == (32, 16, 0.95, None)
    assert (edgellm.beams, edgellm.branch, edgellm.decay) == (1, 2, 1.0) and edgellm.fallback.start == 0.01
    assert edgellm.widths == (8, 16) and METHODS["edgellm"].set(budget="1").make(given).widths == ()
    assert METHODS["specexec"].set(budget="128", depth="8").make(given).num_nodes == 128
    for name, knobs, says in (
        ("specexec", {"beams": 0}, r"specexec\[beams=0\]: beams is 0; it must be at least 1"),
        ("specexec", {"decay": "1.5"}, "decay is above 0, share at least 0, both at most 1: not 1.5 and 0.0"),
        ("edgellm", {"budget": 0}, "budget is 0"),
        ("edgellm", {"threshold": 0.0}, "threshold is 0.0; it must be above 0 and below 1"),
    ):
        with pytest.raises(UserError, match=says):
            METHODS[name].set(**knobs).make(given)


def test_every_method_is_held_against_plain_decoding_or_a_reading_somewhere():
    """Each in one of the files beside this one; a kind of methods that is new brings its own."""
    tested = {*OF_A_DRAFT, *test_draftless.NAMES, *test_foreign.NAMES, *test_cascades.NAMES}
    tested |= {*test_lossless.NAMES, *test_lossy.NAMES, *test_heads.NAMES, *test_masks.NAMES, "plain"}
    assert tested == set(METHODS)


def test_published_figures_are_of_methods_there_are_and_say_where_they_are_from():
    assert not set(PUBLISHED) - set(METHODS)
    for claim in (claim for claims in PUBLISHED.values() for claim in claims):
        assert all(map(str.strip, (claim.speedup, claim.models, claim.machine, claim.source)))


def test_a_method_without_what_it_needs_says_so():
    given = Given(target=BagModel.random(0))
    assert METHODS["plain"].lacks(given) is None
    assert METHODS["vanilla"].lacks(given) == "needs a draft model (--draft PATH)"
    with pytest.raises(UserError, match=r"the method specinfer needs a draft model \(--draft PATH\)"):
        METHODS["specinfer"].make(given)


def test_an_unknown_method_is_refused_with_the_nearest_name():
    with pytest.raises(UserError, match='there is no method "vanila"; did you mean "vanilla"'):
        find("vanila")
    with pytest.raises(UserError, match="known: all, plain, vanilla, specinfer, "):
        find_all(",")


def test_knobs_are_set_as_values_or_as_text_of_their_defaults_kind():
    made = []

    def drafter(given, **knobs):
        made.append(knobs)
        return NoDraft()

    knobs = {"window": 3, "share": 0.5, "shape": (2, 1), "warm": False, "kind": "a", "draft_length": None}
    method = Method(name="mine", drafter=drafter, knobs=knobs)
    method.make(Given(target=None))
    text = {"window": "7", "share": "0.25", "shape": "4-2-2", "warm": "true", "kind": "b", "draft_length": "2"}
    turned = method.set(**text).set(window=9)
    turned.make(Given(target=None))
    assert made == [
        knobs,
        {"window": 9, "share": 0.25, "shape": (4, 2, 2), "warm": True, "kind": "b", "draft_length": 2},
    ]
    assert method.label == "mine" and method.set(shape="4-2-2", window=5).label == "mine[shape=4-2-2,window=5]"
    for name, value, says in (
        ("windw", "3", 'the method mine has no knob "windw"; did you mean "window"'),
        ("window", "x", 'mine.window is "x"; give such as 3'),
        ("warm", "yes", 'mine.warm is "yes"; give such as False'),
        ("draft_length", "x", 'mine.draft_length is "x"; give a number'),
    ):
        with pytest.raises(UserError, match=says):
            method.set(**{name: value})
    with pytest.raises(UserError, match='plain has no knob "window"; it has none'):
        METHODS["plain"].set(window="3")
    given = Given(target=BagModel.random(0), drafts={"d": BagModel.random(1)}, draft_length=4)
    assert METHODS["vanilla"].set(draft_length="2").make(given).length == 2
    with pytest.raises(UserError, match=r"vanilla\[draft_length=0\]: draft_length is 0; it must be at least 1"):
        METHODS["vanilla"].set(draft_length=0).make(given)


def test_a_sweep_takes_each_method_that_has_the_knob_once_with_every_value():
    chosen = find_all("plain,vanilla,specinfer")
    labels = [method.label for method in swept(chosen, "draft_length=2,4")]
    assert labels == ["plain", *(f"{name}[draft_length={n}]" for name in ("vanilla", "specinfer") for n in (2, 4))]
    one = [method.label for method in swept(chosen, "vanilla.draft_length=3")]
    assert one == ["plain", "vanilla[draft_length=3]", "specinfer"]
    for sweep, says in (
        ("draft_length", "give KNOB=VALUES or METHOD.KNOB=VALUES"),
        ("lenght=3", "none of the methods has it; known: specinfer.draft_length, vanilla"),
        ("plain.draft_length=3", 'plain has no knob "draft_length"'),
        ("vanilla.draft_length=3,x", 'vanilla.draft_length is "x"'),
    ):
        with pytest.raises(UserError, match=says):
            swept(chosen, sweep)


def test_a_list_names_each_method_once_and_in_its_order():
    assert [method.name for method in find_all("specinfer,plain,specinfer")] == ["specinfer", "plain"]
    assert find_all("all") == list(METHODS.values())


def test_a_method_is_added_by_a_file_of_ones_own(tmp_path, monkeypatch):
    (tmp_path / "own_methods.py").write_text(OWN)
    again = find(f"{tmp_path / 'own_methods.py'}:again")
    assert isinstance(again, Method) and again.make(Given(target=None)).num_nodes == 1
    monkeypatch.syspath_prepend(tmp_path)
    assert find("own_methods:lax").lossless is False
    (tmp_path / "broken.py").write_text("def (:")
    for name, says in (
        (f"{tmp_path / 'own_methods.py'}:agian", 'did you mean "again"'),
        (f"{tmp_path / 'nowhere.py'}:again", "does not load: FileNotFoundError"),
        (f"{tmp_path / 'broken.py'}:again", "does not load: SyntaxError"),
        ("nowhere.module:again", "does not load: ModuleNotFoundError"),
    ):
        with pytest.raises(UserError, match=says):
            find(name)


def test_a_plain_models_directory_is_a_chain(tmp_path):
    model = tiny_pair.save(tmp_path / "plain", tiny_pair.LLAMA | {"vocab_size": tiny_pair.TOKENS})
    drafter = load_drafter(str(tmp_path / "plain"), length=3)
    assert isinstance(drafter, ChainDrafter) and drafter.length == 3
    jax.tree.map(np.testing.assert_array_equal, drafter.model.params, model.params)
    (tmp_path / "plain" / "drafter.json").write_text('{"kind": "model"}')
    assert load_drafter(str(tmp_path / "plain")).num_nodes == 5
    assert load_drafter(str(tmp_path / "plain"), dtype="bfloat16").model.dtype == "bfloat16"


@pytest.mark.parametrize(
    ("file", "content", "kind"),
    [
        ("drafter.json", {"kind": "modle"}, '"modle"; did you mean "model"'),
        (
            "config.json",
            {"architectures": ["LlamaForCausalLMKangaroo"], "model_type": "llama"},
            "LlamaForCausalLMKangaroo",
        ),
        ("config.json", {"speculators_model_type": "dspark"}, "dspark"),
    ],
)
def test_a_directory_of_another_kind_is_refused_by_its_name(tmp_path, file, content, kind):
    (tmp_path / file).write_text(json.dumps(content))
    with pytest.raises(UserError, match=f"holds a drafter of the kind .*{kind}"):
        load_drafter(str(tmp_path))


def test_a_directory_without_a_model_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"has no config\.json"):
        load_drafter(str(tmp_path))
