"""The page as a browser gets it: whole, self-contained, the same each time, and true."""

import itertools
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from xml.etree.ElementTree import fromstring

import matplotlib
import pytest
from PIL import Image

from s3prl_interfaces.cli import main
from s3prl_interfaces.errors import ConfigError, ResultError, UserError
from s3prl_interfaces.results import Primary, load_published
from s3prl_interfaces.results.report import svg, write_report
from tests.results.report.conftest import DEV, EVENTS, GROUPS, LOSS, make_layers, softmax

VOID = {"meta", "br", "wbr"}


class Parsed(HTMLParser):
    """A page, read strictly: every tag is closed in order, every id is there once."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.ids, self.words = [], [], [], []
        self.feed(html)
        self.close()
        assert self.open == []
        assert len(self.ids) == len(set(self.ids))

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        assert len(attributes) == len(set(attributes))
        self.tags.append((tag, attributes))
        if "id" in attributes:
            self.ids.append(attributes["id"])
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", "".join(self.words))

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def runs(tmp_path, make_run):
    """Two interfaces, one over two seeds, one with layers."""
    make_run("ws-1", 0.5, seed=1, scalars=EVENTS, layers=make_layers(weights=softmax(0.2, 0.3, 0.5)))
    make_run("ws-2", 0.6, seed=2, scalars=EVENTS, layers=make_layers(weights=softmax(0.4, 0.4, 0.2)))
    make_run(
        "grouped",
        0.8125,
        interface="grouped_weighted_sum",
        interface_options={"groups": 2},
        scalars=EVENTS,
        layers=make_layers(weights=GROUPS),
        macs_per_second=1_240_000,
    )
    return tmp_path / "runs"


@pytest.fixture
def read(tmp_path):
    """Write a page about a folder and read it."""

    def write_and_read(folder, **options):
        write_report([folder], tmp_path / "report.html", **options)
        return (tmp_path / "report.html").read_text(encoding="utf-8")

    return write_and_read


def test_the_page_is_well_formed_and_accessible(runs, read):
    html = read(runs)
    assert html.startswith('<!DOCTYPE html>\n<html lang="en">')
    page = Parsed(html)
    headings = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert headings.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(headings))
    assert {cell.get("scope") for cell in page.all("th")} == {"col", "row"}
    assert len(page.all("caption")) == len(page.all("table"))
    svgs = page.all("svg")
    # Metric and loss, the map of lost scores, bars of one interface and a map of the other.
    assert len(svgs) == len(page.all("figure")) == len(page.all("figcaption")) == 5
    kinds = ["picture", "picture", "picture map wide", "picture", "picture map"]
    assert [figure["class"] for figure in page.all("figure")] == kinds
    for drawing in svgs:
        assert drawing["role"] == "img"
        assert set(drawing["aria-labelledby"].split()) <= set(page.ids)
    for box in page.all("div"):
        if box.get("role") == "region":
            assert box["tabindex"] == "0"
            assert box["aria-labelledby"] in page.ids
    assert {"charset": "utf-8"} in page.all("meta")
    assert any(meta.get("name") == "viewport" for meta in page.all("meta"))


def test_the_page_is_self_contained(runs, read):
    html = read(runs)
    page = Parsed(html)
    assert "http" not in html
    assert "//" not in re.sub(r"<!DOCTYPE[^>]*>", "", html)
    assert "@import" not in html
    assert not {"script", "link", "img", "iframe", "object", "embed", "image", "foreignObject"} & {
        tag for tag, _ in page.tags
    }
    assert not any("src" in attributes for _, attributes in page.tags)
    for target in re.findall(r"url\(([^)]*)\)", html) + [
        value for _, attributes in page.tags for name, value in attributes.items() if name.endswith("href")
    ]:
        assert target.startswith("#")
        assert target[1:] in page.ids


def test_figures_take_the_colours_of_the_page(runs, read):
    html = read(runs)
    (style,) = re.findall(r"<style>(.*?)</style>", html, flags=re.DOTALL)
    light, dark = re.findall(r":root \{ (--ink[^}]*)\}", style)
    body = html.replace(style, "")
    used = set(re.findall(r"var\(--([\w-]+)\)", body))
    assert {"ink", "muted", "grid", "worse", "better", "weight", "line-0", "line-1"} <= used
    for colors in (light, dark):
        assert used <= set(re.findall(r"--([\w-]+):", colors))
    assert "prefers-color-scheme: dark" in style
    # No colour of its own is left, nor a font, nor a style sheet that would hold for the page.
    drawings = "".join(re.findall(r"<svg.*?</svg>", body, flags=re.DOTALL))
    assert not re.search(r"[:\"] ?#[0-9a-f]{3,8}\b", re.sub(r'(href|clip-path)="[^"]*"', "", drawings))
    assert "font-family" not in drawings
    assert "<style" not in drawings
    assert "font-size: 9px" in drawings
    assert "font-weight: 700" in drawings


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        (
            "font: 700 9.5px 'DejaVu Sans', sans-serif; fill: #1f2328",
            "font-size: 9.5px; font-weight: 700; fill: var(--ink)",
        ),
        ("font: 9px 'DejaVu Sans', sans-serif", "font-size: 9px"),
        ("font-size: 9px; font-family: 'DejaVu Sans', serif; font-weight: 700", "font-size: 9px; font-weight: 700"),
    ],
)
def test_fonts_of_older_and_newer_matplotlib(written, kept):
    assert svg._inlined("style", written, "name") == kept


def test_the_same_files_give_the_same_page(runs, read, tmp_path):
    page = read(runs, figures=tmp_path / "a")
    code = "import sys; from s3prl_interfaces.results.report import svg, write_report; write_report(*sys.argv[1:])"
    code = code.replace("*sys.argv[1:]", "[sys.argv[1]], sys.argv[2], sys.argv[3]")
    command = [sys.executable, "-c", code, runs, tmp_path / "again.html", tmp_path / "b"]
    subprocess.run(command, check=True)
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == page
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_what_the_page_says(runs, read):
    text = Parsed(read(runs)).text
    assert "Interfaces compared on tiny" in text
    assert "2 interfaces on 1 task (ic), from 3 runs." in text
    assert "Trained from 1970-01-01 to 1970-01-01 (UTC)." in text
    # The table, in percent: mean and spread of 0.5 and 0.6, the other's score and the difference.
    assert "weighted_sum55.00 ±7.07" in text
    assert "grouped_weighted_sum(groups=2)81.25+26.25" in text
    assert "1.24M" in text
    assert "Mean ± sample standard deviation over seeds." in text
    # The curves, each seed's being the same.
    assert "1025.00 (25.00 to 25.00)25.00" in text
    assert "2050.00 (50.00 to 50.00)50.00" in text
    assert "52.5" not in text
    # What is lost, and the weights.
    assert "weighted_sum10.00 ± 0.00-5.00 ± 0.0020.00 ± 0.00" in text
    assert "weights0.300 ± 0.1410.350 ± 0.0710.350 ± 0.212" in text
    assert "group 10.2500.7500.000" in text
    assert "without layers.json" not in text


def test_the_best_is_marked(runs, read):
    html = read(runs)
    assert "<strong>81.25</strong>" in html
    assert html.count("<strong>") == 1


def test_two_upstreams_and_two_tasks(runs, make_run, read):
    make_run("other", 0.5, upstream="big/model", scalars=EVENTS)
    ks = {DEV.replace("fluent", "speech"): {10: 0.125, 20: 0.5}}
    make_run("ks", 0.5, task="ks", scalars=ks)
    html = read(runs)
    page = Parsed(html)
    assert "Interfaces compared on big/model and tiny" in page.text
    assert "2 interfaces on 2 tasks (ic, ks), from 5 runs." in page.text
    assert [item["href"] for item in page.all("a")] == [
        f"#upstream-{number}-{part}" for number in (1, 2) for part in ("table", "curves", "layers")
    ]
    assert "tiny: leaderboard" in page.text
    assert "ks: dev acc" in page.text
    assert "12.50" in page.text


def test_missing_layers_are_said_with_the_command(runs, make_run, read, tmp_path):
    one = make_run("a b", 0.7, interface="hconv", scalars=EVENTS)
    two = make_run("c", 0.7, interface="concat", scalars=EVENTS)
    text = Parsed(read(runs)).text
    assert "2 runs of 5 without layers.json." in text
    assert f"s3prl-interfaces layers {two} '{one}'" in text


def test_broken_layers_are_said(runs, read):
    (runs / "ws-1" / "layers.json").write_text("{")
    text = Parsed(read(runs)).text
    assert f"{runs}/ws-1/layers.json cannot be read" in text
    assert "make it again with `s3prl-interfaces layers`" in text
    # The other seed's is still drawn.
    assert "weights0.4000.4000.200" in text
    assert "without layers.json" not in text


def test_missing_and_short_events_are_said(runs, make_run, read):
    make_run("none", 0.7, interface="hconv")
    (make_run("bad", 0.7, interface="concat") / "events.out.tfevents.1").write_bytes(b"no events" * 50)
    make_run("short", 0.7, interface="cls_pooling", scalars={DEV: {10: 0.5}, LOSS: {20: 1.0}})
    make_run("loss", 0.7, interface="last_layer", scalars={LOSS: {20: 1.0}})
    text = Parsed(read(runs)).text
    for name in ("none", "bad"):
        assert f"{runs}/{name}: there are no TensorBoard events that can be read, so its curves are not drawn." in text
    assert f"{runs}/short: its events end at step 10, before step 20 that was scored." in text
    assert f"{runs}/loss: its events have no dev acc, so its curve is not drawn." in text
    assert f"{runs}/ws-1:" not in text


def test_events_that_cannot_be_opened_are_said(runs, read):
    (path,) = (runs / "ws-1").glob("*tfevents*")
    path.unlink()
    path.mkdir()
    text = Parsed(read(runs)).text
    assert f"{runs}/ws-1" in text
    assert "curves are not drawn" in text or "is not an event file" in text


def test_runs_without_anything_beside_them(make_run, read, tmp_path):
    make_run("alone", 0.5)
    html = read(tmp_path / "runs")
    page = Parsed(html)
    assert page.all("svg") == []
    assert "1 run of 1 without layers.json." in page.text
    assert "Trained from" not in page.text


def test_runs_that_do_not_count_are_listed(runs, read):
    (runs / "broken").mkdir()
    (runs / "broken" / "results.json").write_text("{")
    page = Parsed(read(runs))
    assert "Runs that do not count" in page.text
    assert f"{runs}/broken: " in page.text
    assert "#uncounted" in [item["href"] for item in page.all("a")]


def test_only_the_learning_rate_that_counts_is_drawn(make_run, read, tmp_path):
    selection = {"name": "acc", "split": "dev", "higher_is_better": True}
    for rate, dev, value in ((1e-3, 0.75, 0.5), (1e-4, 0.25, 0.9)):
        make_run(
            f"lr-{rate}",
            value,
            learning_rate=rate,
            metrics={"dev": {"acc": dev, "step": 20}, "test": {"acc": value, "step": 20}},
            selection=Primary(value=dev, **selection),
            scalars={DEV: {20: dev}},
        )
    text = Parsed(read(tmp_path / "runs")).text
    assert "from 1 run." in text
    assert "2075.00" in text
    assert "25.00" not in text


def test_a_task_of_two_metrics_is_drawn_once(make_run, read, tmp_path):
    """SUPERB scores SF by two metrics: two columns of the same runs."""
    scores = {"slot_type_f1": 0.75, "slot_value_cer": 0.25, "step": 20}
    make_run(
        "sf",
        0.75,
        task="sf",
        metric="slot_type_f1",
        metrics={"dev": scores, "test": scores},
        scalars={"ctc-snips/dev-slot_type_f1": {20: 0.75}},
        layers=make_layers(metric="slot_type_f1"),
    )
    page = Parsed(read(tmp_path / "runs"))
    assert "slot_value_cer" in page.text
    assert len(page.all("svg")) == 2
    assert "Mean over" not in page.text


def test_significant_differences_are_marked(make_run, read, tmp_path):
    """Predictions beside the results: 200 utterances, 50 of them mended by one interface and 1 by the other."""
    for name, right in (("weighted_sum", 100), ("hconv", 150), ("concat", 101)):
        value = right / 200
        metrics = {"dev": {"acc": 0.5, "step": 20}, "test": {"acc": value, "step": 20}}
        folder = make_run(name, value, task="ks", interface=name, metrics=metrics)
        truth = [f"{number}.wav yes" for number in range(200)]
        predicted = [f"{number}.wav {'yes' if number < right else 'no'}" for number in range(200)]
        (folder / "test_truth.txt").write_text("\n".join(truth) + "\n")
        (folder / "test_predict.txt").write_text("\n".join(predicted) + "\n")
    text = Parsed(read(tmp_path / "runs")).text
    assert re.search(r"hconv75\.00\+25\.00 †\(\+\d\d\.\d\d to \+\d\d\.\d\d\)", text)
    assert re.search(r"concat50\.50\+0\.50\(", text)
    assert "†: p < 0.05" in text


def test_published_rows(make_run, tmp_path):
    write = {"upstream": "hubert", "protocol": {}}
    make_run("a", 0.5, **write)
    write_report([tmp_path / "runs"], tmp_path / "r.html", published=load_published())
    html = (tmp_path / "r.html").read_text(encoding="utf-8")
    page = Parsed(html)
    rows = re.findall(r'<tr class="published">.*?</tr>', html)
    assert rows
    assert "published: " in page.text
    assert "<ol><li>" in html
    columns = len(re.search(r"<thead>.*?</thead>", html)[0].split("<th ")) - 1
    assert all(len(re.findall("<t[dh]", row)) == columns for row in rows)


HOSTILE = "<script>alert('x')</script>&\"$\\frac{a}$\x00\ud800 \u202e--></svg></style>"


def test_hostile_names_stay_words(make_run, read, tmp_path):
    layers = make_layers(
        weights={"what": HOSTILE[:-20], "rows": ["<b>", "$x_1$"], "values": [[1, 0, 0], [0, 1, 0]]},
    )
    fields = {"interface_options": {"name": HOSTILE.replace("\ud800", "")}, "upstream": "../../<b>up</b>"}
    folder = make_run("one", 0.5, scalars=EVENTS, layers=None, task="<i>ic</i>", **fields)
    (folder / "layers.json").write_text(json.dumps(layers))
    html = read(tmp_path / "runs", figures=tmp_path / "figures")
    page = Parsed(html)
    assert not {"script", "b", "i"} & {tag for tag, _ in page.tags}
    assert html.count("</style>") == html.count("<style>") == 1
    assert "\x00" not in html
    assert "<script>alert('x')</script>" in page.text
    assert "$\\\\frac{a}$" in page.text
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert len(names) == 2 * 4
    assert all(re.fullmatch(r"[a-z0-9_-]+\.(png|svg)", name) for name in names)


def test_names_that_differ_in_signs_only_have_figures_of_their_own(make_run, read, tmp_path):
    for upstream in ("a/b", "a:b"):
        make_run(upstream.replace("/", "_"), 0.5, upstream=upstream, scalars=EVENTS)
    Parsed(read(tmp_path / "runs", figures=tmp_path / "figures"))
    assert {path.stem for path in (tmp_path / "figures").glob("*.svg")} == {
        "a-b-ic-dev-acc",
        "a-b-ic-dev-acc-2",
        "a-b-ic-training-loss",
        "a-b-ic-training-loss-2",
    }


def test_figures_open(runs, read, tmp_path):
    html = read(runs, figures=tmp_path / "new" / "figures")
    folder = tmp_path / "new" / "figures"
    names = {path.stem for path in folder.iterdir()}
    assert names == {
        "tiny-ic-dev-acc",
        "tiny-ic-training-loss",
        "tiny-ic-lost-dev-acc",
        "tiny-ic-weights-weighted_sum",
        "tiny-ic-weights-grouped_weighted_sum-groups-2",
    }
    for name in names:
        assert f"{name}--title" in html
        picture = Image.open(folder / f"{name}.png").convert("RGBA")
        assert picture.width > 800
        assert picture.getpixel((0, 0)) == (255, 255, 255, 255)
        drawing = (folder / f"{name}.svg").read_text(encoding="utf-8")
        assert fromstring(drawing).tag == "{http://www.w3.org/2000/svg}svg"
        assert "var(--" not in drawing
        assert "fill: #ffffff" in drawing
    assert ">training step<" in (folder / "tiny-ic-dev-acc.svg").read_text(encoding="utf-8")


def test_a_large_comparison_stays_light(make_run, read, tmp_path):
    """Forty runs, five for each of eight tasks, are to stay below 3 MB: here are the five of one."""
    dev, loss = ({step: 1 / (step + 1) for step in range(count)} for count in (100, 1000))
    for number in range(5):
        layers = make_layers(without=[0.5 + layer / 100 for layer in range(25)], weights=softmax(*[0.04] * 25))
        name = f"interface_{number}" if number else "weighted_sum"
        make_run(name, 0.5, interface=name, scalars={DEV: dev, LOSS: loss}, layers=layers)
    html = read(tmp_path / "runs")
    assert len(re.findall("<svg", html)) == 2 + 1 + 5
    assert len(html.encode()) < 3_000_000 / 8


def test_nothing_is_written_when_something_fails(runs, tmp_path, monkeypatch):
    out, figures = tmp_path / "report.html", tmp_path / "figures"
    out.write_text("before")
    real = Path.write_bytes

    def full(path, data):
        if path.name.endswith(".svg.tmp") or ".svg." in path.name:
            raise OSError("No space left on device")
        return real(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ResultError, match=r"The report could not be written: No space left on device"):
        write_report([runs], out, figures=figures)
    assert out.read_text() == "before"
    assert list(figures.iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} == {"runs", "report.html", "figures"}


def test_an_old_report_is_replaced(runs, tmp_path):
    (tmp_path / "report.html").write_text("before")
    write_report([runs], tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert {path.name for path in tmp_path.iterdir()} == {"runs", "report.html"}


def test_places_that_cannot_be_written_to(runs, tmp_path):
    with pytest.raises(ResultError, match=r"it is a folder\. Give the name of a file, as report\.html"):
        write_report([runs], tmp_path)
    with pytest.raises(ResultError, match=r"it is in .*/no, which is no folder"):
        write_report([runs], tmp_path / "no" / "report.html")
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultError, match="The report could not be written"):
        write_report([runs], tmp_path / "report.html", figures=tmp_path / "file")


def test_no_results(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ResultError, match=r"There is no results\.json in or below"):
        write_report([tmp_path / "empty"], tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_an_unknown_baseline(runs, tmp_path):
    with pytest.raises(ConfigError, match="Unknown baseline 'hconf'"):
        write_report([runs], tmp_path / "report.html", baseline="hconf")


def test_the_baseline_comes_first_and_has_the_first_colour(runs, read):
    html = read(runs, baseline="grouped_weighted_sum")
    assert html.index("(groups=2)</th>") < html.index(">weighted_sum<")
    assert html.index("stroke: var(--line-0); stroke-width") < html.index("stroke: var(--line-1); stroke-width")
    assert "weighted_sum55.00 ±7.07-26.25" in Parsed(html).text


def test_without_matplotlib(runs, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserError, match=r"pip install 's3prl-interfaces\[report\]'"):
        write_report([runs], tmp_path / "report.html")


def test_the_rest_works_without_matplotlib():
    """Only writing a report imports it."""
    code = "import sys, s3prl_interfaces.results, s3prl_interfaces.results.report, s3prl_interfaces.cli as cli\n"
    code += "cli.parser(); sys.exit('matplotlib' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_users_own_settings_change_nothing(runs, read, tmp_path, monkeypatch):
    page = read(runs)
    with matplotlib.rc_context(
        {"text.color": "red", "axes.facecolor": "black", "axes.linewidth": 5, "svg.fonttype": "path"}
    ):
        assert read(runs) == page


def test_command(runs, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["report", str(runs)]) == 0
    assert (tmp_path / "report.html").is_file()
    assert capsys.readouterr().out == "report.html\n"
    assert main(["report", str(runs), "-o", "b.html", "--figures", "f", "--baseline", "grouped_weighted_sum"]) == 0
    assert "Δ: difference to grouped_weighted_sum(groups=2)." in (tmp_path / "b.html").read_text(encoding="utf-8")
    assert len(list((tmp_path / "f").iterdir())) == 10
    (tmp_path / "own.yaml").write_text(
        "[{upstream: Ours, names: ['tiny'], source: A thesis, scores: {ic: {acc: 97.5}}}]\n"
    )
    assert main(["report", str(runs), "--published", "own.yaml"]) == 0
    text = Parsed((tmp_path / "report.html").read_text(encoding="utf-8")).text
    assert re.search(r"published: Ours\[\d\]97\.50", text)
    assert "Ours: A thesis." in text
    assert main(["report", str(tmp_path / "nowhere")]) == 2
    assert "There is no directory or file" in capsys.readouterr().err
