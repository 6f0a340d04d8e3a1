"""A training step of heads that guess at slots, in plain PyTorch, by names and shapes on disk; no code of ours.

SpecForge's `core/dflash.py` and the speculators library's `models/dflash` and `models/peagle` are what it follows: one
sequence of a text and all its blocks, and one square mask that says who sees whom.
"""

import json

import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy, scaled_dot_product_attention, silu


class Slots:
    def __init__(self, directory, embedding_VD, matrix_VD):
        self.config = json.loads((directory / "config.json").read_text())
        stored = load_file(directory / "model.safetensors")
        self.weights = {
            name: tensor.float().requires_grad_() for name, tensor in stored.items() if tensor.is_floating_point()
        }
        self.tables = {name: tensor for name, tensor in stored.items() if not tensor.is_floating_point()}
        self.embedding_VD, self.matrix_VD = (torch.tensor(x) for x in (embedding_VD, matrix_VD))

    def norm(self, name, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.config["rms_norm_eps"]) * self.weights[name]

    def linear(self, name, x):
        return x @ self.weights[f"{name}.weight"].T

    def heads(self, name, x):
        return self.linear(name, x).unflatten(-1, (-1, self.config["head_dim"]))

    def rotated(self, x, positions):
        """[B, X, H, K] of positions [B, X]."""
        size = self.config["head_dim"]
        angles = positions[..., None, None] * self.config["rope_theta"] ** -(torch.arange(0, size, 2) / size)
        cos, sin = (torch.cat([y, y], -1) for y in (angles.cos(), angles.sin()))
        first, second = x.chunk(2, -1)
        return x * cos + torch.cat([-second, first], -1) * sin

    def attention(self, name, query, key, value, mask):
        """Of [B, X, H, K] over [B, Y, Hkv, K] where `mask` [B, X, Y] is true."""
        groups = query.shape[2] // key.shape[2]
        key, value = (x.repeat_interleave(groups, 2).transpose(1, 2) for x in (key, value))
        mixed = scaled_dot_product_attention(query.transpose(1, 2), key, value, mask[:, None])
        return self.linear(f"{name}.o_proj", mixed.transpose(1, 2).flatten(2))

    def mlp(self, name, x):
        return self.linear(
            f"{name}.down_proj", silu(self.linear(f"{name}.gate_proj", x)) * self.linear(f"{name}.up_proj", x)
        )

    def gradient_norm(self, loss):
        loss.backward()
        found = [x.grad.pow(2).sum() for x in self.weights.values() if x.grad is not None]
        return torch.stack(found).sum().sqrt().item()


