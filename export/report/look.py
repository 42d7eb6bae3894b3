"""How a bundle's page looks: as a run's page does, also on a dark screen, on a phone and on paper."""

from __future__ import annotations

from polyhead.models.markup import STYLE

__all__ = ["LOOK"]

# Okabe & Ito 2008, as in the plots of a run; on a dark screen the lighter ones of the same names.
LOOK = (
    STYLE
    + """
:root { color-scheme: light dark; --blue: #0072b2; --orange: #d55e00; --green: #009e73; --purple: #cc79a7;
  --track: #e4e9ee; --wire: #8a8a8a; }
@media screen and (prefers-color-scheme: dark) {
  :root { --paper: #15181b; --ink: #e8e8e8; --quiet: #a8a8a8; --line: #33383d; --card: #20252a; --accent: #56b4e9;
    --blue: #56b4e9; --orange: #e8914f; --green: #2fc29a; --track: #2c3238; --wire: #7d8288; }
}
h3 { margin: 1rem 0 .6rem; font-size: 1rem; overflow-wrap: anywhere; }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1rem; } a { color: var(--accent); }
caption { text-align: left; color: var(--quiet); font-size: .9rem; padding: .4rem 0; }
caption span { display: block; max-width: min(50rem, 100vw - 2rem); }
.wide { margin-bottom: 1rem; } .wide:focus-visible { outline: 2px solid var(--accent); }
th { font-size: .85rem; } td { min-width: 5rem; max-width: 34rem; } td.value { white-space: nowrap; }
td:first-child { min-width: 8.5rem; overflow-wrap: anywhere; }
td small, th small { display: block; font-weight: normal; font-size: .8rem; color: var(--quiet); }
code { display: block; min-width: 17ch; font-size: .8rem; white-space: normal; overflow-wrap: anywhere; }
.plots { align-items: flex-start; gap: 1rem 2.5rem; margin-bottom: 1rem; }
figure { flex: 1 1 20rem; max-width: 30rem; } figcaption { font-size: .9rem; color: var(--quiet); }
.beside { flex: 1 1 20rem; min-width: 0; }
summary { cursor: pointer; color: var(--accent); }
svg { display: block; width: 100%; height: auto; }
svg text { font: 11px system-ui, sans-serif; fill: var(--ink); font-variant-numeric: tabular-nums; }
svg .name { font-size: 13px; font-weight: 600; } svg .quiet { fill: var(--quiet); }
.box { fill: var(--card); stroke: var(--line); } .trunk { stroke: var(--accent); stroke-width: 1.5; }
.wire { fill: none; stroke: var(--wire); stroke-width: 1.5; } .track { fill: var(--track); }
.parameters, .onnxruntime { fill: var(--blue); } .flops, .torchscript { fill: var(--orange); }
.time, .program { fill: var(--green); } .aotinductor { fill: var(--purple); } .eager { fill: var(--wire); }
@media print {
  body { font-size: 11px; padding: 0; } h3 { margin: 1rem 0 .6rem; font-size: 1rem; overflow-wrap: anywhere; }
nav { display: none; } .wide { overflow: visible; }
  .beside { flex-basis: 100%; }
  details::details-content { content-visibility: visible; display: block; } summary { color: inherit; }
  tr, figure, svg, .facts div { break-inside: avoid; } h2, h3, caption { break-after: avoid; }
}
"""
)
