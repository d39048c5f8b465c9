"""Votes of neighbours, compared with labels of the published code."""

from array_golden import golden_cases

from xmodal.data.semantic_kitti.knn import knn_classes


def test_golden_kitti_knn_gives_the_published_labels():
    for case in golden_cases("kitti/knn"):
        p, pictures = case.params, [case.given("proj_range"), case.given("proj_argmax")]

        labels = knn_classes(
            *pictures,
            *map(case.given, ("depth", "py", "px")),
            neighbours=p["knn"],
            search=p["search"],
            sigma=p["sigma"],
            cutoff=p["cutoff"],
        )

        assert case.check(labels=labels) == ["labels"]
