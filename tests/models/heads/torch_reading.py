"""Heads as servers compute them, in plain PyTorch, from the keys and shapes that servers ask for; no code of ours.

vLLM's `models/llama_eagle.py`, `llama_eagle3.py` and `medusa.py` are what it follows. At position t a head has the
target's hidden state of token t and the embedding of token t + 1, and rotary position t.
"""

import json
import math

import torch
from safetensors.torch import load_file


class Served:
    def __init__(self, directory, target):
        self.config = json.loads((directory / "config.json").read_text())
        self.weights = {name: tensor.float() for name, tensor in load_file(directory / "model.safetensors").items()}
        self.target = target.eval()

    def hidden(self, tokens_BT):
        """What enters each of the target's layers, then what leaves the last before and after the final norm."""
        last, entered = [], []
        layers = self.target.model.layers if hasattr(self.target, "model") else self.target.gpt_neox.layers
        hooks = [
            layer.register_forward_pre_hook(
                lambda _, args, kwargs: entered.append(args[0] if args else kwargs["hidden_states"]), with_kwargs=True
            )
            for layer in layers
        ]
        hooks.append(
            layers[-1].register_forward_hook(lambda *x: last.append(x[-1][0] if isinstance(x[-1], tuple) else x[-1]))
        )
        with torch.no_grad():
            normed = self.target(tokens_BT, output_hidden_states=True).hidden_states[-1]
        for hook in hooks:
            hook.remove()
        return [*entered, last[0]], normed

    def embedded(self, tokens_BT):
        return self.target.get_input_embeddings()(tokens_BT).detach()

    def norm(self, name, x):
        scale = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.config["rms_norm_eps"])
        return x * scale * self.weights[f"{name}.weight"]

    def linear(self, name, x):
        return x @ self.weights[f"{name}.weight"].T

    def layer(self, name, inputs_BTW, residual_BTD):
        x = residual_BTD + self.attention(f"{name}.self_attn", inputs_BTW)
        y = self.norm(f"{name}.post_attention_layernorm", x)
        gate = torch.nn.functional.silu(self.linear(f"{name}.mlp.gate_proj", y))
        return x + self.linear(f"{name}.mlp.down_proj", gate * self.linear(f"{name}.mlp.up_proj", y))

    def attention(self, name, inputs_BTW):
        count, size = inputs_BTW.shape[1], self.config["head_dim"]
        split = lambda part: self.linear(f"{name}.{part}_proj", inputs_BTW).unflatten(-1, (-1, size)).transpose(1, 2)  # noqa: E731
        angles = torch.arange(count)[:, None] * self.frequencies(size)
        cos, sin = (torch.cat([x, x], -1) for x in (angles.cos(), angles.sin()))

        def rotated(x):
            first, second = x.chunk(2, -1)
            return x * cos + torch.cat([-second, first], -1) * sin

        query, key, value = rotated(split("q")), rotated(split("k")), split("v")
        groups = self.config["num_attention_heads"] // self.config["num_key_value_heads"]
        key, value = (x.repeat_interleave(groups, 1) for x in (key, value))
        mixed = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.linear(f"{name}.o_proj", mixed.transpose(1, 2).flatten(2))

    def frequencies(self, size):
        """Llama 3.1's reference code, `apply_scaling`, where config.json asks for it."""
        found = self.config["rope_theta"] ** -(torch.arange(0, size, 2) / size)
        scaling = self.config.get("rope_scaling")
        if scaling is None:
            return found
        context, scaled = scaling["original_max_position_embeddings"], []
        slow, fast = (scaling[f"{name}_freq_factor"] for name in ("low", "high"))
        for frequency in found.tolist():
            wave = 2 * math.pi / frequency
            if wave > context / slow:
                frequency /= scaling["factor"]
            elif wave >= context / fast:
                share = (context / wave - slow) / (fast - slow)
                frequency *= (1 - share) / scaling["factor"] + share
            scaled.append(frequency)
        return torch.tensor(scaled)


