"""Code of DMD's equations, one module after the other, for the comparison in `benchmarks/dmd.py`.

Names of modules, and so of the weights, are those of the published code's files; modalities are l, v and a. Nothing is
shared, stacked or skipped. As published, attention weights are computed explicitly and the margin loss loops over its
anchors; with ``fused=True`` attention is PyTorch's `scaled_dot_product_attention`, and the margins of all anchors are
one table: what a competent engineer would write.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LETTERS = ("l", "v", "a")  # the order of the graphs' nodes
SOURCES = {"l": ("a", "v"), "v": ("l", "a"), "a": ("l", "v")}
EDGES = ((0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1))  # student, teacher
PRIORS = {"homo": (0, 0, 1, 0, 1, 0), "hetero": (0, 0, 1, 0, 1, 1)}


class Attention(nn.Module):
    """Attention of several heads with packed projections."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.in_proj_weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(3 * width, width)))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.out_proj.weight)
        nn.init.zeros_(self.out_proj.bias)
        self.heads, self.dropout = heads, dropout

    fused = False

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """Outputs of the attention heads; the mask is added to the scores."""
        steps, batch, width = query.shape
        part = width // self.heads
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        q, k, v = (F.linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases, strict=True))
        if self.fused:
            q, k, v = (x.view(len(x), batch, self.heads, part).permute(1, 2, 0, 3) for x in (q, k, v))
            dropout = self.dropout if self.training else 0.0
            found = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
            fused: Tensor = self.out_proj(found.permute(2, 0, 1, 3).reshape(steps, batch, width))
            return fused
        q = q * part**-0.5
        q = q.contiguous().view(steps, batch * self.heads, part).transpose(0, 1)
        k, v = (x.contiguous().view(-1, batch * self.heads, part).transpose(0, 1) for x in (k, v))
        scores = torch.bmm(q, k.transpose(1, 2))
        if mask is not None:
            scores = scores + mask.unsqueeze(0)
        weights_ = F.softmax(scores.float(), dim=-1).type_as(scores)
        weights_ = F.dropout(weights_, self.dropout, self.training)
        heads = torch.bmm(weights_, v).transpose(0, 1).contiguous().view(steps, batch, width)
        out: Tensor = self.out_proj(heads)
        return out


class Layer(nn.Module):
    """A layer with normalisation before each part."""

    def __init__(self, width: int, heads: int, attention: float) -> None:
        super().__init__()
        self.self_attn = Attention(width, heads, attention)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        for linear in (self.fc1, self.fc2):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)
        self.layer_norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(2)])

    def forward(self, x: Tensor, key: Tensor | None, value: Tensor | None, causal: bool) -> Tensor:
        """Outputs of the layer; keys and values of another sequence are normalised here too."""
        first, second = self.layer_norms
        normed = first(x)
        k, v = (normed, normed) if key is None else (first(key), first(value))
        mask = future_mask(len(x), len(k)) if causal else None
        x = x + self.self_attn(normed, k, v, mask)
        out: Tensor = x + self.fc2(F.relu(self.fc1(second(x))))
        return out


def future_mask(queries: int, keys: int) -> Tensor:
    visible = torch.ones(queries, keys).tril(abs(queries - keys)).bool()
    return torch.zeros(queries, keys).masked_fill(~visible, -math.inf)


def positions(x: Tensor) -> Tensor:
    """Codes (time, batch, width) of a sequence; a step whose first channel is zero has none."""
    steps, _, width = x.shape
    half = width // 2
    rates = torch.exp(torch.arange(half) * -(math.log(10000) / (half - 1)))
    angles = torch.arange(1, steps + 1).unsqueeze(1) * rates
    codes = torch.cat([angles.sin(), angles.cos(), torch.zeros(steps, width - 2 * half)], dim=1)
    return codes.unsqueeze(1) * (x[:, :, :1] != 0)


