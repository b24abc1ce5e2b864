"""What the page of a sweep adds to the style of the report: shades, axes, curves, dot plots."""

# Shades go from light to dark on a light page, from dark to light on a dark one: the best stand
# out. Their lightness alone tells them apart, so they need no sense of colour.
SWEEP_CSS = """
:root {
  --s0: #e2d893; --s1: #b4c98a; --s2: #86c2a3; --s3: #4aa9b0; --s4: #2b82b0; --s5: #27569c;
  --s6: #172c74;
  --c0: #0072b2; --c1: #d55e00; --c2: #009e73; --c3: #b3558c; --c4: #8a6d00; --c5: #4d5760;
}
@media (prefers-color-scheme: dark) {
  :root {
    --s0: #4b5097; --s1: #3d61a0; --s2: #2f749b; --s3: #3593a0; --s4: #5ab39a; --s5: #a1cf8c;
    --s6: #f3ea94;
    --c0: #56b4e9; --c1: #f08a3c; --c2: #2fc49b; --c3: #dc8fbd; --c4: #e0c341; --c5: #b5c0cb;
  }
}
h3 { font-size: 15px; margin: 0 0 8px; overflow-wrap: anywhere; }
a { color: var(--train); }
.copy { padding: 10px 12px; background: var(--empty); border-radius: 8px; user-select: all;
  max-height: 220px; overflow: auto; }
.best-job { display: grid; gap: 16px; grid-template-columns: minmax(0, 1fr); }
@media (min-width: 760px) {
  .best-job.two { grid-template-columns: minmax(0, 3fr) minmax(0, 2fr); gap: 32px; }
}
.best-job h3 + * { margin-top: 0; }
.parallel { min-width: calc(var(--axes) * 112px + 120px); padding-top: 2px; }
.heads, .parallel .field { position: relative; margin: 0 88px 0 92px; }
.heads { height: 58px; }
.heads span { position: absolute; bottom: 17px; transform: translateX(-50%); width: 116px;
  font-size: 13px; font-weight: 600; line-height: 1.2; text-align: center; overflow-wrap: anywhere;
  display: -webkit-box; -webkit-line-clamp: 3; -webkit-box-orient: vertical; overflow: hidden; }
.heads small { display: block; font-weight: 400; font-size: 12px; color: var(--muted); }
.parallel .field { height: 340px; margin-bottom: 24px; }
.parallel polyline { stroke-width: 1.4; opacity: .8; }
.parallel polyline.top { stroke-width: 3; opacity: 1; }
.parallel polyline:hover { stroke: var(--validation); stroke-width: 3; opacity: 1; }
.parallel polyline.gone { stroke: var(--validation); stroke-dasharray: 4 4; opacity: .6;
  stroke-width: 1.2; }
.s0 { stroke: var(--s0); } .s1 { stroke: var(--s1); } .s2 { stroke: var(--s2); }
.s3 { stroke: var(--s3); } .s4 { stroke: var(--s4); } .s5 { stroke: var(--s5); }
.s6 { stroke: var(--s6); }
.shades { display: flex; flex-wrap: wrap; align-items: center; gap: 4px 12px; font-size: 13px;
  color: var(--muted); }
.ramp { display: inline-flex; gap: 2px; }
.ramp i { width: 22px; height: 10px; border-radius: 2px; }
.behind { stroke: var(--muted); stroke-width: 1; opacity: .28; }
.curves polyline[class^="c"] { stroke-width: 2; }
.band { stroke: none; opacity: .15; }
.c0 { stroke: var(--c0); } .c1 { stroke: var(--c1); stroke-dasharray: 8 4; }
.c2 { stroke: var(--c2); stroke-dasharray: 2 4; } .c3 { stroke: var(--c3);
  stroke-dasharray: 10 3 2 3; } .c4 { stroke: var(--c4); stroke-dasharray: 4 3; }
.c5 { stroke: var(--c5); stroke-dasharray: 14 4; }
.band.c0 { fill: var(--c0); } .band.c1 { fill: var(--c1); } .band.c2 { fill: var(--c2); }
.band.c3 { fill: var(--c3); } .band.c4 { fill: var(--c4); } .band.c5 { fill: var(--c5); }
.band { stroke: none !important; }
.curve-keys { list-style: none; margin: 14px 0 0; padding: 0; font-size: 14px; }
.curve-keys li { display: grid; grid-template-columns: 36px minmax(0, 1fr) max-content max-content;
  gap: 2px 14px; align-items: center; padding: 5px 0; border-bottom: 1px solid var(--rule); }
.curve-keys li:last-child { border-bottom: 0; }
.curve-keys li > span { overflow-wrap: anywhere; }
.curve-keys li > span + span { color: var(--muted); }
.curve-keys b { font-weight: 600; font-variant-numeric: tabular-nums; }
.effects { display: grid; gap: 16px;
  grid-template-columns: minmax(0, 1fr); }
.effect th.strip, .effect td.strip { min-width: 120px; padding: 0 6px; }
.effect tbody th { max-width: 180px; overflow: hidden; text-overflow: ellipsis; }
@media (min-width: 760px) {
  .effect { table-layout: fixed; }
  .effect th { width: 84px; }
  .effect th:first-child { width: 180px; }
  .effect th.strip { width: auto; }
}
.data .ends { display: flex; justify-content: space-between; gap: 8px; font-weight: 400;
  color: var(--muted); }
.dots { display: block; width: 100%; height: 24px; overflow: visible; }
.dots .dot { fill: var(--muted); opacity: .3; }
.dots .bar { stroke: var(--train); stroke-width: 2.5; }
.dots .mean { fill: var(--train); }
.dots .best { overflow: visible; }
.dots .best path { fill: var(--card); stroke: var(--validation); stroke-width: 2; }
.jobs td, .jobs th { max-width: 220px; overflow: hidden; text-overflow: ellipsis; }
@media (max-width: 520px) {
  .parallel { min-width: calc(var(--axes) * 92px + 80px); }
  .heads span { width: 90px; font-size: 12px; }
  .heads, .parallel .field { margin: 0 78px 0 74px; }
  .parallel .field { height: 280px; margin-bottom: 22px; }
  .curve-keys li { grid-template-columns: 36px minmax(0, 1fr) max-content; }
  .curve-keys li > span + span { grid-column: 2; grid-row: 2; }
  .curve-keys b { grid-row: 1; grid-column: 3; }
}
"""
