"""Published figures: read, shown with their upstream, never compared."""

import json

import pytest
import yaml

from s3prl_interfaces.errors import ConfigError
from s3prl_interfaces.results import load_published
from s3prl_interfaces.results.published import SHIPPED, Published
from s3prl_interfaces.results.superb_score import SUPERB


@pytest.fixture
def write(tmp_path):
    """Write a file of entries: text as it is, anything else as YAML."""

    def make(content):
        path = tmp_path / "mine.yaml"
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        return path

    return make


ENTRY = {"upstream": "Base", "names": ["base"], "source": "Me", "scores": {"ic": {"acc": 98}}}


def test_the_papers_table_2():
    """ER, IC, SV and PR, once more copied from the paper."""
    figures = {(entry.names[0], entry.interface): dict(entry.scores) for entry in load_published() if entry.interface}
    expected = {
        ("hubert", "weighted_sum"): (64.92, 98.34, 5.11, 5.41),
        ("hubert", "hconv"): (68.49, 99.45, 5.62, 3.07),
        ("hubert", "cls_pooling"): (62.73, 99.45, 49.91, 2.93),
        ("hubert_large_ll60k", "weighted_sum"): (67.62, 98.76, 5.98, 3.53),
        ("hubert_large_ll60k", "hconv"): (72.44, 99.53, 6.03, 1.76),
        ("hubert_large_ll60k", "cls_pooling"): (68.72, 99.53, 6.34, 1.64),
        ("wavlm_base", "weighted_sum"): (65.94, 98.63, 4.69, 4.84),
        ("wavlm_base", "hconv"): (68.57, 99.53, 5.48, 3.06),
        ("wavlm_base", "cls_pooling"): (63.60, 99.50, 6.03, 2.92),
        ("wavlm_large", "weighted_sum"): (70.62, 99.31, 3.77, 3.06),
        ("wavlm_large", "hconv"): (74.95, 99.71, 5.20, 1.72),
        ("wavlm_large", "cls_pooling"): (70.45, 99.63, 4.27, 1.73),
        ("xlsr_53", "weighted_sum"): (66.34, 95.62, 6.45, 4.50),
        ("xlsr_53", "hconv"): (72.01, 99.55, 5.63, 2.69),
        ("xlsr_53", "cls_pooling"): (65.10, 99.47, 12.95, 5.27),
    }
    columns = [("er", "acc"), ("ic", "acc"), ("sv", "EER"), ("pr", "per")]
    assert figures == {key: dict(zip(columns, values, strict=True)) for key, values in expected.items()}


def test_superbs_reference_points_are_those_of_its_score():
    fbank, best = (entry for entry in load_published() if entry.names == ("*",))
    for entry, anchor in ((fbank, "fbank"), (best, "best")):
        points = {
            (task, metric): round(getattr(anchors, anchor), 2)
            for task, superb in SUPERB.items()
            for metric, anchors in superb.metrics.items()
        }
        assert dict(entry.scores) == points


def test_every_shipped_figure_has_a_place_and_a_source():
    for entry in load_published():
        assert entry.source
        for (task, metric), value in entry.scores.items():
            assert metric in SUPERB[task].metrics
            assert 0 < value < 100


def test_names_are_what_s3prl_calls_them():
    from s3prl_interfaces.upstream import list_upstreams

    names = {name for entry in load_published() for name in entry.names} - {"*"}
    assert names <= set(list_upstreams())
    assert "wavlm" not in names  # that is Base+, of which the paper has nothing


def test_rows_of_the_same_upstream(make_result, table):
    published = [
        Published("Base", ("base", "b_*"), "hconv", "A", {("ic", "acc"): 99.5, ("ks", "acc"): 1}),
        Published("Large", ("large",), "hconv", "A", {("ic", "acc"): 99.7}),
        Published("Other", ("*",), None, "B", {("er", "acc"): 50}),
        Published("Base", ("base",), "concat", "A", {("ks", "acc"): 50}),
    ]
    results = [make_result(0.9, upstream="base"), make_result(0.5, upstream="base", task="er")]
    only = table(results, published=published)
    # One without a figure in the table has no row.
    assert [(row.label, row.upstream, row.source, row.values) for row in only.published] == [
        ("hconv", "Base", "A", (None, 99.5)),
        ("Other", "Other", "B", (50, None)),
    ]
    assert not [note for note in only.notes if "published" in note.lower()]
    (row,) = table([make_result(0.9, upstream="b_local (x.pt)")], published=published).published
    assert row.label == "hconv"


