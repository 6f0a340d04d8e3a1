"""The CSS of a page: system fonts, light and dark, looks of tokens and lines that differ without colour too."""

STYLE = """
:root { color-scheme: light dark; --page: #f7f7f5; --card: #fff; --ink: #1c1e21; --soft: #565c65; --rule: #d9dbde;
  --s0: #1666b0; --s1: #b4590b; --s2: #187a52; --s3: #8b3fa8; --s4: #a3354a; --s5: #5d636c;
  --good: #d6efdf; --target: #9fc3f0; --gap0: #fff; --gap1: #fdeccd; --gap2: #f9c784; --gap3: #ef8f4c;
  --mark: #1c1e21; }
@media (prefers-color-scheme: dark) { :root { --page: #14161a; --card: #1c1f24; --ink: #e8e9eb; --soft: #a6acb5;
  --rule: #3a3f47; --s0: #6db3f5; --s1: #f2a65a; --s2: #5fce9f; --s3: #d39aeb; --s4: #f28b9d; --s5: #a9afb8;
  --good: #16392a; --target: #2f66ad; --gap0: #1c1f24; --gap1: #3a2c14; --gap2: #6b4413; --gap3: #9c4a12;
  --mark: #e8e9eb; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 24px 20px 60px; }
@media (max-width: 600px) { main { padding: 12px 8px 40px; } section { padding: 14px 12px !important; } }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 16px; overflow-wrap: anywhere; }
h2 { font-size: 19px; margin: 0 0 10px; } h3 { font-size: 16px; margin: 0; overflow-wrap: anywhere; }
section { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 18px 20px;
  margin: 0 0 16px; }
p { margin: 8px 0 0; max-width: 85ch; overflow-wrap: anywhere; }
.verdict p:first-of-type { font-size: 19px; line-height: 1.45; font-weight: 600; margin-top: 0; }
.verdict h3 + p { font-size: 16px; } .missing { border-left: 4px solid var(--s1); padding-left: 10px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 15px; }
th, td { text-align: right; padding: 6px 14px 6px 0; border-bottom: 1px solid var(--rule); white-space: nowrap; }
thead th { color: var(--soft); font-weight: 500; font-size: 13.5px; }
th:first-child, .words td { text-align: left; }
tbody th { font-weight: 600; } tbody tr:last-child > * { border-bottom: 0; }
@media (max-width: 600px) { .result thead { display: none; } .result, .result tbody { display: block; }
  .result tr { display: grid; grid-template-columns: 1fr 1fr; padding: 8px 0; border-bottom: 1px solid var(--rule); }
  .result th { grid-column: 1 / 3; border: 0; white-space: normal; } .result td { display: block; border: 0; padding: 0;
  text-align: left; } .result td::before { content: attr(data-label); display: block; color: var(--soft);
  font-size: 13px; } .result td:empty { display: none; } }
.words td { white-space: normal; overflow-wrap: anywhere; min-width: 9em; vertical-align: top; }
.figures { display: grid; gap: 22px 32px; grid-template-columns: repeat(auto-fill, minmax(min(100%, 330px), 1fr)); }
figure { margin: 0; min-width: 0; } figcaption { font-size: 14px; color: var(--soft); margin-top: 2px; }
.chart { width: 100%; max-width: 520px; height: auto; display: block; font-family: system-ui, sans-serif; }
summary { cursor: pointer; color: var(--soft); font-size: 14px; padding: 4px 0; }
summary:focus-visible, .tokens:focus-visible, select:focus-visible, input:focus-visible { outline: 3px solid var(--s0);
  outline-offset: 2px; }
section > details > summary { font-size: 17px; color: var(--ink); font-weight: 600; }
dl { display: grid; grid-template-columns: minmax(8em, max-content) 1fr; gap: 2px 18px; margin: 8px 0 0;
  font-size: 14px; }
dt { color: var(--soft); overflow-wrap: anywhere; } dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 600px) { dl { grid-template-columns: 1fr; } dd { margin: 0 0 6px 12px; } }
.controls { display: flex; flex-wrap: wrap; gap: 10px 18px; margin: 10px 0; align-items: center; }
.controls[hidden] { display: none; } fieldset { border: 0; padding: 0; margin: 0; display: flex; flex-wrap: wrap;
  gap: 6px 14px; } legend { float: left; margin-right: 10px; padding: 0; }
.controls label { display: inline-flex; align-items: center; gap: 6px; min-height: 28px; }
select { font: inherit; max-width: 100%; padding: 4px; }
.controls label:has(select) { flex-wrap: wrap; max-width: 100%; }
.answer { margin-top: 14px; } .answer[hidden] { display: none; }
.tokens { font: 15px/2 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; white-space: pre-wrap;
  overflow-wrap: anywhere; margin: 8px 0; padding: 4px; }
.prompt { color: var(--soft); font: 14px/1.5 ui-monospace, Menlo, Consolas, monospace; white-space: pre-wrap;
  overflow-wrap: anywhere; margin: 6px 0 0; }
.t { unicode-bidi: isolate; cursor: pointer; border-radius: 2px; padding: 1px 0; color: var(--ink);
  border-bottom: 2px solid transparent; margin-right: 1px; }
.key { cursor: default; padding: 0 5px; }
.by-acceptance .a { background: var(--good); }
.by-acceptance .r { background: var(--target); border-bottom: 3px double var(--mark); font-weight: 700; }
.by-acceptance .b { border-bottom: 2px dotted var(--mark); }
.by-gap .g1 { background: var(--gap1); border-bottom: 1px dotted var(--mark); }
.by-gap .g2 { background: var(--gap2); border-bottom: 2px solid var(--mark); }
.by-gap .g3 { background: var(--gap3); border-bottom: 4px solid var(--mark); }
.by-selection .s { background: var(--gap2); border-bottom: 3px solid var(--mark); }
.by-selection .l { border-bottom: 2px dotted var(--mark); }
.t.on { outline: 3px solid var(--s4); outline-offset: 0; }
.legend { font-size: 14px; display: none; flex-wrap: wrap; gap: 6px 14px; margin: 6px 0; }
.by-acceptance .legend.acceptance, .by-gap .legend.gap, .by-selection .legend.selection { display: flex; }
.numbers { border: 1px solid var(--rule); border-radius: 8px; padding: 10px 12px; margin-top: 8px; min-height: 5em;
  background: var(--card); position: sticky; bottom: 0; max-height: 45vh; overflow: auto; }
.numbers b { overflow-wrap: anywhere; white-space: pre-wrap; } .numbers[hidden] { display: none; }
.numbers .both { display: flex; flex-wrap: wrap; gap: 4px 28px; } .numbers ol { margin: 2px 0 0; padding-left: 1.5em; }
.numbers li span { white-space: pre-wrap; font-family: ui-monospace, Menlo, Consolas, monospace; }
.role { font: 600 12px/1 system-ui, sans-serif; border: 1px solid var(--soft); border-radius: 3px; padding: 1px 5px; }
@media print { section { break-inside: avoid; } body { background: #fff; } .numbers { position: static; } }
"""
