"""Which dimension of which parameter lies along which axis of the mesh, for every family."""

import jax
import pytest
from jax.sharding import PartitionSpec

from adaspec_jax import models
from adaspec_jax.devices import sharding
from adaspec_jax.models.causal_lm import parameter_shapes
from tests.models.conftest import TINY_OF

# Of the parameters of all families together, a layer's without its number. Kernels are [in, out].
SPECS = {
    "embed/embedding": ("tensor", "fsdp"),
    "position_embed/embedding": (None, "fsdp"),  # positions are no vocabulary
    "layers/attention_norm/scale": (),
    "layers/attention_norm/bias": (),
    "layers/attention/q/kernel": ("fsdp", "tensor"),
    "layers/attention/k/kernel": ("fsdp", "tensor"),
    "layers/attention/v/kernel": ("fsdp", "tensor"),
    "layers/attention/q/bias": ("tensor",),
    "layers/attention/k/bias": ("tensor",),
    "layers/attention/v/bias": ("tensor",),
    "layers/attention/q_norm/scale": (),
    "layers/attention/k_norm/scale": (),
    "layers/attention/out/kernel": ("tensor", "fsdp"),
    "layers/attention/out/bias": (),
    "layers/attention_out_norm/scale": (),
    "layers/mlp_out_norm/scale": (),
    "layers/mlp_norm/scale": (),
    "layers/mlp_norm/bias": (),
    "layers/mlp/up/kernel": ("fsdp", "tensor"),
    "layers/mlp/gate/kernel": ("fsdp", "tensor"),
    "layers/mlp/up/bias": ("tensor",),
    "layers/mlp/down/kernel": ("tensor", "fsdp"),
    "layers/mlp/down/bias": (),
    "layers/mlp/router/kernel": ("fsdp",),
    "layers/mlp/experts/up": (None, "fsdp", "tensor"),
    "layers/mlp/experts/gate": (None, "fsdp", "tensor"),
    "layers/mlp/experts/down": (None, "tensor", "fsdp"),
    "final_norm/scale": (),
    "final_norm/bias": (),
    "head/kernel": ("fsdp", "tensor"),
    "head/bias": (),
}


def specs(tree, mesh):
    """{path: the spec of its sharding, without the dimensions at its end that stay whole}."""
    placed, _ = jax.tree_util.tree_flatten_with_path(sharding.placements(tree, mesh))
    found = {}
    for path, leaf in placed:
        axes = list(leaf.spec)
        while axes and axes[-1] is None:
            axes.pop()
        found["/".join(key.key for key in path)] = tuple(axes)
    return found


@pytest.fixture(scope="module")
def mesh():
    return sharding.make_mesh(2, 2, 2)


@pytest.mark.parametrize("model_type", TINY_OF)
def test_every_parameter_of_a_family_is_cut_as_the_table_means_it(model_type, mesh):
    shapes = parameter_shapes(models.config_from_hf(TINY_OF[model_type] | {"vocab_size": 64}))  # both axes divide it
    for path, axes in specs(shapes, mesh).items():
        first, _, rest = path.partition("/")
        assert axes == SPECS[f"layers/{rest}" if first.startswith("layers_") else path], path


def test_the_families_together_have_all_parameters_of_the_list():
    found = set()
    for keys in TINY_OF.values():
        paths, _ = jax.tree_util.tree_flatten_with_path(parameter_shapes(models.config_from_hf(keys)))
        names = ["/".join(key.key for key in path) for path, _ in paths]
        found |= {f"layers/{name.partition('/')[2]}" if name.startswith("layers_") else name for name in names}
    assert found == SPECS.keys()


@pytest.mark.parametrize(
    ("path", "axes"),
    [
        ("layers/attention/q/kernel", (None, "fsdp", "tensor")),  # stacked for a scan: the number of layers is first
        ("layers/attention/q/lora_a", (None, "fsdp")),
        ("layers_0/attention/q/lora_b", (None, "fsdp")),
        ("mu/embed/embedding", ("tensor", "fsdp")),  # a moment lies as its parameter does
        ("mu/position_embed/embedding", (None, "fsdp")),
        ("cross_attention/q/kernel", ()),  # names that only end like one of the table's
        ("other_mlp/up/kernel", ()),
        ("other_mlp/up/bias", ()),
        ("overhead/kernel", ()),
        ("sublayers/head/kernel", ("fsdp", "tensor")),
    ],
)
def test_a_pattern_takes_whole_names_wherever_they_stand(path, axes, mesh):
    tree = jax.ShapeDtypeStruct((8, 8, 8) if path.startswith("layers/") else (8, 8), "float32")
    for name in reversed(path.split("/")):
        tree = {name: tree}
    assert specs(tree, mesh) == {path: axes}


def test_a_dimension_that_an_axis_does_not_divide_stays_whole(mesh):
    tree = {"embed": {"embedding": jax.ShapeDtypeStruct((61, 8), "float32")}}
    assert sharding.placements(tree, mesh)["embed"]["embedding"].spec == PartitionSpec(None, "fsdp")
