"""`cosmic report`: its page holds what the log and the optimizer say, and nothing that runs."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from cosmic import Cosmic
from cosmic.cli import main as cli
from cosmic.logging import EventLog
from cosmic.viewer.log import number, read_runs
from cosmic.viewer.scales import MOST_POINTS, spread, thinned, ticks
from cosmic.viewer.treemap import Box, squarified

Event = dict[str, Any]
VOID = {"meta"}
STEPS = 24


class Page(HTMLParser):
    """A page's elements and tables; fails where an element is not closed, or closed twice."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.text = ""
        self._open: list[str] = []
        self._rows: list[list[str]] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "table":
            self._rows = self.tables.setdefault(str(dict(attrs)["id"]), [])
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] in ("td", "th"):
            self._rows[-1][-1] += data
        if self._open and self._open[-1] not in ("script", "style"):
            self.text += data

    def all(self, tag: str, **attributes: str) -> list[dict[str, str | None]]:
        """The attributes of every element of a tag that has these."""
        return [a for t, a in self.tags if t == tag and attributes.items() <= a.items()]

    def curve(self, name: str) -> list[tuple[float, str]]:
        """A curve's steps and values, as the script tells them."""
        (found,) = self.all("g", **{"class": "series", "data-name": name})
        pairs = (pair.split("=") for pair in str(found["data-points"]).split(";"))
        return [(float(step), value) for step, value in pairs]


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(600, 32), nn.Linear(32, 48), nn.Tanh(), nn.Linear(48, 600))


def train(path: Path, *, steps: int = STEPS, prefix: str = "") -> Cosmic:
    """A small training under a budget, which grows halfway, with a schedule; one gradient is bad
    and one jumps."""
    net = model()
    named = [(prefix + name, p) for name, p in net.named_parameters()]
    groups: list[dict[str, Any]] = [
        {"params": [(n, p) for n, p in named if p.ndim > 1], "lr": 4e-3},
        {"params": [(n, p) for n, p in named if p.ndim < 2], "lr": 1e-3},
    ]
    optimizer = Cosmic(
        groups, budget="2%", gate="snr", nonfinite="skip", seed=5, reallocate_every=6
    )
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, 1.0, total_iters=steps)
    with EventLog(path).attach(optimizer) as log:
        for step in range(1, steps + 1):
            if step == steps // 2:
                optimizer.budget = "10%"
            tokens = torch.arange(16) * step % 600
            loss = nn.functional.cross_entropy(net(tokens), (tokens * 7) % 600)
            loss.backward()  # type: ignore[no-untyped-call]
            if step == 5:
                named[1][1].grad[0] = math.nan  # type: ignore[index]
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            log.write("loss", step=step, loss=loss.item())
        log.write("validation", step=steps, loss=loss.item() + 0.25)
    return optimizer


def events(path: Path, kind: str) -> list[Event]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return [e for e in map(json.loads, lines) if e["event"] == kind]


def report(path: Path, *more: str) -> Page:
    out = path.parent / "page.html"
    assert cli.main(["report", str(path), "-o", str(out), *more]) == 0
    return Page(out.read_text(encoding="utf-8"))


def write(path: Path, *records: Event) -> Path:
    path.write_text("".join(json.dumps({"time": 1.0, **r}) + "\n" for r in records), "utf-8")
    return path


HEADER: Event = {"event": "run", "cosmic": "1.2.3"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Cosmic]:
    path = tmp_path_factory.mktemp("report") / "run.jsonl"
    return path, train(path)


# ---- a training as it was -----------------------------------------------------------------


def test_the_last_allocation_is_what_the_optimizer_holds(trained: tuple[Path, Cosmic]) -> None:
    path, optimizer = trained
    head, *rows = report(path).tables["allocation"]
    assert head == ["name", "role", "rung", "elements", "bytes", "bits/element", "why"]
    assert rows == [
        [
            t.name, t.role or "no role", t.rung, f"{t.numel:,}", f"{t.nbytes:,}",
            f"{8 * t.nbytes / t.numel:.3f}", t.why,
        ]
        for t in optimizer.tiers()
    ]  # fmt: skip
    assert sum(int(row[4].replace(",", "")) for row in rows) == optimizer.state_bytes()


def test_changes_of_rung_are_those_of_the_log(trained: tuple[Path, Cosmic]) -> None:
    path, _ = trained
    _, *rows = report(path).tables["transitions"]
    told = events(path, "transition")
    assert len({e["step"] for e in told}) > 1, "the budget grew"
    assert rows == [
        [str(e["step"]), e["name"], e["before"] or "-", e["after"], e["why"]] for e in told
    ]


