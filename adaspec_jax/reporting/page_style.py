"""The CSS of report.html: system fonts, light and dark, series colours that differ for colour-blind readers too."""

STYLE = """
:root { color-scheme: light dark; --page: #fbfbfa; --card: #fff; --ink: #1c1e21; --soft: #666b73; --rule: #e3e4e6;
  --s0: #8a8f98; --s1: #d9822b; --s2: #1f77c4; --s3: #2f9e6e; --good: #c9e8d5; --target: #bcd6f5; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --page: #15171a; --card: #1d2024; --ink: #e6e7e9; --soft: #9aa0a8;
  --rule: #33373d; --s0: #9aa0a8; --s1: #f0a04b; --s2: #5aa9ef; --s3: #55c595; --good: #1f4a35; --target: #274a7d;
  --bad: #f2857d; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.55 system-ui, sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: 26px; margin: 0 0 18px; } h2 { font-size: 18px; margin: 0 0 10px; } h3 { font-size: 15px; margin: 0; }
section { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 18px 20px;
  margin: 0 0 18px; }
p { margin: 10px 0 0; max-width: 90ch; } h2 + p { margin-top: 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 7px 14px 7px 0; border-bottom: 1px solid var(--rule); white-space: nowrap; }
thead th { color: var(--soft); font-weight: 500; font-size: 13px; } th:first-child { text-align: left; }
tbody th { font-weight: 600; } tbody tr:last-child > * { border-bottom: 0; } .mark { text-align: left; }
figure { margin: 8px 0 0; max-width: 560px; } .figures { display: grid; gap: 14px 28px;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 340px), 1fr)); }
.chart { width: 100%; height: auto; display: block; } svg.mark { display: block; }
.grid { stroke: var(--rule); } .axis { stroke: var(--soft); }
.tick, .label { fill: var(--soft); font-size: 11.5px; } .label { font-size: 12.5px; }
.raw, .line { fill: none; stroke: var(--c); stroke-linejoin: round; } .raw { opacity: .3; } .line { stroke-width: 2; }
.bar, .dot { fill: var(--c); }
.s0 { --c: var(--s0); } .s1 { --c: var(--s1); } .s2 { --c: var(--s2); } .s3 { --c: var(--s3); }
.legend { color: var(--soft); font-size: 13px; display: flex; flex-wrap: wrap; gap: 4px 16px; margin: 6px 0; }
.key { display: inline-block; width: 11px; height: 11px; border-radius: 3px; margin-right: 6px;
  background: var(--c); }
.switch { font-size: 13px; color: var(--soft); cursor: pointer; } .log { display: none; }
section:has(#log:checked) .log { display: block; } section:has(#log:checked) .linear { display: none; }
.tokens { font: 14px/1.75 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; white-space: pre-wrap;
  overflow-wrap: anywhere; margin-top: 10px; }
.tokens + .tokens { border-top: 1px dashed var(--rule); padding-top: 10px; }
.t { unicode-bidi: isolate; border-radius: 3px; padding: 1px 0; box-decoration-break: clone;
  -webkit-box-decoration-break: clone; }
.legend .t { padding: 0 6px; } .legend .rejected { opacity: 1; }
.prompt { color: var(--soft); } .dropped { color: var(--ink); }
.accepted, .selected { background: var(--good); color: var(--ink); }
.target { background: var(--target); color: var(--ink); }
.rejected { color: var(--bad); font-size: .8em; text-decoration: line-through; opacity: .85; }
.accepted + .accepted, .selected + .selected { box-shadow: -1px 0 0 var(--card); }
.role { font: 600 11px/1 system-ui, sans-serif; color: var(--page); background: var(--soft); border-radius: 3px;
  padding: 1px 5px; margin-right: 4px; vertical-align: 1px; }
.supervised { background: var(--target); color: var(--ink); }
.ws { font-style: normal; color: var(--soft); opacity: .65; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 18px; margin: 0; font-size: 13.5px; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
@media print { section { break-inside: avoid; } body { background: #fff; } }
"""