class Encoder(nn.Module):
    """A transformer encoder over (time, batch, width)."""

    def __init__(
        self, width: int, heads: int, layers: int, *, attention: float, embed: float, causal: bool = True
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Layer(width, heads, attention) for _ in range(layers)])
        self.layer_norm = nn.LayerNorm(width)
        self.embed, self.causal = embed, causal

    def _coded(self, x: Tensor) -> Tensor:
        return F.dropout(math.sqrt(x.shape[-1]) * x + positions(x), self.embed, self.training)

    def forward(self, query: Tensor, source: Tensor | None = None) -> Tensor:
        """The sequence after attention to itself, or to another one."""
        x = self._coded(query)
        key = None if source is None else self._coded(source)
        value = None if source is None else self._coded(source)
        for layer in self.layers:
            x = layer(x, key, value, self.causal)
        out: Tensor = self.layer_norm(x)
        return out


class PlainDMD(nn.Module):
    """The network.

    Args:
        widths: letter → features per step.
        lengths: letter → steps.
        kernels: letter → kernel of the projection.
        width: common width.
        heads: of attention.
        layers: of the transformers.
        attention: letter → dropout of attention weights where the modality is key and value.
        embed: dropout behind the positions.
        text: dropout of the first modality's features.
        output: dropout in the heads.
    """

    def __init__(
        self,
        widths: dict[str, int],
        lengths: dict[str, int],
        kernels: dict[str, int],
        *,
        width: int,
        heads: int,
        layers: int,
        attention: dict[str, float],
        embed: float,
        text: float,
        output: float,
    ) -> None:
        super().__init__()
        d, self.text, self.output = width, text, output
        flat = {m: d * (lengths[m] - kernels[m] + 1) for m in LETTERS}
        for m in LETTERS:
            self.add_module(f"proj_{m}", nn.Conv1d(widths[m], d, kernels[m], bias=False))
            self.add_module(f"encoder_s_{m}", nn.Conv1d(d, d, 1, bias=False))
            self.add_module(f"decoder_{m}", nn.Conv1d(2 * d, d, 1, bias=False))
            self.add_module(f"proj_cosine_{m}", nn.Linear(flat[m], d))
            self.add_module(f"align_c_{m}", nn.Linear(flat[m], d))
            self.add_module(f"self_attentions_c_{m}", Encoder(d, heads, layers, attention=attention[m], embed=embed))
            for other in SOURCES[m]:
                encoder = Encoder(d, heads, layers, attention=attention[other], embed=embed)
                self.add_module(f"trans_{m}_with_{other}", encoder)
            memory = Encoder(2 * d, heads, max(layers, 3), attention=attention["l"], embed=embed)
            self.add_module(f"trans_{m}_mem", memory)
            for level, inner, outer in (("low", d, flat[m]), ("high", 2 * d, 2 * d)):
                self.add_module(f"proj1_{m}_{level}", nn.Linear(outer, inner))
                self.add_module(f"proj2_{m}_{level}", nn.Linear(inner, outer))
                self.add_module(f"out_layer_{m}_{level}", nn.Linear(outer, 1))
            self.add_module(f"weight_{m}", nn.Linear(2 * d, 2 * d))
        self.encoder_c = nn.Conv1d(d, d, 1, bias=False)
        self.weight_c = nn.Linear(3 * d, 3 * d)
        self.proj1_c, self.proj2_c, self.out_layer_c = (
            nn.Linear(3 * d, 3 * d),
            nn.Linear(3 * d, 3 * d),
            nn.Linear(3 * d, 1),
        )
        self.proj1, self.proj2, self.out_layer = nn.Linear(9 * d, 9 * d), nn.Linear(9 * d, 9 * d), nn.Linear(9 * d, 1)

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """All outputs, from inputs letter → (batch, width, time)."""
        part, out = self.get_submodule, {}
        for m in LETTERS:
            features = F.dropout(inputs[m], self.text, self.training) if m == "l" else inputs[m]
            p = out[f"origin_{m}"] = part(f"proj_{m}")(features)
            s, c = part(f"encoder_s_{m}")(p), self.encoder_c(p)
            r = out[f"recon_{m}"] = part(f"decoder_{m}")(torch.cat([s, c], dim=1))
            out[f"s_{m}_r"] = part(f"encoder_s_{m}")(r)
            out[f"c_{m}_sim"] = part(f"align_c_{m}")(c.flatten(1))
            out[f"s_{m}"], out[f"c_{m}"] = s.permute(2, 0, 1), c.permute(2, 0, 1)
            out[f"proj_s_{m}"] = part(f"proj_cosine_{m}")(out[f"s_{m}"].transpose(0, 1).flatten(1))
            h = out[f"c_{m}"].transpose(0, 1).flatten(1)
            a = out[f"repr_{m}_homo"] = F.relu(part(f"proj1_{m}_low")(h))
            q = part(f"proj2_{m}_low")(F.dropout(a, self.output, self.training)) + h
            out[f"logits_{m}_homo"] = part(f"out_layer_{m}_low")(q)
        common = torch.cat([part(f"self_attentions_c_{m}")(out[f"c_{m}"])[-1] for m in LETTERS], dim=1)
        out["logits_c"] = self.out_layer_c(self._residual("c", common))
        gates = []
        for m in LETTERS:
            rows = [part(f"trans_{m}_with_{other}")(out[f"s_{m}"], out[f"s_{other}"]) for other in SOURCES[m]]
            h = out[f"last_h_{m}"] = part(f"trans_{m}_mem")(torch.cat(rows, dim=2))[-1]
            out[f"repr_{m}_hetero"] = self._residual(f"{m}_high", h)
            out[f"logits_{m}_hetero"] = part(f"out_layer_{m}_high")(out[f"repr_{m}_hetero"])
            gates.append(torch.sigmoid(part(f"weight_{m}")(h)))
        fused = torch.cat([*gates, torch.sigmoid(self.weight_c(common))], dim=1)
        hidden = F.dropout(F.relu(self.proj1(fused)), self.output, self.training)
        out["output_logit"] = self.out_layer(self.proj2(hidden) + fused)
        return out

    def _residual(self, name: str, x: Tensor) -> Tensor:
        hidden = F.dropout(F.relu(self.get_submodule(f"proj1_{name}")(x)), self.output, self.training)
        added: Tensor = self.get_submodule(f"proj2_{name}")(hidden) + x
        return added


