"""The page that a report fills in: its frame, its look, and how any text is made safe to stand in it."""

import html
from string import Template

from tinyllm.training.progress import printable


def escape(value):
    """Any text as it may stand in the page: a model or a corpus can write anything."""
    return html.escape(printable(str(value)))


STYLE = """
:root {
  color-scheme: light;
  --paper: #fdfcf9; --ink: #24221e; --muted: #6a655b; --rule: #e3ded2; --panel: #f6f3ec;
  --accent: #23696c; --second: #b35c22; --quiet: #cbc4b4;
}
@media (prefers-color-scheme: dark) {
  :root {
    color-scheme: dark;
    --paper: #191815; --ink: #e6e2d8; --muted: #a39d8f; --rule: #36332c; --panel: #22201c;
    --accent: #7cc0bd; --second: #e39a63; --quiet: #57523f;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 3rem 1.25rem 5rem; max-width: 54rem;
  background: var(--paper); color: var(--ink);
  font: 1.0625rem/1.6 Charter, "Bitstream Charter", "Iowan Old Style", "Palatino Linotype", Palatino, Georgia, serif;
  text-wrap: pretty; -webkit-text-size-adjust: 100%;
}
h1, h2, h3, p, figure, dl, dd, pre, table { margin: 0; padding: 0; }
h1 { font-size: 2rem; line-height: 1.2; font-weight: 600; overflow-wrap: anywhere; }
h1 span { color: var(--muted); font-weight: 400; }
h2 { font-size: 1.3rem; font-weight: 600; margin-bottom: 1rem; }
h3 { font-size: 1rem; font-weight: 400; color: var(--muted); margin: 1rem 0 .35rem; }
section { margin-top: 3.25rem; }
small, figcaption, caption, dt, .notice, .missing, .remark, summary, table, dd, footer, .scale {
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
small, figcaption, caption, dt, .missing, .remark, footer { color: var(--muted); font-size: .85rem; }
pre, code { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: .85rem; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; line-height: 1.55; }
code { overflow-wrap: anywhere; }
q { font-style: italic; overflow-wrap: anywhere; }
.notice { margin-top: 1rem; padding: .6rem .9rem; border-left: 3px solid var(--second); background: var(--panel);
          font-size: .9rem; }
.headline { display: flex; flex-wrap: wrap; align-items: baseline; gap: 0 .9rem; margin: 1.75rem 0 1.5rem; }
.headline strong { font-size: 3.5rem; line-height: 1.1; font-weight: 600; color: var(--accent); }
.headline span { flex: 1 1 14rem; }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: .9rem 1.5rem;
     padding: 1rem 0; border: solid var(--rule); border-width: 1px 0; }
dd { font-size: .95rem; font-variant-numeric: tabular-nums; }
table { width: 100%; border-collapse: collapse; font-size: .9rem; }
caption { text-align: left; margin-bottom: .5rem; }
th, td { padding: .35rem 0; text-align: left; vertical-align: top; font-weight: 400; overflow-wrap: anywhere; }
.bars th { width: 15rem; padding-right: 1rem; line-height: 1.3; }
.bars th small { display: block; font-size: .78rem; }
.bars td { vertical-align: middle; }
.bars td:last-child { width: 4rem; text-align: right; font-variant-numeric: tabular-nums; }
.bar span { display: block; height: .8rem; border-radius: 2px; background: var(--quiet); }
.model { font-weight: 600; }
.model th, .model td { font-weight: 600; }
.model .bar span { background: var(--accent); }
.bars + p { margin-top: 1.5rem; }
.scale { position: relative; height: .5rem; margin-top: .9rem; border-radius: 4px; background: var(--rule); }
.scale span { position: absolute; top: 0; height: 100%; }
.scale .range { background: var(--quiet); }
.scale .mark { top: -.3rem; width: 3px; height: 1.1rem; margin-left: -1px; border-radius: 2px;
               background: var(--accent); }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 2rem 1.75rem; }
.figures + .remark, .scale + .remark { margin-top: 1.25rem; }
.spikes { margin-top: 1.75rem; }
.spikes th, .spikes td { padding-right: 1rem; font-variant-numeric: tabular-nums; }
.spikes tr + tr > *, .spikes tbody > * > * { border-top: 1px solid var(--rule); }
.spikes small { display: block; }
.figures figcaption { margin-top: .25rem; }
.figures b { color: var(--ink); font-weight: 600; }
svg { display: block; width: 100%; height: auto; }
svg * { stroke-linejoin: round; }
svg text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif !important; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); gap: 1rem;
        margin-top: 1rem; }
.sample pre { margin-top: .3rem; padding: .8rem 1rem; border-radius: 4px; background: var(--panel); }
.sample b { color: var(--accent); font-weight: 600; }
details { margin-top: .6rem; }
details .sample { margin-top: 1rem; }
summary::first-letter { text-transform: uppercase; }
summary { cursor: pointer; font-size: .9rem; color: var(--muted); }
details table { margin: .4rem 0 1rem; }
details th { width: 40%; padding-right: 1rem; }
details tr + tr > * { border-top: 1px solid var(--rule); }
.command { padding: .8rem 1rem; border-radius: 4px; background: var(--panel); }
section > p + .pair, section > .pair + p, section > details + p { margin-top: 1.25rem; }
footer { margin-top: 3.5rem; padding-top: 1rem; border-top: 1px solid var(--rule); }
@media (max-width: 34rem) {
  body { padding-top: 1.75rem; }
  .bars th { width: 9.5rem; }
  .bars td:last-child { width: 3.25rem; }
}
@media print {
  :root {
    color-scheme: light; font-size: 9.5pt;
    --paper: #fff; --ink: #000; --muted: #444; --rule: #ccc; --panel: #fff;
    --accent: #23696c; --second: #b35c22; --quiet: #bbb;
  }
  body { max-width: none; padding: 0; }
  section { margin-top: 2.25rem; }
  .figures { grid-template-columns: 1fr 1fr; }
  figure, table, tr, .pair { break-inside: avoid; }
  h2, summary { break-after: avoid; }
  .sample pre, .command { border: 1px solid var(--rule); }
  .bar span, .scale, .scale span { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  details::details-content { content-visibility: visible; block-size: auto; }
}
"""

PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>$style</style>
</head>
<body>
<header>
<h1>$preset <span>on $corpus</span></h1>
$notices
$headline
<dl>$facts</dl>
</header>

<main>
<section>
<h2>How good is that?</h2>
$baselines
$expectation
</section>

<section>
<h2>How it learned</h2>
$curves
$spikes
</section>

<section>
<h2>What it writes</h2>
$samples
$originality
</section>

<section>
<h2>Going on</h2>
$commands
</section>

<section>
<h2>How it was made</h2>
$provenance
$configuration
</section>
</main>

<footer>Written by tinyllm. This page needs no other file and no network.</footer>
</body>
</html>
""")
