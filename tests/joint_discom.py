"""The joint network of DisCoM-KD in the names of the authors' code, computed from a dictionary of tensors alone."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTH, HALF, CLASSES = 512, 256, 10
BLOCKS = ((64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2))  # channels read and written, stride


def resnet_shapes(channels: int) -> dict[str, tuple[int, ...]]:
    shapes = {"0.weight": (64, channels, 7, 7), **norm_shapes("1", 64)}
    for stage, (read, write, stride) in enumerate(BLOCKS):
        for block in range(2):
            name, inside = f"{stage + 4}.{block}", read if block == 0 else write
            shapes |= {f"{name}.conv1.weight": (write, inside, 3, 3), **norm_shapes(f"{name}.bn1", write)}
            shapes |= {f"{name}.conv2.weight": (write, write, 3, 3), **norm_shapes(f"{name}.bn2", write)}
            if block == 0 and stride == 2:
                shapes |= {f"{name}.downsample.0.weight": (write, read, 1, 1)}
                shapes |= norm_shapes(f"{name}.downsample.1", write)
    return shapes


def lenet_shapes(channels: int, side: int) -> dict[str, tuple[int, ...]]:
    left = (side // 2 - 4) // 2
    return {
        **{"conv1.weight": (6, channels, 5, 5), "conv1.bias": (6,)},
        **{"conv2.weight": (16, 6, 5, 5), "conv2.bias": (16,)},
        **{"fc1.weight": (WIDTH, 16 * left * left), "fc1.bias": (WIDTH,)},
    }


def norm_shapes(name: str, width: int) -> dict[str, tuple[int, ...]]:
    parts = ("weight", "bias", "running_mean", "running_var")
    return {**{f"{name}.{part}": (width,) for part in parts}, f"{name}.num_batches_tracked": ()}


def joint_file(first: dict[str, tuple[int, ...]], second: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """A state dict as the authors' code saves it; every tensor has its own random values."""
    shapes = {f"{side}_enc_{part}.{name}": shape for side, encoder in (("first", first), ("second", second))
              for part in ("inv", "spec") for name, shape in encoder.items()}  # fmt: skip
    linear = {"task_dom.block.0": (2, HALF), "task_dom2.block.0": (2, HALF), "task_cl": (CLASSES, WIDTH)}
    linear |= {"task_cl2": (CLASSES, WIDTH), "task_cl3.block.0": (CLASSES, HALF), "discr.block.0": (2, HALF)}
    linear |= {"projF.l1": (HALF, WIDTH), "projS.l1": (HALF, WIDTH)}
    for name, (write, read) in linear.items():
        shapes |= {f"{name}.weight": (write, read), f"{name}.bias": (write,)}
    shapes |= {**norm_shapes("projF.bn1", HALF), **norm_shapes("projS.bn1", HALF)}
    generator = torch.Generator().manual_seed(3)
    tensors: dict[str, Tensor] = {}
    for name, shape in shapes.items():
        if name.endswith("num_batches_tracked"):
            tensors[name] = torch.tensor(7)
            continue
        values = torch.rand(shape, generator=generator)
        fan = max(1, int(torch.tensor(shape[1:]).prod())) if len(shape) > 1 else 1
        tensors[name] = values + 0.5 if "running_var" in name or len(shape) == 1 else (values - 0.5) * 4 / fan**0.5
    # the layers that nothing uses never receive a shape
    return tensors | {f"{name}.l2.{part}": nn.UninitializedParameter() for name in ("projF", "projS")
                      for part in ("weight", "bias")}  # fmt: skip


def outputs_of(tensors: dict[str, Tensor], side: str, x: Tensor) -> Tensor:
    """Logits of one modality: [projection(invariant); first half of specific] → its task head."""
    projection, head = {"first": ("projF", "task_cl"), "second": ("projS", "task_cl2")}[side]
    shared = F.linear(encode(tensors, f"{side}_enc_inv", x), tensors[f"{projection}.l1.weight"],
                      tensors[f"{projection}.l1.bias"])  # fmt: skip
    shared = F.relu(norm(tensors, f"{projection}.bn1", shared))
    specific = encode(tensors, f"{side}_enc_spec", x)[:, :HALF]
    return F.linear(torch.cat([shared, specific], 1), tensors[f"{head}.weight"], tensors[f"{head}.bias"])


def encode(tensors: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    own = {key.removeprefix(f"{name}."): tensor for key, tensor in tensors.items() if key.startswith(f"{name}.")}
    if "fc1.weight" in own:
        x = F.max_pool2d(F.relu(F.conv2d(x, own["conv1.weight"], own["conv1.bias"], padding=2)), 2)
        x = F.max_pool2d(F.relu(F.conv2d(x, own["conv2.weight"], own["conv2.bias"])), 2)
        return F.relu(F.linear(x.flatten(1), own["fc1.weight"], own["fc1.bias"]))
    x = F.relu(norm(own, "1", F.conv2d(x, own["0.weight"], stride=2, padding=3)))
    x = F.max_pool2d(x, 3, stride=2, padding=1)
    for stage, (_, _, stride) in enumerate(BLOCKS):
        for block in range(2):
            part, step = f"{stage + 4}.{block}", stride if block == 0 else 1
            y = F.relu(norm(own, f"{part}.bn1", F.conv2d(x, own[f"{part}.conv1.weight"], stride=step, padding=1)))
            y = norm(own, f"{part}.bn2", F.conv2d(y, own[f"{part}.conv2.weight"], padding=1))
            if f"{part}.downsample.0.weight" in own:
                x = norm(own, f"{part}.downsample.1", F.conv2d(x, own[f"{part}.downsample.0.weight"], stride=step))
            x = F.relu(x + y)
    return x.mean((2, 3))


def norm(tensors: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    part = {key: tensors[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")}
    return F.batch_norm(x, part["running_mean"], part["running_var"], part["weight"], part["bias"])
