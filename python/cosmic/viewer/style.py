"""The page's style, its script and the looks of what it shows."""

from __future__ import annotations

__all__ = ["CURVES", "SCRIPT", "STYLE", "look_of_role"]

#: Looks of curves, told apart by dashes as well as by colour.
CURVES = tuple(f"line c{number}" for number in range(8))
_ROLES = ("table", "matrix", "vector")


def look_of_role(role: str) -> str:
    """The class of a role's areas."""
    return role if role in _ROLES else "other"


# Okabe and Ito's colours, told apart by colour-blind eyes too; on dark ground the lighter ones.
STYLE = """
:root {
  color-scheme: light dark;
  --back: #ffffff; --text: #1b1f24; --faint: #59636e; --rule: #d8dee4; --panel: #f6f8fa;
  --c0: #0072b2; --c1: #d55e00; --c2: #009e73; --c3: #b0518d; --c4: #1b1f24; --c5: #8a6d00;
  --bad: #b3261e;
}
@media (prefers-color-scheme: dark) {
  :root {
    --back: #0f1317; --text: #e6e9ec; --faint: #9aa4ae; --rule: #333b44; --panel: #181d23;
    --c0: #56b4e9; --c1: #ff9248; --c2: #2cc79b; --c3: #e49ac6; --c4: #e6e9ec; --c5: #f0e442;
    --bad: #ff8a80;
  }
}
body { margin: 2rem auto; max-width: 60rem; padding: 0 1rem; background: var(--back);
  color: var(--text); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 2.2rem 0 .5rem; }
p { margin: .4rem 0; } .note, caption { color: var(--faint); }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); gap: .6rem 1rem;
  background: var(--panel); border: 1px solid var(--rule); padding: .8rem 1rem; margin: 0; }
dt { color: var(--faint); font-size: .8rem; } dd { margin: 0; overflow-wrap: anywhere; }
.scrolled { max-height: 28rem; overflow: auto; border: 1px solid var(--rule); }
table { border-collapse: collapse; width: 100%; font-size: .85rem; }
th, td { padding: .25rem .6rem; text-align: left; border-bottom: 1px solid var(--rule); }
td { overflow-wrap: anywhere; }
th { position: sticky; top: 0; background: var(--panel); }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
svg.chart, svg.treemap { display: block; width: 100%; height: auto; }
svg text { font: 11px ui-monospace, monospace; fill: var(--faint); }
.grid { stroke: var(--rule); } .axis, .tick { stroke: var(--faint); }
.hair { stroke: var(--faint); fill: none; visibility: hidden; }
.line { fill: none; stroke: currentColor; stroke-width: 1.6; stroke-linejoin: round; }
circle.line { fill: currentColor; }
.c0 { color: var(--c0); } .c1 { color: var(--c1); } .c2 { color: var(--c2); }
.c3 { color: var(--c3); } .c4 { color: var(--c4); } .c5 { color: var(--c5); }
.c6 { color: var(--c0); } .c7 { color: var(--c1); }
.c1 { stroke-dasharray: 7 3; } .c2 { stroke-dasharray: 2 2; } .c3 { stroke-dasharray: 8 3 2 3; }
.c5 { stroke-dasharray: 12 3; } .c6 { stroke-dasharray: 4 4; } .c7 { stroke-dasharray: 1 4; }
.limit { fill: none; stroke: var(--text); stroke-width: 1.6; stroke-dasharray: 6 4; }
.table { fill: #0072b2; } .matrix { fill: #e69f00; } .vector { fill: #009e73; }
.other { fill: #8b949e; } .treemap rect { stroke: var(--back); stroke-width: 1.2; }
svg .on-table { fill: #ffffff; } svg .on-matrix, svg .on-vector, svg .on-other { fill: #000000; }
.mark { stroke: var(--bad); fill: var(--bad); stroke-width: 1.4; }
.mark.back { fill: var(--back); }
.legend { display: flex; flex-wrap: wrap; gap: .1rem 1.2rem; list-style: none; margin: .2rem 0 0;
  padding: 0 0 0 4.5rem; font-size: .85rem; } .swatch { margin-right: .4rem; }
#hover { position: fixed; display: none; pointer-events: none; background: var(--panel);
  border: 1px solid var(--rule); padding: .2rem .5rem; font-size: .8rem; white-space: pre; }
"""

# Says what the curves are at the step under the pointer. All text is set as text, never as markup.
SCRIPT = """
"use strict";
const box = document.getElementById("hover");
function at(series, step) {
  const points = series.points ??= series.dataset.points.split(";").filter(Boolean)
    .map((pair) => pair.split("="));
  let found = null;
  for (const [x, text] of points) {
    const near = series.dataset.steps === "1" ? (+x <= step ? -x : Infinity) : Math.abs(x - step);
    if (near !== Infinity && (found === null || near <= found.near)) found = { near, x, text };
  }
  return found;
}
for (const svg of document.querySelectorAll("svg.chart")) {
  const { left, right, last, width } = svg.dataset;
  const hair = svg.querySelector(".hair");
  svg.addEventListener("mousemove", (event) => {
    const frame = svg.getBoundingClientRect();
    const x = (event.clientX - frame.left) * width / frame.width;
    const step = (x - left) / (right - left) * last;
    const inside = step >= 0 && step <= +last;
    box.style.display = inside ? "block" : "none";
    hair.style.visibility = inside ? "visible" : "hidden";
    hair.setAttribute("transform", `translate(${x} 0)`);
    const lines = ["step " + Math.round(step)];
    for (const series of svg.querySelectorAll(".series")) {
      const found = at(series, step);
      if (found) lines.push(series.dataset.name + ": " + found.text);
    }
    box.textContent = lines.join("\\n");
    box.style.left = Math.min(event.clientX + 14, innerWidth - box.offsetWidth - 8) + "px";
    box.style.top = event.clientY + 14 + "px";
  });
  svg.addEventListener("mouseleave", () => {
    box.style.display = "none";
    hair.style.visibility = "hidden";
  });
}
"""