class PlainGraph(nn.Module):
    """A graph distillation unit: W_logit, W_repr and W_edge as published."""

    def __init__(self, width: int, hidden: int, kind: str) -> None:
        super().__init__()
        self.W_logit, self.W_repr = nn.Linear(1, hidden), nn.Linear(width, hidden)
        self.W_edge = nn.Linear(4 * hidden, 1)
        self.kind = kind
        self.register_buffer("prior", F.softmax(torch.tensor(PRIORS[kind], dtype=torch.float32) / 0.25, dim=0))

    def forward(self, logits: list[Tensor], reprs: list[Tensor]) -> dict[str, Tensor]:
        """The three terms."""
        nodes = [torch.cat([self.W_logit(x), self.W_repr(r)], dim=1) for x, r in zip(logits, reprs, strict=True)]
        scores = torch.stack([self.W_edge(torch.cat([nodes[j], nodes[i]], dim=1)).squeeze(1) for j, i in EDGES])
        edges = F.softmax(scores / 8, dim=0)
        weights = edges + self.prior.unsqueeze(1)
        regular = 10 * ((edges.mean(dim=1) - self.prior) ** 2).sum()
        by_logit, by_repr = logits[0].new_zeros(()), logits[0].new_zeros(())
        for edge, (j, i) in enumerate(EDGES):
            by_logit = by_logit + (weights[edge] * (logits[j] - logits[i].detach()).abs().sum(1)).mean()
            if self.kind == "homo":
                by_repr = by_repr + 10 * (weights[edge] * (reprs[j] - reprs[i].detach()).abs().sum(1)).mean()
            else:
                cosine = F.cosine_similarity(reprs[j], reprs[i].detach(), dim=1).clamp(min=0).mean()
                by_repr = by_repr + 10 * weights[edge].mean() * cosine
        return {"reg": regular, "logit": by_logit, "repr": by_repr}


