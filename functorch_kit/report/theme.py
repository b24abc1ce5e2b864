"""The page's style sheet: light and dark, phone and desk, no font or file from elsewhere."""

CSS = """
:root {
  color-scheme: light dark;
  --page: #f6f7f8; --card: #ffffff; --ink: #1b1f24; --muted: #5b6672; --rule: #dfe4e8;
  --empty: #f1f3f5;
  --train: #0072b2; --validation: #d55e00; --test: #009e73;
  --right: 0, 114, 178; --wrong: 230, 120, 20;
  --shadow: 0 1px 2px rgba(20, 30, 40, .06);
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #101418; --card: #181d23; --ink: #e7ebef; --muted: #9aa6b2; --rule: #2b333c;
    --empty: #1f252c;
    --train: #56b4e9; --validation: #f08a3c; --test: #2fc49b;
    --right: 40, 130, 200; --wrong: 225, 110, 20;
    --shadow: none;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
main { max-width: 1120px; margin: 0 auto; padding: 32px 20px 48px; }
h1, h2, h3, p, figure, dl, dd { margin: 0; }
h1 { font-size: 30px; line-height: 1.2; letter-spacing: -.01em; overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 40px 0 12px; }
.over { color: var(--muted); font-size: 13px; letter-spacing: .04em; }
.muted, .note { color: var(--muted); font-size: 14px; }
.note { margin-top: 10px; }
.matrix .note { width: 0; min-width: 100%; } /* the matrix decides how wide its column is */
header { display: flex; flex-wrap: wrap; gap: 20px 40px; justify-content: space-between;
  align-items: flex-end; }
header > div { min-width: 0; }
@media (min-width: 700px) {
  header { flex-wrap: nowrap; }
  .headline { flex: none; text-align: right; }
}
.status { display: inline-flex; align-items: center; gap: 8px; margin-top: 10px; font-size: 14px; }
.status::before { content: ""; width: 9px; height: 9px; border-radius: 50%;
  background: var(--validation); }
.status.finished::before { background: var(--test); }
.status.stopped::before { background: var(--train); }
.headline b { display: block; font-size: 52px; line-height: 1.05; font-weight: 650;
  letter-spacing: -.025em; font-variant-numeric: tabular-nums; white-space: nowrap; }
.cards { display: grid; gap: 12px; margin-top: 28px;
  grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); }
@media (min-width: 960px) { .cards { grid-template-columns: repeat(var(--n), minmax(0, 1fr)); } }
.card, .panel { background: var(--card); border: 1px solid var(--rule); border-radius: 10px;
  box-shadow: var(--shadow); }
.card { padding: 12px 14px; min-width: 0; }
.card dt { color: var(--muted); font-size: 13px; }
.card dd { font-size: 20px; font-weight: 600; font-variant-numeric: tabular-nums;
  overflow-wrap: anywhere; line-height: 1.3; }
.panel { padding: 16px; min-width: 0; }
.grid { display: grid; gap: 16px;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 400px), 1fr)); }
.grid.single { grid-template-columns: minmax(0, 720px); }
figcaption { font-weight: 600; font-size: 15px; margin-bottom: 4px; }
figcaption .muted { font-weight: 400; }
.plot { display: block; width: 100%; height: auto; overflow: visible; }
.chart { max-width: 720px; }
.plot text { font-family: inherit !important; }
.field { position: relative; }
.lines { position: absolute; inset: 0; width: 100%; height: 100%; overflow: visible; }
.lines * { vector-effect: non-scaling-stroke; }
.lines polyline { fill: none; stroke-linejoin: round; stroke-linecap: round; }
.axis { stroke: var(--muted); stroke-width: 1; }
.tick { position: absolute; font-size: 12px; line-height: 1.2; white-space: nowrap;
  max-width: 84px; overflow: hidden; text-overflow: ellipsis; pointer-events: none;
  font-variant-numeric: tabular-nums; padding: 0 2px; border-radius: 3px;
  background: color-mix(in srgb, var(--card) 78%, transparent); }
.tick.before { transform: translate(calc(-100% - 6px), -50%); }
.tick.after { transform: translate(6px, -50%); }
.tick.under { transform: translate(-50%, 7px); }
.field.curves { height: 320px; margin: 4px 18px 0 62px; }
/* Marks at the sides stay whole, values beyond the axis are cut off. */
.curves .lines { clip-path: inset(-1px -8px); }
.axis-name { font-size: 13px; color: var(--muted); }
.axis-name.under { text-align: center; margin-top: 26px; }
.rule { stroke: var(--rule); stroke-width: 1; }
.key { width: 36px; height: 8px; display: block; }
.key path { fill: none; stroke-width: 2.4; }
.legend { display: flex; flex-wrap: wrap; gap: 2px 20px; list-style: none; margin: 0 0 8px;
  padding: 0; font-size: 13px; color: var(--muted); }
.legend li { display: inline-flex; align-items: center; gap: 8px; }
figure .field.curves { height: 240px; }
.train { stroke: var(--train); } .validation { stroke: var(--validation); }
.test { stroke: var(--test); } .other { stroke: var(--ink); }
.lines polyline.train, .lines polyline.validation, .lines polyline.test, .lines polyline.other {
  stroke-width: 1.8; }
.lines polyline.raw { stroke-width: .8; opacity: .32; }
.plain.validation { stroke-dasharray: 8 4; } .plain.test { stroke-dasharray: 2 4; }
.plain.other { stroke-dasharray: 10 3 2 3; }
.lines .mark, .key .mark { fill: none; stroke-width: 7; stroke-linecap: round; }
.lines .mark.test, .key .mark.test { stroke-width: 6; stroke-linecap: square; }
.lines .best { stroke: var(--muted); stroke-width: 1.2; stroke-dasharray: 2 3; }
.pair { display: grid; gap: 0 32px; align-items: start; grid-template-columns: minmax(0, 1fr); }
@media (min-width: 960px) {
  .pair.even { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  .pair.matrix { grid-template-columns: minmax(0, max-content) minmax(320px, 1fr); }
}
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; }
th { font-weight: 600; text-align: left; }
.data { width: 100%; }
.data th, .data td { padding: 6px 10px; border-bottom: 1px solid var(--rule); text-align: right;
  white-space: nowrap; }
.data th:first-child, .data td:first-child { text-align: left; padding-left: 0; }
.data th:last-child, .data td:last-child { padding-right: 0; }
.data tbody th { font-weight: 400; color: var(--muted); }
.data tbody tr:last-child > * { border-bottom: 0; }
.confusion { border-spacing: 2px; border-collapse: separate; table-layout: fixed; margin: 0 auto;
  font-size: 13px; }
.confusion td { min-width: 34px; height: 34px; padding: 0 2px; text-align: center;
  border-radius: 4px; }
.confusion td.none { color: transparent; background: var(--empty); }
.confusion td.right { background: rgba(var(--right), var(--a)); }
.confusion td.wrong { background: rgba(var(--wrong), var(--a)); font-weight: 650; }
.confusion td.strong { color: #fff; }
.confusion th { font-weight: 500; color: var(--muted); padding: 0 4px; text-align: center;
  white-space: nowrap; max-width: 120px; overflow: hidden; text-overflow: ellipsis; }
.confusion tbody th { text-align: right; }
.confusion .recall { color: var(--muted); padding-left: 8px; text-align: right; }
.confusion thead .slant { writing-mode: vertical-rl; transform: rotate(180deg); text-align: left;
  max-height: 120px; padding: 4px 0; max-width: none; }
.confusion caption { caption-side: bottom; padding-top: 10px; text-align: left; }
.mistakes { display: grid; gap: 12px; padding: 0; margin: 0; list-style: none;
  grid-template-columns: repeat(auto-fill, minmax(104px, 1fr)); }
.mistakes li { background: var(--card); border: 1px solid var(--rule); border-radius: 10px;
  padding: 8px; text-align: center; font-size: 14px; line-height: 1.35; min-width: 0;
  overflow-wrap: anywhere; }
.mistakes img { display: block; width: 100%; aspect-ratio: 1; object-fit: contain;
  image-rendering: pixelated; background: #000; border-radius: 5px; margin-bottom: 6px; }
.mistakes .said { color: var(--validation); font-weight: 650; }
.mistakes small { display: block; color: var(--muted); font-size: 12px; }
.split { display: flex; height: 22px; border-radius: 6px; overflow: hidden; gap: 2px;
  background: var(--rule); margin: 2px 0 10px; }
.split i { display: block; min-width: 2px; }
.keys { display: flex; flex-wrap: wrap; gap: 4px 22px; font-size: 14px; }
.keys span::before { content: ""; display: inline-block; width: 11px; height: 11px;
  border-radius: 3px; background: var(--c); margin-right: 8px; }
.facts { display: grid; grid-template-columns: minmax(110px, max-content) minmax(0, 1fr);
  gap: 6px 20px; font-size: 14px; }
.facts dt { color: var(--muted); }
.facts dd { overflow-wrap: anywhere; }
pre { margin: 0; font: 13px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace;
  white-space: pre-wrap; overflow-wrap: anywhere; }
details > summary { cursor: pointer; font-size: 14px; color: var(--muted); margin-top: 14px; }
details[open] > summary { margin-bottom: 10px; }
footer { margin-top: 44px; color: var(--muted); font-size: 13px; }
@media (max-width: 520px) {
  main { padding: 20px 14px 36px; }
  h1 { font-size: 24px; }
  h2 { margin-top: 32px; }
  .headline b { font-size: 44px; }
  .field.curves { height: 220px; margin: 4px 16px 0 54px; }
  .tick { max-width: 70px; }
  /* Drawings shrink with the screen; their text shall not. */
  .plot text { font-size: 10px !important; }
  .cards { grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 10px; }
  .panel { padding: 12px; }
  .confusion { border-spacing: 1px; font-size: 11px; }
  .confusion td { min-width: 23px; height: 26px; padding: 0; border-radius: 3px; }
  .confusion th { padding: 0 2px; max-width: 70px; }
  .confusion .recall { padding-left: 3px; }
  .mistakes { grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 8px; }
  .data th, .data td { padding: 6px 6px; }
}
@media print { body { background: #fff; } .card, .panel { break-inside: avoid; } }
"""