def test_curves_are_those_of_the_log(trained: tuple[Path, Cosmic]) -> None:
    path, _ = trained
    page = report(path)
    losses = [(e["step"], f"{e['loss']:.4g}") for e in events(path, "loss")]
    assert page.curve("training") == losses
    assert [step for step, _ in page.curve("validation")] == [STEPS]
    for index in range(2):
        rates = [(e["step"], f"{e['groups'][index]['lr']:.4g}") for e in events(path, "step")]
        assert page.curve(f"group {index}") == rates
    charts = [a["aria-label"] for a in page.all("svg") if "aria-label" in a]
    assert {"Loss", "Learning rate", "Bytes of state by role", "Bytes of state by tensor"} <= set(
        charts
    )


def test_areas_and_budget_are_those_of_the_allocations(trained: tuple[Path, Cosmic]) -> None:
    path, optimizer = trained
    told, page = events(path, "allocation"), report(path)
    assert page.curve("budget")[-1][1] == f"{(optimizer.budget_bytes() or 0) / 1e3:.4g} kB"
    for role in ("table", "matrix", "vector"):
        sizes = [sum(t["nbytes"] for t in e["tensors"] if t["role"] == role) for e in told]
        shown = [f"{n / 1e3:.4g} kB" if n >= 1000 else f"{n} B" for n in sizes]
        assert page.curve(role) == list(zip([e["step"] for e in told], shown, strict=True))


def test_no_coordinate_lies_beside_its_picture(trained: tuple[Path, Cosmic]) -> None:
    page = report(trained[0])
    for attributes in page.all("path") + page.all("rect"):
        for place in re.findall(r"-?[\d.]+", str(attributes.get("d", ""))):
            assert -20 <= float(place) <= 760
        assert float(attributes.get("width") or 0) <= 760.01
    assert not re.search("nan|inf", " ".join(str(a.get("d")) for a in page.all("path")))


def test_the_head_says_what_ran(trained: tuple[Path, Cosmic]) -> None:
    path, optimizer = trained
    text = report(path).text
    (header,) = events(path, "run")
    for key in ("cosmic", "torch", "isa", "threads", "seed", "policy"):
        assert str(header[key]) in text
    assert f"{optimizer.budget_bytes():,} bytes (first: 2%)" in text
    assert f"last step{STEPS}" in text


def test_skipped_steps_and_low_gates(trained: tuple[Path, Cosmic], tmp_path: Path) -> None:
    page = report(trained[0])
    assert "Skipped steps: 1." in page.text and "parameter '1.weight'" in page.text
    assert page.tables["skipped"][1][0] == "4"
    assert len(page.all("path", **{"class": "mark skipped"})) == 1
    gates = [(3, "a", 0.25), (9, "a", 0.75), (12, "a", 0.125)]
    told = [{"event": "gate", "step": s, "name": n, "factor": f} for s, n, f in gates]
    page = report(write(tmp_path / "run.jsonl", HEADER, *told))
    assert page.tables["gates"][1:] == [["a", "2", "0.125"]]
    assert len(page.all("path", **{"class": "mark low"})) == 2
    assert len(page.all("path", **{"class": "mark back"})) == 1


def test_factors_above_one_are_within_the_picture(tmp_path: Path) -> None:
    """Under a gate of norms: the axis reaches the highest, which may be an event's."""
    param = nn.Parameter(torch.full((300,), 5.0))
    optimizer = Cosmic([("w", param)], gate="trust", tier=0, lr=1e-3)
    with EventLog(tmp_path / "run.jsonl") as log:
        log.attach(optimizer)
        for size in (5.0, 1e-3, 5.0, 5.0):
            with torch.no_grad():
                param.fill_(size)
            param.grad = torch.ones(300)
            optimizer.step()
    steps = [line["groups"][0]["gate"] for line in events(tmp_path / "run.jsonl", "step")]
    assert max(steps) == 10.0  # trust_clip
    page = report(tmp_path / "run.jsonl")
    (low,), (back,) = (page.all("path", **{"class": f"mark {sign}"}) for sign in ("low", "back"))
    tops = [float(str(mark["d"]).split("l")[0].split()[1]) for mark in (back, low)]
    assert 0 <= tops[0] < tops[1]
    assert min(float(str(dot["cy"])) for dot in page.all("circle")) >= 0


def test_the_page_needs_nothing_else_and_is_always_the_same(
    trained: tuple[Path, Cosmic], capsys: pytest.CaptureFixture[str]
) -> None:
    path, _ = trained
    assert cli.main(["report", str(path)]) == 0
    page = path.with_suffix(".html")
    assert capsys.readouterr().out == f"Report: {page}\n"
    first = page.read_bytes()
    assert cli.main(["report", str(path)]) == 0
    assert page.read_bytes() == first
    assert not re.search(rb"https?:|//[a-z]|src=|href=|@import|url\(", first)
    assert b"prefers-color-scheme: dark" in first


# ---- logs of other kinds ------------------------------------------------------------------