def looped_margin(features: Tensor, labels: Tensor) -> Tensor:
    """The margin loss of rows (rows, width), anchor by anchor."""
    losses = []
    norms = (features.square().sum(dim=1) + 1e-8).sqrt()
    for anchor in range(len(features)):
        cosine = (features @ features[anchor]) / (norms * norms[anchor])
        same = labels == labels[anchor]
        positive, negative = same.clone(), ~same
        positive[anchor] = False
        if not positive.any() or not negative.any():
            continue
        margin = 0.15 * (labels[anchor] - labels[negative]).abs()
        gaps = margin.unsqueeze(0) - cosine[positive].unsqueeze(1) + cosine[negative].unsqueeze(0)
        losses.append(gaps.clamp(min=0).mean())
    return torch.stack(losses).mean() if losses else features.sum() * 0


def margin_table(features: Tensor, labels: Tensor) -> Tensor:
    """The same for all anchors at once."""
    norms = (features.square().sum(dim=1) + 1e-8).sqrt()
    cosine = (features @ features.T) / (norms[:, None] * norms)
    gap = (labels[:, None] - labels).abs()
    same = gap == 0
    positive = same & ~torch.eye(len(labels), dtype=torch.bool)
    pairs = positive[:, :, None] & ~same[:, None, :]  # anchor, positive, negative
    gaps = (0.15 * gap[:, None, :] - cosine[:, :, None] + cosine[:, None, :]).clamp(min=0)
    numbers = pairs.sum(dim=(1, 2))
    means = (gaps * pairs).sum(dim=(1, 2)) / numbers.clamp(min=1)
    return means.sum() / (numbers > 0).sum().clamp(min=1)


def plain_total(
    out: dict[str, Tensor], labels: Tensor, homo: PlainGraph, hetero: PlainGraph, *, fused: bool = False
) -> Tensor:
    """The objective of training, with the cosine of every frame in the orthogonality term."""
    heads = ["output_logit", "logits_c", *(f"logits_{m}_{k}" for k in ("homo", "hetero") for m in LETTERS)]
    task = torch.stack([F.l1_loss(out[name], labels) for name in heads]).sum()
    zero = labels.new_zeros(())
    rebuilt = sum((F.mse_loss(out[f"recon_{m}"], out[f"origin_{m}"]) for m in LETTERS), zero)
    cycle = sum((F.mse_loss(out[f"s_{m}"].permute(1, 2, 0), out[f"s_{m}_r"]) for m in LETTERS), zero)
    apart = sum((F.cosine_similarity(out[f"s_{m}"], out[f"c_{m}"], dim=2).clamp(min=0).mean() for m in LETTERS), zero)
    rows = torch.stack([out[f"c_{m}_sim"] for m in LETTERS], dim=1).flatten(0, 1)
    margin = (margin_table if fused else looped_margin)(rows, labels.repeat(1, 3).flatten())
    low = homo(*([out[f"{k}_{m}_homo"] for m in LETTERS] for k in ("logits", "repr")))
    high = hetero(*([out[f"{k}_{m}_hetero"] for m in LETTERS] for k in ("logits", "repr")))
    graphs = 0.05 * (low["logit"] + low["reg"]) + 0.05 * (high["logit"] + high["repr"] + high["reg"])
    return task + graphs + 0.1 * (cycle + rebuilt + 0.1 * (margin + apart))