class Recurrent(Served):
    def guesses(self, tokens_BT, next_B):
        """Logits [B, T - 1, V] along a text, and of one guess further, after the token `next_B`."""
        hidden_BTD, following_BT = self.begun(tokens_BT), tokens_BT[:, 1:]
        made = self.step(following_BT, hidden_BTD)
        longer = torch.cat([hidden_BTD, self.handed_on(made[:, -1:])], 1)
        again = self.step(torch.cat([following_BT, next_B[:, None]], 1), longer)
        return self.unembed(made).detach(), self.unembed(again[:, -1]).detach()

    def chain(self, tokens_T, count):
        """So many guesses in a row after a text, each the likeliest."""
        hidden_BTD, following_BT, found = self.begun(tokens_T[None]), tokens_T[None, 1:], []
        for _ in range(count):
            made = self.step(following_BT, hidden_BTD)[:, -1:]
            found.append(self.unembed(made).argmax(-1))
            hidden_BTD = torch.cat([hidden_BTD, self.handed_on(made)], 1)
            following_BT = torch.cat([following_BT, found[-1]], 1)
        return torch.cat(found, 1)[0].tolist()


class Eagle(Recurrent):
    def begun(self, tokens_BT):
        return self.hidden(tokens_BT)[1][:, :-1]

    def handed_on(self, made):
        return made

    def unembed(self, made):
        return made @ self.target.get_output_embeddings().weight.T  # no bias: vLLM leaves it out

    def step(self, following_BT, hidden_BTD):
        joint = torch.nn.functional.linear(
            torch.cat([self.embedded(following_BT), hidden_BTD], -1), self.weights["fc.weight"], self.weights["fc.bias"]
        )
        return self.layer("layers.0", joint, joint)


class Eagle3(Recurrent):
    def begun(self, tokens_BT):
        entered, _ = self.hidden(tokens_BT)
        count = len(entered) - 1
        ids = self.config["eagle_config"].get("eagle_aux_hidden_state_layer_ids", (2, count // 2, count - 3))
        aux = [entered[i][:, :-1] for i in sorted(ids)]
        if self.config.get("fc_norm"):
            aux = [self.norm(f"fc_norm.{i}", part) for i, part in enumerate(aux)]
        return self.linear("fc", torch.cat(aux, -1))

    def handed_on(self, made):
        return self.norm("norm", made) if self.config.get("norm_output") else made

    def step(self, following_BT, hidden_BTD):
        normed = self.norm("midlayer.hidden_norm", hidden_BTD)
        residual = normed if self.config.get("norm_before_residual") else hidden_BTD
        inputs = torch.cat([self.norm("midlayer.input_layernorm", self.embedded(following_BT)), normed], -1)
        return self.layer("midlayer", inputs, residual)

    def unembed(self, made):
        own = self.linear("lm_head", self.norm("norm", made))
        if self.config["draft_vocab_size"] == self.config["vocab_size"]:
            assert "d2t" not in self.weights  # for which vLLM has no parameter then
            return own
        everything = own.new_full((*own.shape[:-1], self.config["vocab_size"]), -1e9)
        targets = torch.arange(own.shape[-1]) + self.weights["d2t"].long()
        assert len(targets) == self.config["draft_vocab_size"]
        everything[..., targets] = own
        return everything


class Medusa(Served):
    def guesses(self, tokens_BT):
        """Logits [B, T, V] of every head."""
        hidden, laws = self.hidden(tokens_BT)[1], []
        for i in range(self.config["num_heads"]):
            x = hidden
            for j in range(self.config["num_hidden_layers"]):
                name = f"blocks.{i}.layers.{j}"
                bias = self.weights[f"{name}.bias"] if self.config["medusa_fc_bias"] else 0
                x = x + torch.nn.functional.silu(self.linear(name, x) + bias)
            laws.append(self.linear(f"lm_heads.{i}", x))
        return laws