def test_names_are_text_whatever_they_hold(tmp_path: Path) -> None:
    evil = "<b>\"'&</b><script>alert(1)</script>\x00\ud800"
    tensor = {"name": evil, "role": evil, "rung": evil, "numel": 4, "nbytes": 4, "why": evil}
    path = write(
        tmp_path / "run.jsonl",
        {**HEADER, "cosmic": evil, "policy": evil, "budget": evil, "groups": [{"name": evil}]},
        {"event": "transition", "step": 0, **dict.fromkeys(("name", "before", "after"), evil)},
        {"event": "allocation", "step": 0, "tensors": [tensor]},
        {"event": "skipped", "step": 1, "parameters": [evil]},
        {"event": "gate", "step": 1, "name": evil, "factor": 0.1},
        {"event": "step", "step": 1, "groups": [{"lr": 0.1, "gate": 0.5, "gate_min": 0.1}]},
        {"event": evil, "step": 1, "loss": 1.0},
        {"event": "loss", "step": 1, "loss": 2.0},
    )
    page = report(path)
    assert [a["id"] for a in page.all("b")] == ["skipped-steps", "nonfinite-gradients"]
    assert len(page.all("script")) == 1
    seen = evil.replace("\x00\ud800", "\ufffd\ufffd")
    assert page.tables["allocation"][1][0] == seen
    assert page.tables["transitions"][1][1:4] == [seen] * 3


def test_names_of_a_real_training_are_text(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    optimizer = train(path, steps=2, prefix="<b>")
    page = report(path)
    assert [row[0] for row in page.tables["allocation"][1:]] == [t.name for t in optimizer.tiers()]


@pytest.mark.parametrize(
    ("event", "field", "name"),
    [
        ("loss", "loss", "training"),
        ("train", "train_loss", "training"),
        ("validation", "loss", "validation"),
        ("eval", "loss", "validation"),
        ("epoch", "validation_loss", "validation"),
    ],
)
def test_losses_by_whatever_event(tmp_path: Path, event: str, field: str, name: str) -> None:
    told = [{"event": event, "step": s, field: 4.0 / s} for s in (1, 2)]
    assert report(write(tmp_path / "x.jsonl", *told)).curve(name) == [(1, "4"), (2, "2")]


def test_losses_that_are_no_numbers_are_counted(tmp_path: Path) -> None:
    with EventLog(tmp_path / "run.jsonl") as log:
        for step, loss in enumerate((1.5, math.nan, math.inf, 0.5)):
            log.write("loss", step=step, loss=loss)
    page = report(tmp_path / "run.jsonl")
    assert page.curve("training") == [(0, "1.5"), (3, "0.5")]
    assert "Losses that were not finite, and are left out: 2." in page.text


def test_what_came_later_for_a_step_takes_the_earlier_ones_place(tmp_path: Path) -> None:
    told = [{"event": "loss", "step": s, "loss": v} for s, v in ((1, 5), (2, 4), (1, 3))]
    assert report(write(tmp_path / "x.jsonl", *told)).curve("training") == [(1, "3"), (2, "4")]


def test_several_runs_of_one_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run.jsonl"
    train(path, steps=3)
    train(path, steps=7)
    assert "Run 2 of 2" in report(path).text
    assert report(path).curve("training")[-1][0] == 7
    assert report(path, "--run", "1").curve("training")[-1][0] == 3
    capsys.readouterr()
    for unknown in ("0", "3", "-1"):
        assert cli.main(["report", str(path), "--run", unknown]) == 2
        said = capsys.readouterr().err
        assert said == f"cosmic: error: --run {unknown}: {path} has runs 1 to 2\n"


def test_a_run_that_was_killed_in_mid_line(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    train(path, steps=3)
    with path.open("a") as file:
        file.write('{"event": "step", "ti')
    page = report(path)
    assert page.curve("training")[-1][0] == 3
    assert "1 line of the log is not an event" in page.text
    train(path, steps=4)  # goes on in the same file
    assert len(read_runs(path)) == 2
    assert report(path).curve("training")[-1][0] == 4


def test_a_log_of_an_earlier_release_has_state_by_step_alone(tmp_path: Path) -> None:
    steps: list[Event] = [
        {"event": "step", "step": s, "state_bytes": 100 * s, "groups": []} for s in (1, 2)
    ]
    page = report(write(tmp_path / "run.jsonl", HEADER, *steps))
    assert page.curve("state, in bytes") == [(1, "100"), (2, "200")]
    assert "The log has no allocations." in page.text


def test_events_that_lack_what_they_should_have(tmp_path: Path) -> None:
    kinds = ("step", "transition", "allocation", "gate", "skipped", "loss")
    strange: list[Any] = [None, "x", [1], {"a": 1}, True, -1, 1e308]
    keys = ("groups", "tensors", "parameters", "state_bytes", "factor", "name", "loss", "budget")
    told = [
        {"event": kind, "step": step, **dict.fromkeys(keys, value)}
        for kind in kinds
        for value in strange
        for step in (*strange, 1)
    ]
    path = write(tmp_path / "run.jsonl", HEADER, *told)
    with path.open("a") as file:
        file.write('[]\n3\n{"event": 1}\n{"event": "loss", "time": 0, "step": NaN, "loss": 1}\n')
        file.write("[" * 100_000 + "\n")
    assert "4 lines of the log are not an event" in report(path).text


def test_long_curves_are_thinned_and_long_tables_cut(tmp_path: Path) -> None:
    told = [{"event": "loss", "step": s, "loss": 9.0 if s == 777 else 1.0} for s in range(5000)]
    moved = [{"event": "transition", "step": s, "name": "w", "after": "tier0"} for s in range(2100)]
    page = report(write(tmp_path / "run.jsonl", HEADER, *told, *moved))
    curve = page.curve("training")
    assert len(curve) <= MOST_POINTS and (777, "9") in curve and curve[-1][0] == 4999
    assert len(page.tables["transitions"]) == 2001 and "100 more rows are not shown" in page.text


# ---- mistakes -----------------------------------------------------------------------------


def empty(path: Path) -> None:
    path.write_text("\n")


def no_log(path: Path) -> None:
    path.write_bytes(b'\x89PNG\xff\n{"loss": 1}\n')


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (empty, "{} is empty: no event has been written to it"),
        (no_log, "{} is no event log: none of its lines is an event of cosmic.logging.EventLog"),
        (Path.mkdir, "{} is a folder; expected an event log"),
        (lambda path: None, "{} does not exist"),
    ],
    ids=("empty", "no log", "folder", "missing"),
)
def test_what_is_no_log_is_one_sentence(
    tmp_path: Path,
    make: Callable[[Path], None],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "run.jsonl"
    make(path)
    assert cli.main(["report", str(path)]) == 2
    assert capsys.readouterr().err == f"cosmic: error: {said.format(path)}\n"
    assert not path.with_suffix(".html").exists()


def test_a_page_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "run.html", HEADER)
    before = path.read_bytes()
    wanted = [
        ([], "is the log itself"),
        (["-o", str(tmp_path)], "it is a folder"),
        (["-o", str(tmp_path / "no" / "x.html")], "its folder does not exist"),
    ]
    if Path("/dev/full").exists():
        wanted.append((["-o", "/dev/full"], "cannot be written"))
    for more, said in wanted:
        assert cli.main(["report", str(path), *more]) == 2
        complaint = capsys.readouterr().err
        assert said in complaint and complaint.count("\n") == 1
    assert path.read_bytes() == before