def test_measured_rows_are_as_without(make_result, table):
    results = [make_result(0.9, upstream="base"), make_result(0.95, interface="hconv", upstream="base")]
    published = [Published("Base", ("base",), "weighted_sum", "A", {("ic", "acc"): 99.9})]
    assert table(results, published=published).rows == table(results).rows


def test_an_upstream_that_nothing_was_published_of(make_result, table):
    published = [
        Published("Base", ("base", "b2"), "hconv", "A", {("ic", "acc"): 99.5}),
        Published("Base", ("base",), "concat", "A", {("ic", "acc"): 99.5}),
        Published("FBANK", ("*",), None, "B", {("ic", "acc"): 50}),
    ]
    only = table([make_result(0.9)], published=published)
    assert [row.label for row in only.published] == ["FBANK"]
    assert only.notes == ("There are no published figures of tiny; there are of base, b2.",)
    assert table([make_result(0.9)]).notes == ()


def test_figures_stay_away_from_what_is_measured_otherwise(make_result, table):
    published = [Published("T", ("tiny",), "hconv", "A", {("pr", "per"): 5.4, ("ic", "acc"): 99})]
    kind = {"task": "pr", "metric": "per", "higher_is_better": False}
    results = [make_result(0.9), make_result(0.1, protocol={"stress": "strip"}, **kind), make_result(0.1, **kind)]
    only = table(results, published=published)
    assert [column.heading for column in only.columns] == ["ic", 'pr stress="strip"', "pr"]
    (row,) = only.published
    assert row.values == (99, None, 5.4)
    assert only.notes[-1] == (
        'Published figures are not shown for what is not measured as SUPERB does: pr stress="strip".'
    )


def test_a_file_of_ones_own(write):
    (entry,) = load_published(write([{**ENTRY, "interface": "mean"}]))
    assert entry == Published("Base", ("base",), "mean", "Me", {("ic", "acc"): 98.0})
    assert load_published(write([ENTRY]))[0].interface is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read: while parsing"),
        ("a: 1", "must hold a list of entries with upstream, names, interface, source, scores; see "),
        ("[3]", "entry 1 must be a mapping of upstream, names, interface, source, scores, but is 3."),
        ([ENTRY, {**ENTRY, "intreface": "x"}], "entry 2: Unknown key 'intreface'. Did you mean 'interface'?"),
        ([{"names": ["x"]}], "entry 1 lacks `upstream`, `source`, `scores`."),
        ([{**ENTRY, "source": 3}], "`source` must be a text, but is 3."),
        ([{**ENTRY, "interface": ""}], "`interface` must be a text, but is ''."),
        ([{**ENTRY, "names": "base"}], "`names` must be a list of what `-u` calls the upstream, but is 'base'."),
        ([{**ENTRY, "names": []}], "`names` must be a list"),
        ([{**ENTRY, "names": [3]}], "`names` must be a list"),
        ([{**ENTRY, "scores": 3}], "`scores` must be tasks with their metrics, but is 3."),
        ([{**ENTRY, "scores": {"ic": 98}}], "`scores.ic` must be such as {acc: 98.34}, but is 98."),
        ([{**ENTRY, "scores": {"ic": {"acc": "98 %"}}}], "`scores.ic.acc` must be a number, but is '98 %'."),
        ([{**ENTRY, "scores": {"ic": {"acc": True}}}], "`scores.ic.acc` must be a number, but is True."),
        ([{**ENTRY, "scores": {"ic": {"acc": float("nan")}}}], "`scores.ic.acc` must be a number, but is nan."),
    ],
    ids=lambda value: None if isinstance(value, str) and len(value) > 30 else json.dumps(value)[-40:],
)
def test_what_is_wrong_in_a_file_is_said(content, message, write):
    path = write(content)
    with pytest.raises(ConfigError) as caught:
        load_published(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match=r"The published figures .*gone\.yaml cannot be read: .*No such file"):
        load_published(tmp_path / "gone.yaml")


def test_the_shipped_file_says_how_one_is_written():
    text = SHIPPED.read_text(encoding="utf-8")
    for key in ("upstream", "names", "interface", "source", "scores"):
        assert f"#   {key} " in text
