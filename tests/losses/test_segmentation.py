import math

import pytest
import torch

from xmodal.losses.segmentation import focal, guidance, lovasz, normalised_entropy, perception_aware


def scene(rows=2, classes=4, side=(5, 6), seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    outputs = torch.randn(rows, classes, *side, generator=generator, dtype=torch.float64).to(dtype)
    return outputs, torch.randint(classes, (rows, *side), generator=generator)


def pixels(outputs, target):
    """The probabilities and the label of every pixel."""
    for image, maps in zip(target, outputs, strict=True):
        for row in range(target.shape[1]):
            for column in range(target.shape[2]):
                yield maps[:, row, column], int(image[row, column])


def slow_lovasz(rows, labels, numbers):
    """The extension of the Jaccard loss: wrong pixels are added to a set one after the other."""
    losses = []
    for number in numbers:
        errors = [
            (abs(float(label == number) - p[number].item()), k)
            for k, (p, label) in enumerate(zip(rows, labels, strict=True))
        ]
        total = sum(label == number for label in labels)
        before, loss, wrong = 0.0, 0.0, set()
        for error, k in sorted(errors, reverse=True):
            wrong.add(k)
            kept = sum(labels[j] == number for j in range(len(labels)) if j not in wrong)
            union = total + sum(labels[j] != number for j in wrong)
            loss, before = loss + error * (1 - kept / union - before), 1 - kept / union
        losses.append(loss)
    return sum(losses) / len(losses)


def test_focal_of_one_pixel_is_the_formula():
    probability = torch.tensor([[[[0.2]], [[0.8]]]])

    value = focal(probability, torch.tensor([[[0]]]), gamma=3.0, alpha=[0.5, 1.0], softmax=False)

    assert value.item() == pytest.approx(-0.5 * 0.8**3 * math.log(0.2))


def test_focal_without_focus_is_the_cross_entropy():
    outputs, target = scene()

    expected = torch.nn.functional.cross_entropy(outputs, target)

    torch.testing.assert_close(focal(outputs, target, gamma=0.0), expected)
    torch.testing.assert_close(focal(outputs.softmax(1), target, gamma=0.0, softmax=False), expected)


def test_focal_is_the_mean_over_valid_pixels():
    outputs, target = scene()
    valid = target != 1

    value = focal(outputs, target, alpha=0.7, valid=valid)

    terms = []
    for answers, label in pixels(outputs, target):
        if label != 1:
            p = answers.softmax(0)[label]
            terms.append((0.7 if label == 0 else 0.3) * (1 - p) ** 2 * -p.log())
    torch.testing.assert_close(value, torch.stack(terms).mean())
    torch.testing.assert_close(focal(outputs, target, alpha=0.7, valid=valid, reduction="none").mean(), value)


def test_a_probability_of_zero_is_limited_by_the_floor():
    value = focal(torch.tensor([[1.0, 0.0]]), torch.tensor([1]), softmax=False)

    assert value.item() == pytest.approx(-math.log(1e-6), rel=1e-6)


@pytest.mark.parametrize("ignore", [(), 0, (0, 2)])
def test_lovasz_is_the_extension_of_the_jaccard_loss(ignore):
    outputs, target = scene(rows=1, side=(3, 4))
    left_out = (ignore,) if isinstance(ignore, int) else ignore

    value = lovasz(outputs, target, ignore=ignore)

    kept = [(p.softmax(0), label) for p, label in pixels(outputs, target) if label not in left_out]
    rows, labels = zip(*kept, strict=True)
    assert value.item() == pytest.approx(slow_lovasz(rows, labels, sorted(set(labels))), rel=1e-12)


@pytest.mark.parametrize("classes", ["all", (1, 3)])
def test_lovasz_over_chosen_classes_uses_the_largest_probability_of_classes_without_pixels(classes):
    outputs, target = scene(rows=1, side=(3, 4))
    target[target == 3] = 0

    value = lovasz(outputs, target, classes=classes)

    p = outputs.softmax(1)
    rows, labels = zip(*pixels(p, target), strict=True)
    numbers = range(4) if classes == "all" else classes
    assert value.item() == pytest.approx(slow_lovasz(rows, labels, numbers), rel=1e-12)
    assert lovasz(outputs, target, classes=[3]).item() == pytest.approx(p[:, 3].max().item())


def test_certain_predictions_have_one_minus_the_overlap_as_loss():
    target = torch.tensor([[0, 0, 1, 1, 1]])
    answers = torch.nn.functional.one_hot(torch.tensor([[0, 1, 1, 1, 0]]), 2).movedim(-1, 1).float()

    value = lovasz(answers, target, softmax=False)

    assert value.item() == pytest.approx(((1 - 1 / 3) + (1 - 2 / 4)) / 2)  # 1 - intersection over union of each


def test_lovasz_per_image_is_the_mean_over_images_with_a_valid_pixel():
    outputs, target = scene(rows=3)
    target[1] = 0

    value = lovasz(outputs, target, per_image=True, ignore=0)

    alone = [lovasz(outputs[k : k + 1], target[k : k + 1], ignore=0) for k in (0, 2)]
    torch.testing.assert_close(value, torch.stack(alone).mean())


def test_the_order_of_pixels_and_of_classes_does_not_matter():
    outputs, target = scene(rows=1)
    order, names = torch.randperm(30), torch.randperm(4)
    flat, labels = outputs.flatten(2), target.flatten(1)

    for loss in (focal, lovasz):
        value = loss(outputs, target)
        torch.testing.assert_close(loss(flat[:, :, order], labels[:, order]), value)
        torch.testing.assert_close(loss(flat[:, names.argsort()], names[labels]), value)


def test_groups_of_classes_give_the_same_value_for_large_pictures(monkeypatch):
    outputs, target = scene(rows=1, classes=5)
    whole = lovasz(outputs, target)

    monkeypatch.setattr("xmodal.losses.segmentation.BLOCK", 61)  # two classes of 30 pixels per group

    torch.testing.assert_close(lovasz(outputs, target), whole, rtol=1e-14, atol=0)


@pytest.mark.parametrize("loss", [focal, lovasz])
def test_gradients_agree_with_finite_differences(loss):
    outputs, target = scene(rows=1, side=(2, 3))

    assert torch.autograd.gradcheck(lambda x: loss(x, target, valid=target != 0), outputs.requires_grad_())


@pytest.mark.parametrize("loss", [focal, lovasz])
@pytest.mark.parametrize("case", ["nothing counts", "everything ignored", "one class", "no rows"])
def test_degenerate_batches_give_a_finite_value_with_a_valid_graph(loss, case):
    outputs, target = scene()
    valid = None
    if case == "nothing counts":
        valid = torch.zeros_like(target, dtype=torch.bool)
    elif case == "everything ignored":
        target, valid = torch.full_like(target, 255), torch.full_like(target, 255) != 255
    elif case == "one class":
        target = torch.ones_like(target)
    else:
        outputs, target = outputs[:0], target[:0]
    outputs = outputs.clone().requires_grad_()

    value = loss(outputs, target, valid=valid)
    value.backward()

    assert value.isfinite() and outputs.grad.isfinite().all()
    assert (value == 0 and not outputs.grad.any()) == (case != "one class")


def test_an_image_without_labels_is_excluded_per_image():
    outputs, target = scene()
    outputs.requires_grad_()

    value = lovasz(outputs, torch.zeros_like(target), per_image=True, ignore=0)
    value.backward()

    assert value == 0 and not outputs.grad.any()


@pytest.mark.parametrize("loss", [focal, lovasz])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(loss, dtype):
    outputs, target = scene(dtype=dtype)

    value = loss(outputs, target)

    assert value.dtype == torch.float32 and torch.equal(value, loss(outputs.float(), target))


def test_different_shapes_and_unknown_options_are_refused():
    outputs, target = scene()
    with pytest.raises(ValueError, match=r"target has shape \(2, 5, 5\) for logits \(2, 4, 5, 6\)"):
        lovasz(outputs, target[..., :5])
    with pytest.raises(ValueError, match=r"mask of shape \(2, 5\)"):
        focal(outputs, target, valid=target[..., 0] > 0)
    with pytest.raises(ValueError, match="target holds classes 0 to 9: expected 0 to 3"):
        focal(outputs, target.clamp(max=0) + 9 * (target == 1))
    with pytest.raises(ValueError, match="classes is 'some': expected present, all"):
        lovasz(outputs, target, classes="some")
    with pytest.raises(ValueError, match=r"classes are \[4\]: expected numbers from 0 to 3"):
        lovasz(outputs, target, classes=[4])
    with pytest.raises(ValueError, match=r"alpha has shape \(3,\): expected \(4,\)"):
        focal(outputs, target, alpha=[1.0, 1.0, 1.0])
    with pytest.raises(ValueError, match="reduction is 'sum'"):
        focal(outputs, target, reduction="sum")


def test_entropy_is_one_for_equal_probabilities_and_zero_for_certain_ones():
    doubt = normalised_entropy(torch.tensor([[0.5, 0.5], [1.0, 0.0]]))

    assert doubt.tolist() == pytest.approx([1.0, 0.0], abs=1e-7)


def test_the_more_confident_network_guides_above_the_threshold_only():
    sure, torn = torch.tensor([[0.99, 0.01]]), torch.tensor([[0.6, 0.4]])

    gap = normalised_entropy(torn) - normalised_entropy(sure)

    torch.testing.assert_close(guidance(sure, torn), gap)
    assert guidance(torn, sure).item() == 0.0
    assert guidance(sure, torn, threshold=0.95).item() == 0.0


@pytest.mark.parametrize("detach", [True, False])
def test_perception_aware_is_its_formula_and_has_gradients_at_the_learner_only(detach):
    lidar, camera = (scene(seed=seed)[0].mul(4).requires_grad_() for seed in (0, 1))

    value = perception_aware(lidar, camera, threshold=0.3, detach=detach)
    value.backward()

    total, (p, q) = 0.0, (lidar.softmax(1), camera.softmax(1))
    for guide, learner in ((p, q), (q, p)):
        weight = guidance(guide, learner, threshold=0.3)
        total = total + (weight * (guide * (guide.log() - learner.log())).sum(1)).sum() / p.numel()
    assert value.item() == pytest.approx(total.item(), rel=1e-9) and value > 0
    guided = guidance(q, p, threshold=0.3) > 0  # pixels at which the LiDAR learns
    reached = lidar.grad.abs().sum(1) > 1e-15
    assert torch.equal(reached, guided) == detach


def test_networks_that_agree_have_loss_zero():
    lidar, _ = scene()

    assert perception_aware(lidar, lidar).item() == pytest.approx(0.0, abs=1e-15)