# ---- pieces -------------------------------------------------------------------------------


def test_boxes_fill_their_place_in_proportion() -> None:
    sizes = [50.0, 20.0, 20.0, 5.0, 3.0, 1.0, 1.0]
    boxes = squarified(sizes, Box(0, 0, 200, 100))
    for size, box in zip(sizes, boxes, strict=True):
        assert box.width * box.height == pytest.approx(20_000 * size / 100)
        assert box.x >= -1e-9 and box.x + box.width <= 200 + 1e-9
        assert box.y >= -1e-9 and box.y + box.height <= 100 + 1e-9
    for a, b in ((a, b) for i, a in enumerate(boxes) for b in boxes[:i]):
        wide = min(a.x + a.width, b.x + b.width) - max(a.x, b.x)
        high = min(a.y + a.height, b.y + b.height) - max(a.y, b.y)
        assert wide < 1e-6 or high < 1e-6, "none overlaps another"


@pytest.mark.parametrize("values", [[3.0], [0.0, 0.0], [-2e-5, 7e12], [1e299, -1e299], []])
def test_ticks_lie_in_a_range_that_holds_all(values: list[float]) -> None:
    low, high = spread(values)
    assert low < high and all(low <= value <= high for value in values)
    assert 2 <= len(ticks(low, high)) <= 12
    assert all(low - 1e-9 * abs(low) <= t <= high + 1e-9 * abs(high) for t in ticks(low, high))


def test_thinning_keeps_ends_and_extremes() -> None:
    points = [(float(n), math.sin(n)) for n in range(10_000)]
    kept = thinned(points, 100)
    assert len(kept) <= 100 and kept == sorted(kept)
    assert kept[0] == points[0] and kept[-1] == points[-1]
    assert max(kept, key=lambda p: p[1])[1] == max(v for _, v in points)


def test_numbers_that_cannot_be_drawn() -> None:
    assert [number(v) for v in (True, "1", None, math.nan, math.inf, 10**400, 1e301)] == [None] * 7
    assert (number(2), number(-0.5), number(5e-324)) == (2.0, -0.5, 0.0)
