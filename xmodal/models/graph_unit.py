r"""The graph unit of DMD: who should listen to whom, decided for every sample.

The nodes are modalities, and each of them is a student of every other. From what two nodes say of a sample, a small
linear network scores the edge between them; the edges of a sample share one unit of weight:

$$z_m = [W_{logit}\, l_m;\ W_{repr}\, r_m], \qquad
  \rho_{j \leftarrow i} = W_{edge} [z_j; z_i], \qquad
  e = \mathrm{softmax}(\alpha \rho), \qquad \omega = e + \pi$$

| symbol | argument | shape |
|---|---|---|
| l, r | ``logits``, ``representations`` | (rows, M, outputs), (rows, M, width) |
| e | what the unit returns | (rows, M (M - 1)) |
| π | ``prior`` | (M (M - 1),), sums to 1 |
| α | `SHARPNESS` | 1/8 |

Edges are listed by student, then by teacher: of the nodes L, V, A they are V>L, A>L, L>V, A>V, L>A, V>A, where
``V>L`` means that L learns from V. There is no non-linearity, so a score is the sum of one number of the student and
one of the teacher, and that is how it is computed. The biases cancel in the softmax.

The prior π is set by hand in the authors' code. It is what gives the edges their direction (docs/methods/dmd.md):

| ``prior`` | favoured edges (1 before a softmax at temperature 0.25; the others 0) |
|---|---|
| ``reference``, graph ``homo`` | all that leave the first node |
| ``reference``, graph ``hetero`` | all from a node to a later one |
| ``uniform`` | none |
| ``given`` | as listed, ``teacher>student:value`` |
| ``auto`` | from better nodes to worse, by a running mean of their errors (ours) |

With three nodes the two rows ``reference`` are the vectors of the code; for other numbers they are our reading of its
pattern. Reference: Li, Wang, Cui: Decoupled Multimodal Distilling for Emotion Recognition, CVPR 2023, arXiv
2303.13802; read from the authors' code.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from xmodal.errors import InputError, did_you_mean

SHARPNESS = 0.125  # α
TEMPERATURE = 0.25  # of the softmax that makes a prior
MOMENTUM = 0.95  # of the running mean of errors
GRAPHS = ("homo", "hetero")
PRIORS = ("reference", "uniform", "auto", "given")


def edges_between(count: int) -> list[tuple[int, int]]:
    """(student, teacher) by number, in the order of the edges.

    Example:
        >>> edges_between(3)
        [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)]
    """
    return [(student, teacher) for student in range(count) for teacher in range(count) if teacher != student]


def edge_names(nodes: Sequence[str]) -> tuple[str, ...]:
    """``teacher>student`` of every edge, in their order.

    Example:
        >>> edge_names(("text", "audio"))
        ('audio>text', 'text>audio')
    """
    return tuple(f"{nodes[teacher]}>{nodes[student]}" for student, teacher in edges_between(len(nodes)))


class GraphUnit(nn.Module):
    """Edges between nodes, and their prior.

    Args:
        nodes: names of the modalities, two or more; their order is that of edges and of the prior ``reference``.
        width: of the representations.
        outputs: of the logits.
        hidden: g, width of W_logit and W_repr.
        graph: ``homo`` or ``hetero``, which ``reference`` is meant.
        prior: ``reference``, ``uniform``, ``auto`` or ``given``.
        given: for the last, ``teacher>student:value`` for edges whose value is not 0.

    Attributes:
        prior: π as it is now.
        errors: running mean of each node's error, and in the last place the weight that it has gathered.

    Example:
        >>> unit = GraphUnit(("text", "vision", "audio"), 50, hidden=64)
        >>> sum(parameter.numel() for parameter in unit.parameters())
        3649
        >>> [round(share, 6) for share in unit.prior.tolist()]
        [0.008834, 0.008834, 0.482332, 0.008834, 0.482332, 0.008834]
    """

    prior: Tensor
    errors: Tensor

    def __init__(
        self,
        nodes: Sequence[str],
        width: int,
        *,
        outputs: int = 1,
        hidden: int = 64,
        graph: str = "homo",
        prior: str = "reference",
        given: Sequence[str] = (),
    ) -> None:
        super().__init__()
        if len(set(nodes)) < len(nodes) or len(nodes) < 2:
            raise InputError(f"The nodes of a graph are {', '.join(nodes) or 'none'}: expected two or more, each once.")
        self.nodes, self.graph, self.kind = tuple(nodes), graph, prior
        self.edges, self.names = edges_between(len(nodes)), edge_names(nodes)
        self.W_logit, self.W_repr = nn.Linear(outputs, hidden), nn.Linear(width, hidden)
        self.W_edge = nn.Linear(4 * hidden, 1)
        self.register_buffer("prior", prior_of(values_of(self.nodes, graph, prior, given)))
        self.register_buffer("errors", torch.zeros(len(nodes) + 1))

    def forward(self, logits: Tensor, representations: Tensor) -> Tensor:
        """Weights of the edges, (rows, edges), which sum to 1 in each row."""
        return (SHARPNESS * self.scores(logits, representations)).softmax(dim=1)

    def scores(self, logits: Tensor, representations: Tensor) -> Tensor:
        """ρ, (rows, edges)."""
        found, wanted = (logits.shape[1], representations.shape[1]), len(self.nodes)
        if found != (wanted, wanted):
            raise ValueError(f"logits and representations have {found[0]} and {found[1]} nodes: expected {wanted}.")
        z = torch.cat([self.W_logit(logits), self.W_repr(representations)], dim=2)
        mine, theirs = self.W_edge.weight[0].chunk(2)
        students, teachers = zip(*self.edges, strict=True)
        return (z @ mine)[:, list(students)] + (z @ theirs)[:, list(teachers)] + self.W_edge.bias

    @torch.no_grad()
    def observe(self, errors: Tensor) -> None:
        """Show the prior ``auto`` the mean errors of the nodes on a batch, (nodes,); other priors stay as they are."""
        if self.kind != "auto":
            return
        self.errors.mul_(MOMENTUM).add_((1 - MOMENTUM) * torch.cat([errors, errors.new_ones(1)]))
        mean = self.errors[:-1] / self.errors[-1]
        students, teachers = zip(*self.edges, strict=True)
        lead = mean[list(students)] - mean[list(teachers)]
        self.prior.copy_(prior_of(lead / lead.abs().max().clamp(min=1e-12)))


def prior_of(values: Tensor) -> Tensor:
    """π = softmax(values / 0.25).

    Example:
        >>> [round(share, 4) for share in prior_of(torch.tensor([0.0, 1.0])).tolist()]
        [0.018, 0.982]
    """
    return (values / TEMPERATURE).softmax(dim=0)


def values_of(nodes: Sequence[str], graph: str, prior: str, given: Sequence[str] = ()) -> Tensor:
    """How much each edge is favoured, before the softmax.

    Example:
        >>> values_of(("text", "vision", "audio"), "hetero", "reference").tolist()
        [0.0, 0.0, 1.0, 0.0, 1.0, 1.0]
        >>> values_of(("text", "audio"), "homo", "given", ("audio>text:0.5",)).tolist()
        [0.5, 0.0]
    """
    for what, name, known in (("graph", graph, GRAPHS), ("prior", prior, PRIORS)):
        if name not in known:
            raise InputError(f"There is no {what} called '{name}'. {did_you_mean(name, known)}")
    if bool(given) != (prior == "given"):
        raise InputError(
            f"The prior is '{prior}' and {len(given)} edges are given: expected edges, as text>audio:1, with 'given' "
            "and with no other prior."
        )
    if prior == "given":
        found = _listed(nodes, given)
        return torch.tensor([found.get(name, 0.0) for name in edge_names(nodes)])
    if prior != "reference":
        return torch.zeros(len(nodes) * (len(nodes) - 1))
    pairs = edges_between(len(nodes))
    return torch.tensor([float(teacher == 0 if graph == "homo" else teacher < student) for student, teacher in pairs])


def _listed(nodes: Sequence[str], given: Sequence[str]) -> Mapping[str, float]:
    """Edge → value from ``teacher>student:value``; all that is wrong is told together."""
    known, problems = edge_names(nodes), []
    found: dict[str, float] = {}
    for text in given:
        name, _, value = text.rpartition(":")
        name = name.replace(" ", "")
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if name not in known:
            problems.append(f"'{text}' names no edge between {', '.join(nodes)}. {did_you_mean(name, known)}")
        elif not math.isfinite(number):
            problems.append(f"'{text}': expected a number behind the colon, as in {name}:1.")
        elif name in found:
            problems.append(f"The edge {name} is given twice.")
        found[name] = number
    if problems:
        raise InputError(problems)
    return found