class DFlash(Slots):
    def logits(self, features_BTF, tokens_BT, anchors_BN):
        """[B, N, block, V], of blocks whose first token is at the anchors."""
        block, own = self.config["block_size"], self.config["dflash_config"]
        batch, length = tokens_BT.shape
        count = anchors_BN.shape[1]
        context = self.norm("hidden_norm.weight", self.linear("fc", features_BTF))
        noise = torch.full((batch, count, block), own["mask_token_id"])
        noise[:, :, 0] = tokens_BT.gather(1, anchors_BN)
        x = self.embedding_VD[noise.flatten(1)]
        along = torch.arange(length).expand(batch, -1)
        positions = (anchors_BN[..., None] + torch.arange(block)).flatten(1)
        begins = anchors_BN.repeat_interleave(block, 1)
        of_block = torch.arange(count).repeat_interleave(block)
        mask = torch.cat([along[:, None] < begins[..., None], (of_block[:, None] == of_block).expand(batch, -1, -1)], 2)
        for i in range(self.config["num_hidden_layers"]):
            name = f"layers.{i}.self_attn"
            y = self.norm(f"layers.{i}.input_layernorm.weight", x)
            both = torch.cat([context, y], 1)
            query = self.norm(f"{name}.q_norm.weight", self.heads(f"{name}.q_proj", y))
            key = self.norm(f"{name}.k_norm.weight", self.heads(f"{name}.k_proj", both))
            query, key = self.rotated(query, positions), self.rotated(key, torch.cat([along, positions], 1))
            x = x + self.attention(name, query, key, self.heads(f"{name}.v_proj", both), mask)
            x = x + self.mlp(f"layers.{i}.mlp", self.norm(f"layers.{i}.post_attention_layernorm.weight", x))
        return (self.norm("norm.weight", x) @ self.matrix_VD.T).unflatten(1, (count, block))

    def loss(self, features_BTF, tokens_BT, labels_BT, anchors_BN, real_BN, *, gamma=4.0, alpha=None):
        """Weighted cross entropy over the number of labels; `alpha`: D-PACE's smoothing, in place of the decay."""
        logits = self.logits(features_BTF, tokens_BT, anchors_BN)
        block, length = logits.shape[2], tokens_BT.shape[1]
        at = anchors_BN[..., None] + torch.arange(block)
        inside, at = at < length, at.clamp(max=length - 1)
        tokens, mask = (x.gather(1, at.flatten(1)).reshape(at.shape) for x in (tokens_BT, labels_BT))
        mask = (mask & inside & real_BN[..., None]).float()
        mask[:, :, 0] = 0
        entropy = cross_entropy(logits.flatten(0, 2), tokens.flatten(), reduction="none").reshape(at.shape)
        if alpha is None:
            weight = torch.exp(-(torch.arange(block) - 1).clamp(min=0) / gamma).expand(at.shape)
        else:
            stays = torch.where(mask > 0, (1 - alpha) * torch.exp(-entropy.detach()) + alpha, 1.0)
            weight = (stays.cumprod(-1) * mask).flip(-1).cumsum(-1).flip(-1)
        return (entropy * weight * mask).sum() / mask.sum()


class PEagle(Slots):
    def logits(self, features_TF, tokens_T, chains):
        """[X, V] of one text: its own entries, all but the last, and slots (where the chain begins, its depth)."""
        length = len(tokens_T) - 1
        begins = torch.tensor([*range(length), *(begin for begin, _ in chains)])
        depths = torch.tensor([0] * length + [depth for _, depth in chains])
        mask_token, real = self.config["pard_token"], depths == 0
        embedded = self.embedding_VD[torch.where(real, tokens_T[begins + 1], mask_token)]
        hidden = torch.where(real[:, None], features_TF[begins], self.weights["mask_hidden"])
        residual = self.linear("fc", hidden)[None]
        normed = self.norm("midlayer.hidden_norm.weight", residual)
        x = torch.cat([self.norm("midlayer.input_layernorm.weight", embedded[None]), normed], -1)
        before, same = begins[:, None] >= begins, begins[:, None] == begins
        mask = (real & before) | (same & (depths[:, None] >= depths))
        for i in range(self.config["num_hidden_layers"]):
            name, where = f"layers.{i}" if i else "midlayer", (begins + depths)[None]
            if i:
                x = self.norm(f"{name}.input_layernorm.weight", residual)
            query, key, value = (self.heads(f"{name}.self_attn.{part}_proj", x) for part in "qkv")
            query, key = self.rotated(query, where), self.rotated(key, where)
            residual = residual + self.attention(f"{name}.self_attn", query, key, value, mask[None])
            y = self.norm(f"{name}.post_attention_layernorm.weight", residual)
            residual = residual + self.mlp(f"{name}.mlp", y)
        return begins, depths, self.linear("lm_head", self.norm("norm.weight", residual))[0]

    def loss(self, features_BTF, tokens_BT, labels_BT, laws_BTV, chains_B):
        """The mean divergence from the target over labels of all depths; `laws_BTV`: its log-probabilities."""
        total, count = 0.0, 0
        for features, tokens, labels, laws, chains in zip(
            features_BTF, tokens_BT, labels_BT, laws_BTV, chains_B, strict=True
        ):
            begins, depths, logits = self.logits(features, tokens, chains)
            at = begins + depths + 2
            inside = at < len(tokens)
            inside &= labels[at.clamp(max=len(tokens) - 1)]
            p, q = laws[at[inside] - 1], logits[inside].log_softmax(-1)
            total, count = total + (p.exp() * (p - q)).sum(), count + inside.sum()
        return total / count
